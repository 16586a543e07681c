"""A gated network as pieces that run one after the other: each is a static network that any backend compiles.

The trunk is cut where cells begin and end. A piece with gates exists once for each width, and once without the body of
its cell; which of them runs is decided for each input. The activation behind a cell belongs to its variants, so that a
compiler fuses it into the last kernel of each.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from netcut_fx.errors import PassError
from netcut_fx.gating.gate_network import Gates
from netcut_fx.gating.gated_cell import GatedCell, keep_channels
from netcut_fx.gating.narrowing import dropped_channels, narrowed
from netcut_fx.gating.regions import nodes_between
from netcut_fx.gating.slots import Slots
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.operation_kinds import plain_name
from netcut_fx.tracing import retrace


@dataclass(frozen=True)
class CellPieces:
    """The variants of one cell.

    Parameters
    ----------
    name : str
        Of the cell.
    slots : Slots
        Where its decisions are.
    variants : mapping of int to TracedModule
        By width; its inputs are what the cell reads, then a ``(1, 1, ..)`` scale of the body if the cell is skippable,
        then a ``(1, channels, ..)`` scale of the kept channels if `channel_groups` is set. None is the identity.
    scaled : bool
        Whether the variants take scales.
    channel_groups : mapping of int to tuple of int, or None
        By width, the group of each kept channel that is scaled.
    """

    name: str
    slots: Slots
    variants: Mapping[int, TracedModule | None]
    scaled: bool
    channel_groups: Mapping[int, tuple[int, ...]] | None


@dataclass(frozen=True)
class Pieces:
    """All pieces of a gated network, for one input at a time.

    Parameters
    ----------
    name : str
        Of the network.
    stem : TracedModule
        From the input to the early features.
    gates : TracedModule
        From the early features to saliences and, if there are any, scales.
    total : int
        Number of saliences.
    steps : tuple of CellPieces or TracedModule
        What follows, in order.
    """

    name: str
    stem: TracedModule
    gates: TracedModule
    total: int
    steps: tuple[CellPieces | TracedModule, ...]

    @property
    def cells(self) -> tuple[CellPieces, ...]:
        """The cells among the steps."""
        return tuple(step for step in self.steps if isinstance(step, CellPieces))

    @property
    def always(self) -> tuple[TracedModule, ...]:
        """What runs for every input."""
        return (self.stem, self.gates, *(step for step in self.steps if isinstance(step, TracedModule)))


def gates_of(traced: TracedModule) -> Gates:
    """The gates of a network; `PassError` if it has none."""
    for module in traced.graph_module.modules():
        if isinstance(module, Gates):
            return module
    raise PassError(f"{traced.name} has no gates; run the pass gate on it first")


def split(gated: TracedModule) -> Pieces:
    """Split a gated network into its pieces, each with its own copy of its weights.

    Raises
    ------
    PassError
        If the network has no gates.
    """
    gates = gates_of(gated)
    calls = [node for node in gated.nodes if isinstance(_called(gated, node), GatedCell)]
    decisions = next(node for node in gated.nodes if _called(gated, node) is gates)
    (early,) = decisions.all_input_nodes
    entries = [_node(call, 0) for call in calls]
    steps: list[CellPieces | TracedModule] = []
    at = early
    for number, call in enumerate(calls):
        if entries[number] is not at:
            steps.append(_piece(gated, f"{gated.name}.{number}", at, entries[number]))
        at = _end(gated, call, entries)
        steps.append(_cell_pieces(gated, gates, call, at))
    result = gated.output.args[0]
    if not isinstance(result, fx.Node):
        raise PassError(f"{gated.name} returns several values; only networks that return one tensor can be split")
    if result is not at:
        steps.append(_piece(gated, f"{gated.name}.end", at, result))
    (image,) = gated.inputs
    return Pieces(
        gated.name,
        _piece(gated, f"{gated.name}.stem", image, early),
        _gates_piece(gates, early, f"{gated.name}.gates"),
        gates.total,
        tuple(steps),
    )


def _node(call: fx.Node, index: int) -> fx.Node:
    argument: Any = call.args[index]
    return argument


def _called(traced: TracedModule, node: fx.Node) -> nn.Module | None:
    return traced.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _end(gated: TracedModule, call: fx.Node, entries: list[fx.Node]) -> fx.Node:
    """The last of a chain of operations without weights behind a cell, at most the entry of the next."""
    end = call
    while end not in entries and len(end.users) == 1:
        (user,) = end.users
        module = _called(gated, user)
        light = (
            user.op.startswith("call") and user.all_input_nodes == [end] and isinstance(user.meta["spec"], TensorSpec)
        )
        if not light or (module is not None and any(True for _ in module.parameters())):
            break
        end = user
    return end


def _cell_pieces(gated: TracedModule, gates: Gates, call: fx.Node, end: fx.Node) -> CellPieces:
    cell: Any = _called(gated, call)
    channel_groups = None
    if gates.scales and cell.scaled_set is not None:
        groups = cell.group_of(cell.scaled_set).tolist()
        channel_groups = {w: tuple(g for g in groups if g < w) for w in cell.slots.widths}
    variants = {w: _variant(gated, cell, call, end, w, gates.scales) for w in cell.slots.widths}
    return CellPieces(cell.cell.name, cell.slots, variants, gates.scales, channel_groups)


def _variant(
    gated: TracedModule, cell: GatedCell, call: fx.Node, end: fx.Node, width: int, scales: bool
) -> TracedModule | None:
    entry, shortcut = _node(call, 0), _node(call, 1)
    build = _Builder(gated.graph_module)
    value = build.input(entry)
    inside = nodes_between(entry, end, _node(call, -1))
    assert inside is not None
    if width == 0 and shortcut is entry and _is_identity(gated, entry, inside[1:]):
        return None
    body_scale = build.placeholder("scale") if scales and width and cell.slots.layer is not None else None
    channel_scale = build.placeholder("channels") if scales and width and cell.scaled_set is not None else None
    for node in inside:
        if node is not call:
            build.copy(node)
        elif width == 0:
            build.values[node] = build.values[shortcut]
        else:
            made = build.body(cell, value, width, channel_scale)
            if body_scale is not None:
                made = build.graph.call_function(operator.mul, (made, body_scale))
            if cell.slots.layer is not None:
                made = build.graph.call_function(operator.add, (build.values[shortcut], made))
            build.values[node] = made
    shapes = [entry.meta["spec"]]
    rank = len(shapes[0].shape)
    if body_scale is not None:
        shapes.append(TensorSpec((1,) * len(call.meta["spec"].shape), shapes[0].dtype))
    if channel_scale is not None:
        kept = sum(1 for g in cell.group_of(cell.scaled_set or 0).tolist() if g < width)
        shapes.append(TensorSpec((1, kept, *[1] * (rank - 2)), shapes[0].dtype))
    return build.finish(end, f"{gated.name}.{cell.cell.name}/{width}", shapes)


def _is_identity(gated: TracedModule, entry: fx.Node, behind: tuple[fx.Node, ...]) -> bool:
    """Whether all that is left is a ReLU of what a ReLU made."""
    kinds = {plain_name(gated, node) for node in (entry, *behind) if node.op.startswith("call")}
    return not behind or (entry.op.startswith("call") and len(kinds) == 1 and kinds <= {"relu", "relu6"})


def _piece(gated: TracedModule, name: str, start: fx.Node, end: fx.Node) -> TracedModule:
    build = _Builder(gated.graph_module)
    build.input(start)
    inside = nodes_between(start, end)
    assert inside is not None
    for node in inside:
        build.copy(node)
    return build.finish(end, name, [start.meta["spec"]])


class _RawGates(nn.Module):
    """Saliences and scales as they are."""

    def __init__(self, gates: Gates) -> None:
        super().__init__()
        self.gates = copy.deepcopy(gates)

    def forward(self, early: Any) -> Any:
        return self.gates.raw(early)


def _gates_piece(gates: Gates, early: fx.Node, name: str) -> TracedModule:
    import torch

    from netcut_fx.tracing import trace

    spec = early.meta["spec"]
    return trace(_RawGates(gates).eval(), torch.zeros((1, *spec.shape[1:]), dtype=spec.dtype), name=name, via="fx")


class _Builder:
    """A graph of its own, from nodes of others."""

    def __init__(self, source: nn.Module) -> None:
        self.source = source
        self.graph = fx.Graph()
        self.parts: dict[str, Any] = {}
        self.values: dict[fx.Node, fx.Node] = {}

    def placeholder(self, name: str) -> fx.Node:
        return self.graph.placeholder(name)

    def input(self, node: fx.Node) -> fx.Node:
        self.values[node] = self.placeholder("x")
        return self.values[node]

    def copy(self, node: fx.Node) -> None:
        self.values[node] = self._copied(node, self.source, "", self.values, None)

    def body(self, cell: GatedCell, entry: fx.Node, width: int, channel_scale: fx.Node | None) -> fx.Node:
        """Copy the body of `cell` with `width` groups of its channels."""
        dropped = dropped_channels(cell, width)
        factors: list[fx.Node] = []
        values: dict[fx.Node, fx.Node] = {}
        for node in cell.body.graph.nodes:
            if node.op == "placeholder":
                if factors or values:
                    factors.append(node)
                values[node] = entry
            elif node.op == "output":
                return values[node.args[0]]
            elif node.target is keep_channels:
                kept = values[node.args[0]]
                scaled = channel_scale is not None and factors.index(node.args[1]) == cell.scaled_set
                if scaled:
                    kept = self.graph.call_function(operator.mul, (kept, self._fitting(channel_scale, node)))
                values[node] = kept
            else:
                values[node] = self._copied(node, cell.body, "body.", values, dropped.get(node.meta["qualname"]))
        raise AssertionError("a graph without output")

    def finish(self, end: fx.Node, name: str, specs: list[TensorSpec]) -> TracedModule:
        self.graph.output(self.values[end])
        root = nn.Module()
        for path, part in self.parts.items():
            owner, _, attribute = path.rpartition(".")
            holder = root
            for step in owner.split(".") if owner else ():
                if not hasattr(holder, step):
                    holder.add_module(step, nn.Module())
                holder = holder.get_submodule(step)
            setattr(holder, attribute, part)
        module = fx.GraphModule(root, self.graph, "Piece").eval()
        return retrace(module, name, [TensorSpec((1, *s.shape[1:]), s.dtype) for s in specs])

    def _fitting(self, scale: Any, node: fx.Node) -> fx.Node:
        """A linear layer reads ``(N, C)``, a convolution ``(N, C, 1, 1)`` of factors."""
        spec = node.args[0].meta["spec"] if isinstance(node.args[0], fx.Node) else None
        if isinstance(spec, TensorSpec) and len(spec.shape) == 2:
            return self.graph.call_method("flatten", (scale, 1))
        return scale

    def _copied(
        self, node: fx.Node, root: nn.Module, prefix: str, values: dict[fx.Node, fx.Node], dropped: Any
    ) -> fx.Node:
        made = self.graph.node_copy(node, values.__getitem__)
        made.meta.pop("spec", None)
        if node.op in ("call_module", "get_attr"):
            made.target = path = f"{prefix}{node.target}"
            if node.op == "call_module":
                self.parts[path] = narrowed(root.get_submodule(str(node.target)), dropped)
            elif path not in self.parts:
                owner, _, attribute = str(node.target).rpartition(".")
                self.parts[path] = copy.deepcopy(getattr(root.get_submodule(owner), attribute))
        return made
