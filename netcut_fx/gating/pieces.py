"""A gated network as pieces that any backend compiles: one that decides, and one for each path.

The entry computes the early features and the gate networks' numbers. A path computes the rest, without what it skips: a
static network, whose kernels are fused across cells as those of any other. Early features go from one to the other
channels last, as compiled convolutions hold them.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from netcut_fx.errors import PassError
from netcut_fx.gating.gate_network import Gates
from netcut_fx.gating.gated_cell import GatedCell
from netcut_fx.gating.piece_builder import PieceBuilder
from netcut_fx.gating.program import Scale
from netcut_fx.gating.regions import nodes_between
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.operation_kinds import plain_name
from netcut_fx.tracing import trace

#: Applied twice, they do what they do once.
_IDEMPOTENT = frozenset({"relu", "relu6"})


def gates_of(traced: TracedModule) -> Gates:
    """The gates of a network; `PassError` if it has none."""
    for module in traced.graph_module.modules():
        if isinstance(module, Gates):
            return module
    raise PassError(f"{traced.name} has no gates; run the pass gate on it first")


def cells_of(traced: TracedModule) -> tuple[GatedCell, ...]:
    """The cells of a network, in execution order."""
    called = (_called(traced, node) for node in traced.nodes)
    return tuple(module for module in called if isinstance(module, GatedCell))


def entry_piece(gated: TracedModule, columns: Sequence[int]) -> TracedModule:
    """From the image to the early features and the gate networks' numbers.

    Parameters
    ----------
    gated : TracedModule
        With gates.
    columns : sequence of int
        Which of the numbers (see `Gates.raw`), in which order.

    Returns
    -------
    TracedModule
        Returns ``(numbers, early)``; of images, `early` has its channels last.
    """
    gates, early = gates_of(gated), _early(gated)
    (image,) = gated.inputs
    build = PieceBuilder(gated.graph_module)
    build.input(image)
    for node in _inside(image, early):
        build.copy(node)
    stem = build.finish(build.values[early], f"{gated.name}.stem", [image.meta["spec"]])
    spec = stem.input_specs[0]
    example = torch.zeros(spec.shape, dtype=spec.dtype)
    return trace(_Entry(stem.graph_module, gates, columns).eval(), example, name=f"{gated.name}.entry", via="fx")


def path_piece(gated: TracedModule, widths: Sequence[int]) -> TracedModule:
    """From the early features, and the scales of `path_scales`, to what the network returns.

    Parameters
    ----------
    gated : TracedModule
        With gates.
    widths : sequence of int
        Of each cell.

    Raises
    ------
    PassError
        If the network returns several values.
    """
    gates, early = gates_of(gated), _early(gated)
    scaled, paths = gates.scales, gates.paths
    decisions = next(node for node in gated.nodes if isinstance(_called(gated, node), Gates))
    result = gated.output.args[0]
    if not isinstance(result, fx.Node):
        raise PassError(f"{gated.name} returns several values; only networks that return one tensor can be gated")
    build = PieceBuilder(gated.graph_module, -1 if paths is None else paths.number(widths))
    specs = [_border(early.meta["spec"])]
    given = build.placeholder("early")
    inside = _inside(early, result, decisions)
    cells = [(node, cell) for node in inside if isinstance(cell := _called(gated, node), GatedCell)]
    inputs: dict[fx.Node, list[fx.Node | None]] = {}
    for (node, cell), width in zip(cells, widths, strict=True):  # inputs come before everything else in a graph
        inputs[node] = []
        for spec in _scale_specs(node, cell, width, scaled=scaled):
            inputs[node].append(None if spec is None else build.placeholder(f"scale_{len(specs)}"))
            specs += [] if spec is None else [spec]
    by_node = {n: (cell, w, f"cell{i}.") for i, ((n, cell), w) in enumerate(zip(cells, widths, strict=True))}
    build.values[early] = build.graph.call_method("permute", (given, 0, 3, 1, 2)) if _is_image(early) else given
    kinds = {build.values[early]: plain_name(gated, early) if early.op.startswith("call") else ""}
    for node in inside:
        if node in by_node:
            cell, width, prefix = by_node[node]
            build.values[node] = _cell(build, node, cell, width, prefix, *inputs[node])
            continue
        kind = plain_name(gated, node) if node.op.startswith("call") else ""
        read = [build.values[source] for source in node.all_input_nodes]
        if kind in _IDEMPOTENT and len(read) == 1 and kinds.get(read[0]) == kind:
            build.values[node] = read[0]
            continue
        build.copy(node)
        kinds[build.values[node]] = kind
    return build.finish(build.values[result], f"{gated.name}/{''.join(map(str, widths))}", specs)


def path_scales(gated: TracedModule, widths: Sequence[int]) -> tuple[Scale, ...]:
    """What a path takes besides the early features, in order."""
    gates = gates_of(gated)
    found: list[Scale] = []
    nodes = [node for node in gated.nodes if isinstance(_called(gated, node), GatedCell)]
    for node, cell, width in zip(nodes, cells_of(gated), widths, strict=True):
        body, channels = _scale_specs(node, cell, width, scaled=gates.scales)
        if body is not None and cell.slots.layer is not None:
            found.append(Scale((gates.total + cell.slots.layer,), body.shape))
        if channels is not None and cell.slots.first_group is not None:
            first = gates.total + cell.slots.first_group
            groups = cell.group_of(cell.scaled_set or 0).tolist()
            found.append(Scale(tuple(first + g for g in groups if g < width), channels.shape))
    return tuple(found)


class _Entry(nn.Module):
    def __init__(self, stem: nn.Module, gates: Gates, columns: Sequence[int]) -> None:
        super().__init__()
        self.stem, self.gates = stem, copy.deepcopy(gates)
        self.all = list(columns) == list(range(gates.total * (1 + gates.scales)))
        self.register_buffer("columns", torch.tensor(list(columns)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        early = self.stem(image)
        numbers = self.gates.raw(early)
        if not self.all:
            numbers = numbers.index_select(1, self.get_buffer("columns"))
        return numbers, early.permute(0, 2, 3, 1) if self.gates.image else early


def _cell(
    build: PieceBuilder,
    call: fx.Node,
    cell: GatedCell,
    width: int,
    prefix: str,
    body_scale: fx.Node | None,
    channel_scale: fx.Node | None,
) -> fx.Node:
    skippable = cell.slots.layer is not None
    if not width:
        return build.values[_node(call, 1)]
    made = build.body(cell, prefix, build.values[_node(call, 0)], width, channel_scale)
    if body_scale is not None:
        made = build.graph.call_function(operator.mul, (made, body_scale))
    return build.graph.call_function(operator.add, (build.values[_node(call, 1)], made)) if skippable else made


def _scale_specs(
    call: fx.Node, cell: GatedCell, width: int, *, scaled: bool
) -> tuple[TensorSpec | None, TensorSpec | None]:
    """Of the scale of the body, and of that of the kept channels."""
    spec: TensorSpec = call.meta["spec"]
    body = channels = None
    if scaled and width and cell.slots.layer is not None:
        body = TensorSpec((1,) * len(spec.shape), spec.dtype)
    if scaled and width and cell.scaled_set is not None:
        kept = sum(1 for g in cell.group_of(cell.scaled_set).tolist() if g < width)
        rank = len(_node(call, 0).meta["spec"].shape)  # what comes out may be pooled
        channels = TensorSpec((1, kept, *[1] * (rank - 2)), spec.dtype)
    return body, channels


def _early(gated: TracedModule) -> fx.Node:
    decisions = next((node for node in gated.nodes if isinstance(_called(gated, node), Gates)), None)
    if decisions is None:
        gates_of(gated)
    assert decisions is not None
    (early,) = decisions.all_input_nodes
    return early


def _is_image(node: fx.Node) -> bool:
    return len(node.meta["spec"].shape) == 4


def _border(spec: TensorSpec) -> TensorSpec:
    if len(spec.shape) != 4:
        return spec
    n, c, h, w = spec.shape
    return TensorSpec((n, h, w, c), spec.dtype)


def _inside(start: fx.Node, end: fx.Node, *also: fx.Node) -> tuple[fx.Node, ...]:
    inside = nodes_between(start, end, *also)
    assert inside is not None  # cells lie between separators
    return inside


def _node(call: fx.Node, index: int) -> fx.Node:
    argument: Any = call.args[index]
    return argument


def _called(traced: TracedModule, node: fx.Node) -> nn.Module | None:
    return traced.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
