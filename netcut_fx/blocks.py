"""Where the blocks of a network end, found from its structure.

No name of a model is consulted. Three things show a block: the module hierarchy, repetition, and parallel regions: what
lies between two neighbouring separators (positions that every path passes) when more than a chain is there.

1. A module that holds two or more weighted operations is *composite*. From the network inwards, each composite module
   is either a **container**, whose composite parts are looked at in turn, or a **block**:

   a. The network itself is a container. So is a module in which composite modules of the same kind follow each other,
      one depending on the other: a stage of residual blocks, a dense block of dense layers.
   b. Otherwise it is a block if it is the innermost module around a whole parallel region (a residual block, an
      inception block, a fire module), or of a class of which another instance is (an inverted residual that changes
      the shape has no shortcut of its own).
   c. Otherwise, if it holds composite modules, it is a container.
   d. What is left is a mere chain of layers. It is a block if it is repeated: if another such chain has the same class
      and the same weighted operations (the depthwise and pointwise pair of MobileNetV1), or if a block has the same
      ones, a depthwise convolution among them (an inverted residual that is written out in the stem).

2. Parallel regions that belong to a container directly, because the residual additions are written out in its
   ``forward``, are blocks themselves if there are two or more of them, each up to its closing activation.
3. Where less than two blocks are found, a depthwise convolution and the weighted layer behind it are a block wherever
   they occur, if they do so more than once (MobileNetV1 as a flat list of layers).
4. What lies between two blocks and applies a weight is a block too: a DenseNet transition, a patch merging. The stem in
   front of the first block and the layers behind the last are none.
5. Where still less than two blocks are found, nothing repeats; then every weighted layer ends a block, together with
   the normalisation and activation behind it.

A block ends with its module. The last block in a container that closes a parallel region ends with the container if
nothing with parameters lies between: the last dense layer ends with the concatenation behind it.

This yields the counts of Zandigohar et al., "NetCut: Real-Time DNN Inference Using Layer Removal" (DOI
10.23919/DATE51398.2021.9474052): MobileNetV1 13, MobileNetV2 17, InceptionV3 11, ResNet-50 16, DenseNet-121 61.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from netcut_fx.cut_graph import CutGraph
from netcut_fx.graph import TensorSpec
from netcut_fx.module_calls import ModuleCall, ModuleCalls, module_calls


@dataclass(frozen=True)
class Block:
    """One block.

    Parameters
    ----------
    name : str
        Path of the module whose end it is, else qualified name of its last node; unique.
    first, last : int
        Its positions in the `CutGraph`.
    ends : tuple of int
        The positions in it that are used behind it.
    """

    name: str
    first: int
    last: int
    ends: tuple[int, ...]


def blocks(graph: CutGraph) -> tuple[Block, ...]:
    """The blocks of a network, in execution order; the rule stands in this module's text."""
    if not graph.order:
        return ()
    calls = module_calls(graph)
    regions = _parallel_regions(graph, calls)
    spans = _composites(graph, calls, regions)
    spans += _loose_regions(graph, calls, regions, spans)
    if len(spans) < 2:
        spans += _separable(graph, calls, spans)
    spans = sorted(set(spans), key=lambda span: (span.last, span.first))
    spans += _between(graph, calls, spans)
    if len(spans) < 2:
        spans += _layers(graph, calls, spans)
    found: list[Block] = []
    names: Counter[str] = Counter()
    for span in sorted(spans, key=lambda span: (span.last, span.first)):
        inside = range(span.first, span.last + 1)
        ends = tuple(p for p in inside if any(user > span.last for user in graph.users[p]))
        if ends:
            names[span.name] += 1
            name = span.name if names[span.name] == 1 else f"{span.name}#{names[span.name]}"
            found.append(Block(name, span.first, span.last, ends))
    return tuple(found)


@dataclass(frozen=True)
class _Span:
    name: str
    first: int
    last: int


@dataclass(frozen=True)
class _Region:
    """Positions between two separators where more than a chain lies, the closing one included, and who made it."""

    first: int
    last: int
    owner: ModuleCall


def _parallel_regions(graph: CutGraph, calls: ModuleCalls) -> list[_Region]:
    return [
        _Region(before + 1, after, calls.enclosing(before + 1, after))
        for before, after in pairwise((graph.inputs - 1, *graph.separators))
        if after - before > 1 and calls.has_weight(before + 1, after)
    ]


def _composites(graph: CutGraph, calls: ModuleCalls, regions: Iterable[_Region]) -> list[_Span]:
    """Rule 1."""
    owners = {region.owner for region in regions}
    repeating = {call for call in calls.root.walk() if call.weights > 1 and _repeats_in_sequence(graph, call)}
    classes = {call.type_key for call in owners - repeating - {calls.root} if call.weights > 1 and not call.is_generic}
    chosen: list[ModuleCall] = []
    chains: list[ModuleCall] = []
    stack = [calls.root]
    while stack:
        call = stack.pop()
        parts = [child for child in call.children if child.weights > 1]
        if call is calls.root or call in repeating:
            stack += parts
        elif call in owners or call.type_key in classes:
            chosen.append(call)
        elif parts:
            stack += parts
        else:
            chains.append(call)
    alike = Counter((chain.type_key, chain.signature) for chain in chains)
    separable = {call.signature for call in chosen if any(calls.depthwise[call.first : call.last + 1])}
    chosen += [c for c in chains if alike[c.type_key, c.signature] > 1 or c.signature in separable]
    return [_extended(calls, call, owners) for call in chosen]


