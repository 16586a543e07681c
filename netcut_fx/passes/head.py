"""Pass ``head``: the same small classifier behind any cut, as NetCut does (DOI 10.23919/DATE51398.2021.9474052)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, get_args

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from netcut_fx.errors import PassError
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.passes.base import Pass
from netcut_fx.passes.copying import copy_traced
from netcut_fx.pooling import (
    Pool,
    PoolOption,
    averaged_dimensions,
    can_be_pooled,
    check_pool_option,
    chosen_pool,
    pooled_channels,
)
from netcut_fx.tracing import retrace

#: Marks, in ``node.meta``, the nodes that the pass made.
_MADE_HERE = "made_by_head"

HeadKind = Literal["netcut", "linear", "none"]


@dataclass(frozen=True)
class HeadPass(Pass):
    """Append pooling and a classifier to a network that returns features. It yields logits: softmax is the caller's.

    Each returned tensor is pooled to ``(N, C)`` and several are concatenated: the mean over positions, or the class
    token where the network reads that (see `netcut_fx.pooling`). The weights are those of `head_module` with the same
    arguments, held under ``graph_module.head`` with the same state-dict names.

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
    pool : {"auto", "mean", "class-token"}
        As the network suggests; always the mean; or always the class token, an error where there is none.
    """

    classes: int
    kind: HeadKind = "netcut"
    hidden: tuple[int, int] = (256, 128)
    seed: int = 0
    pool: PoolOption = "auto"
    name: ClassVar[str] = "head"

    def __post_init__(self) -> None:
        _check_options(self.classes, self.kind, self.hidden)
        check_pool_option(self.pool)

    def requires(self, traced: TracedModule) -> None:
        """The network returns floating-point features and has no head of ours yet."""
        _pools(traced, self.pool)
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
            value = _append_pooling(work, _pools(traced, self.pool))
            if self.kind != "none":
                width = pooled_width(traced, self.pool)
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
        width = pooled_width(before, self.pool) if self.kind == "none" else self.classes
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


def pooled_width(traced: TracedModule, pool: PoolOption = "auto") -> int:
    """Number of pooled features of what `traced` returns, all crossing tensors together."""
    kinds = _pools(traced, pool)
    return sum(pooled_channels(node.meta["spec"], kind) for node, kind in zip(_sources(traced), kinds, strict=True))


def _append_pooling(work: TracedModule, kinds: Sequence[Pool]) -> fx.Node:
    graph, sources = work.graph_module.graph, _sources(work)
    pooled: list[fx.Node] = []
    for index, (source, kind) in enumerate(zip(sources, kinds, strict=True), start=1):
        name = "head.pool" if len(sources) == 1 else f"head.pool{index}"
        dimensions = averaged_dimensions(len(source.meta["spec"].shape), kind)
        if kind == "class-token":
            pooled.append(_labelled(graph.call_function(torch.select, (source, 1, 0)), name))
        elif dimensions:
            pooled.append(_labelled(graph.call_function(torch.mean, (source, dimensions)), name))
        else:
            pooled.append(source)
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


def _pools(traced: TracedModule, option: PoolOption) -> list[Pool]:
    """How each returned tensor is pooled."""
    kinds: list[Pool] = []
    for source in _sources(traced):
        spec = source.meta["spec"]
        if not can_be_pooled(spec):
            raise PassError(
                f"cannot put a head on {traced.name}: it returns {spec}, not a floating-point tensor of at least 2 "
                "dimensions; cut it at a frontier that carries features"
            )
        kinds.append(chosen_pool(traced, source, option))
    return kinds


def _check_options(classes: int, kind: str, hidden: tuple[int, ...]) -> None:
    if kind not in get_args(HeadKind):
        raise PassError(f"head kind {kind!r} is unknown; use one of {', '.join(get_args(HeadKind))}")
    if kind != "none" and classes < 2:
        raise PassError(f"head with classes={classes} cannot classify; give at least 2 classes")
    if len(hidden) != 2 or min(hidden) < 1:
        raise PassError(f"head with hidden={hidden} is not possible; give two positive widths such as 256x128")
