"""Pass ``head``: the same small classifier behind any cut, as NetCut does (DOI 10.23919/DATE51398.2021.9474052)."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from netcut_fx.errors import PassError
from netcut_fx.graph import Spec, TensorSpec, TracedModule
from netcut_fx.passes.base import Pass
from netcut_fx.passes.copying import copy_traced
from netcut_fx.tracing import retrace

#: Marks, in ``node.meta``, the nodes that the pass made.
_MADE_HERE = "made_by_head"

HeadKind = Literal["netcut", "linear", "none"]


@dataclass(frozen=True)
class HeadPass(Pass):
    """Append pooling and a classifier to a network that returns features. It yields logits: softmax is the caller's.

    Each returned tensor is pooled over its positions (4-d ``(N, C, H, W)`` over H and W, 5-d over its last three,
    3-d tokens ``(N, T, C)`` over T, 2-d as it is) and several are concatenated. The weights are those of
    `head_module` with the same arguments, held under ``graph_module.head`` with the same state-dict names.

    Parameters
    ----------
    classes : int
        How many; at least 2.
    kind : {"netcut", "linear", "none"}
        Two hidden layers with ReLU and a last one; one layer; or pooled features only (`classes` is then not used).
    hidden : (int, int)
        Widths of the hidden layers of ``netcut``.
    seed : int
        Of the initial weights.
    """

    classes: int
    kind: HeadKind = "netcut"
    hidden: tuple[int, int] = (256, 128)
    seed: int = 0
    name: ClassVar[str] = "head"

    def __post_init__(self) -> None:
        _check_options(self.classes, self.kind, self.hidden)

    def requires(self, traced: TracedModule) -> None:
        """The network returns floating-point features and has no head of ours yet."""
        for source in _sources(traced):
            _pooled_dimensions(traced, source.meta["spec"])
        mine = next((node for node in traced.nodes if node.meta.get(_MADE_HERE)), None)
        if mine is not None:
            raise PassError(
                f"{traced.name} already has a head, at {mine.meta['qualname']}; cut in front of it to add another"
            )

    def call(self, traced: TracedModule) -> TracedModule:
        """Pool, concatenate, classify."""
        work = copy_traced(traced)
        graph_module, graph = work.graph_module, work.graph_module.graph
        output = work.output
        _make_room(graph_module)
        with graph.inserting_before(output):
            value = _append_pooling(work)
            if self.kind != "none":
                width = pooled_width(traced)
                device = next((t.device for t in graph_module.parameters()), torch.device("cpu"))
                layers = head_module(width, self.classes, self.kind, self.hidden, self.seed, device=device)
                for name, layer in layers.named_children():
                    graph_module.add_submodule(f"head.{name}", layer)
                    value = _labelled(graph.call_module(f"head.{name}", (value,)), f"head.{name}")
                graph_module.get_submodule("head").eval()
        output.args = (value,)
        return retrace(graph_module, traced.name, traced.input_specs)

    def ensures(self, before: TracedModule, after: TracedModule) -> None:
        """One row of logits (or features) for each image."""
        batch = before.input_specs[0].shape[0]
        width = pooled_width(before) if self.kind == "none" else self.classes
        spec = after.output.meta["spec"]
        if not isinstance(spec, TensorSpec) or spec.shape != (batch, width):
            raise PassError(
                f"head on {after.name} yields {spec} where a tensor of shape ({batch}, {width}) was promised"
            )


def head_module(
    in_features: int,
    classes: int,
    kind: HeadKind = "netcut",
    hidden: tuple[int, int] = (256, 128),
    seed: int = 0,
    *,
    device: torch.device | str = "cpu",
) -> nn.Sequential:
    """The trainable part of the head alone, on pooled features ``(N, in_features)``; returns logits ``(N, classes)``.

    Train it on cached features, then put it in place with
    ``with_head.graph_module.head.load_state_dict(module.state_dict())``. The global random state is left alone.

    Raises
    ------
    PassError
        For fewer than two classes, an unknown kind or widths below one.
    """
    _check_options(classes, kind, hidden)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if kind == "none":
        return nn.Sequential(layers)
    generator = torch.Generator().manual_seed(seed)
    widths = [in_features, *(hidden if kind == "netcut" else ()), classes]
    for index, (before, after) in enumerate(pairwise(widths), start=1):
        layers[f"fc{index}"] = _linear(before, after, generator, device)
        if index < len(widths) - 1:
            layers[f"relu{index}"] = nn.ReLU()
    return nn.Sequential(layers)


def pooled_width(traced: TracedModule) -> int:
    """Number of pooled features of what `traced` returns, all crossing tensors together."""
    width = 0
    for source in _sources(traced):
        spec: TensorSpec = source.meta["spec"]
        dimensions = (0, *_pooled_dimensions(traced, spec))
        width += math.prod(n for dimension, n in enumerate(spec.shape) if dimension not in dimensions)
    return width


def pool(value: Tensor) -> Tensor:
    """What the head does to one crossing tensor: mean over its positions, ``(N, ...)`` to ``(N, C)``."""
    dimensions = POOLED_DIMENSIONS[value.dim()]
    return torch.mean(value, dimensions) if dimensions else value


#: Over which dimensions a tensor of each rank is averaged.
POOLED_DIMENSIONS: dict[int, tuple[int, ...]] = {2: (), 3: (1,), 4: (2, 3), 5: (2, 3, 4)}


def _append_pooling(work: TracedModule) -> fx.Node:
    graph, sources = work.graph_module.graph, _sources(work)
    pooled: list[fx.Node] = []
    for index, source in enumerate(sources, start=1):
        dimensions = _pooled_dimensions(work, source.meta["spec"])
        if not dimensions:
            pooled.append(source)
            continue
        name = "head.pool" if len(sources) == 1 else f"head.pool{index}"
        pooled.append(_labelled(graph.call_function(torch.mean, (source, dimensions)), name))
    if len(pooled) == 1:
        return pooled[0]
    return _labelled(graph.call_function(torch.cat, (pooled, 1)), "head.cat")


def _labelled(node: fx.Node, name: str) -> fx.Node:
    """Name a new node; a kept part of a module that was called head may have taken the name."""
    taken = {other.meta.get("qualname") for other in node.graph.nodes}
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}#{count}"
    node.meta.update(qualname=unique, module_path="head", **{_MADE_HERE: True})
    return node


def _make_room(graph_module: fx.GraphModule) -> None:
    """A kept module that is called head moves to another name, but its nodes keep theirs."""
    if not hasattr(graph_module, "head"):
        return
    away = "trunk_head"
    while hasattr(graph_module, away):
        away += "_"
    graph_module.add_module(away, graph_module.get_submodule("head"))
    del graph_module.head
    for node in graph_module.graph.nodes:
        first, dot, rest = str(node.target).partition(".")
        if node.op in ("call_module", "get_attr") and first == "head":
            node.target = f"{away}{dot}{rest}"


def _linear(before: int, after: int, generator: torch.Generator, device: torch.device | str) -> nn.Linear:
    layer = nn.Linear(before, after, device="meta").to_empty(device=device)
    if torch.device(device).type != "meta":
        # As nn.Linear.reset_parameters, but drawn on the CPU from our own generator: the same on every device.
        bound = 1 / math.sqrt(before)
        with torch.no_grad():
            layer.weight.copy_(torch.empty(after, before).uniform_(-bound, bound, generator=generator))
            layer.bias.copy_(torch.empty(after).uniform_(-bound, bound, generator=generator))
    return layer


def _sources(traced: TracedModule) -> list[fx.Node]:
    """The nodes that the network returns, in order."""
    found: list[fx.Node] = []

    def note(node: fx.Node) -> fx.Node:
        found.append(node)
        return node

    map_arg(traced.output.args[0], note)
    return found


def _pooled_dimensions(traced: TracedModule, spec: Spec) -> tuple[int, ...]:
    if not isinstance(spec, TensorSpec) or not spec.dtype.is_floating_point or len(spec.shape) not in POOLED_DIMENSIONS:
        raise PassError(
            f"cannot put a head on {traced.name}: it returns {spec}, not a floating-point tensor of 2 to 5 dimensions; "
            "cut it at a frontier that carries features"
        )
    return POOLED_DIMENSIONS[len(spec.shape)]


def _check_options(classes: int, kind: str, hidden: tuple[int, ...]) -> None:
    if kind not in get_args(HeadKind):
        raise PassError(f"head kind {kind!r} is unknown; use one of {', '.join(get_args(HeadKind))}")
    if kind != "none" and classes < 2:
        raise PassError(f"head with classes={classes} cannot classify; give at least 2 classes")
    if len(hidden) != 2 or min(hidden) < 1:
        raise PassError(f"head with hidden={hidden} is not possible; give two positive widths such as 256x128")