def _repeats_in_sequence(graph: CutGraph, call: ModuleCall) -> bool:
    earlier: dict[tuple[object, ...], ModuleCall] = {}
    for child in call.children:
        if child.weights > 1:
            before = earlier.get(child.type_key)
            if before is not None and _depends(graph, child, before):
                return True
            earlier[child.type_key] = child
    return False


def _depends(graph: CutGraph, later: ModuleCall, earlier: ModuleCall) -> bool:
    stack, seen = list(range(later.first, later.last + 1)), set[int]()
    while stack:
        position = stack.pop()
        if earlier.first <= position <= earlier.last:
            return True
        if position not in seen and position > earlier.last:
            seen.add(position)
            stack += graph.sources[position]
    return False


def _extended(calls: ModuleCalls, call: ModuleCall, owners: set[ModuleCall]) -> _Span:
    """The last block in a container that closes a parallel region ends with it."""
    first, end = call.first, call
    while (
        end.parent is not None
        and end.parent in owners
        and end.parent.parent is not None
        and not any(calls.parametrised[end.last + 1 : end.parent.last + 1])
    ):
        end = end.parent
    return _Span(end.path, first, end.last)


def _loose_regions(
    graph: CutGraph, calls: ModuleCalls, regions: Iterable[_Region], spans: Iterable[_Span]
) -> list[_Span]:
    """Rule 2."""
    covered = [False] * len(graph.order)
    for span in spans:
        covered[span.first : span.last + 1] = [True] * (span.last + 1 - span.first)
    loose = [region for region in regions if not any(covered[region.first : region.last + 1])]
    if len(loose) < 2:
        return []
    ends = [_closing(graph, calls, region.last) for region in loose]
    return [_Span(_name(graph, end), region.first, end) for region, end in zip(loose, ends, strict=True)]


def _separable(graph: CutGraph, calls: ModuleCalls, spans: Iterable[_Span]) -> list[_Span]:
    """Rule 3."""
    pairs = [
        (first, second)
        for first, second in pairwise(_weighted_outside(calls, spans))
        if calls.depthwise[first] and not calls.depthwise[second]
    ]
    return [_layer(graph, calls, first, second) for first, second in pairs] if len(pairs) > 1 else []


def _between(graph: CutGraph, calls: ModuleCalls, spans: list[_Span]) -> list[_Span]:
    """Rule 4."""
    found: list[_Span] = []
    for before, after in pairwise(spans):
        first, last = before.last + 1, after.first - 1
        if first <= last and calls.has_weight(first, last):
            around = calls.enclosing(first, last)
            own_module = around.first == first and around.last == last and around.path
            found.append(_Span(around.path if own_module else _name(graph, last), first, last))
    return found


def _layers(graph: CutGraph, calls: ModuleCalls, spans: Iterable[_Span]) -> list[_Span]:
    """Rule 5."""
    return [_layer(graph, calls, position, position) for position in _weighted_outside(calls, spans)]


def _weighted_outside(calls: ModuleCalls, spans: Iterable[_Span]) -> list[int]:
    inside = {p for span in spans for p in range(span.first, span.last + 1)}
    return [p for p, weighted in enumerate(calls.weighted) if weighted and p not in inside]


def _layer(graph: CutGraph, calls: ModuleCalls, first: int, last: int) -> _Span:
    """From `first` to what closes the layer at `last`; named after its module if it has one of its own."""
    end = _closing(graph, calls, last)
    module = calls.innermost[end]
    own = not module.is_generic and module.weights == 1 and module.last == end
    return _Span(module.path if own else _name(graph, end), first, end)


def _closing(graph: CutGraph, calls: ModuleCalls, position: int) -> int:
    """Follow normalisation and activation.

    They keep the shape, are used by nobody else, apply no weight, and do not begin another module that does.
    """
    while len(graph.users[position]) == 1:
        after = graph.users[position][0]
        if after >= len(graph.order) or len(graph.sources[after]) > 1 or calls.weighted[after]:
            break
        module = calls.innermost[after]
        if module.weights and not module.first <= position <= module.last:
            break
        node, spec = graph.order[after], graph.order[after].meta["spec"]
        if not isinstance(spec, TensorSpec) or spec != graph.order[position].meta["spec"]:
            break
        if node.op == "call_module" and isinstance(
            graph.traced.graph_module.get_submodule(str(node.target)),
            (nn.Dropout, nn.Identity, nn.MaxPool2d, nn.AvgPool2d),
        ):
            break
        position = after
    return position


def _name(graph: CutGraph, position: int) -> str:
    return str(graph.order[position].meta["qualname"])
