"""From fx nodes to the compiler's primitive operations, and how many floating-point operations each node costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from torch import fx

from netcut_fx.graph import TracedModule
from netcut_fx.lowering.aten import record
from netcut_fx.lowering.names import normalise_op_name
from netcut_fx.lowering.step import Step
from netcut_fx.lowering.table import rule_for
from netcut_fx.lowering.tracks import map_nested
from netcut_fx.lowering.values import AtenCall, Pattern, Primitive, Value

__all__ = ["LoweredProgram", "Pattern", "Primitive", "Value", "lower", "node_flops", "normalise_op_name", "primitives"]


@dataclass(frozen=True)
class LoweredProgram:
    """A network as primitive operations.

    Parameters
    ----------
    primitives : tuple of Primitive
        In execution order; what depends on weights alone is not among them.
    outputs : tuple of Value
        What the network returns, in order.
    by_node : mapping
        fx node name -> its primitives.
    node_values : mapping
        fx node name -> the tensors it yields.
    """

    primitives: tuple[Primitive, ...]
    outputs: tuple[Value, ...]
    by_node: Mapping[str, tuple[Primitive, ...]]
    node_values: Mapping[str, tuple[Value, ...]]


#: A traced network does not change, so it is lowered once.
_lowered: WeakKeyDictionary[fx.GraphModule, LoweredProgram] = WeakKeyDictionary()


def lower(traced: TracedModule) -> LoweredProgram:
    """Lower the whole of `traced`, as it is: nothing is folded or simplified first.

    Nothing is computed and no weight is read; 200 nodes take tens of milliseconds.
    """
    program = _lowered.get(traced.graph_module)
    if program is None:
        _lowered[traced.graph_module] = program = _lower(traced)
    return program


def primitives(traced: TracedModule, node: fx.Node) -> tuple[Primitive, ...]:
    """Lower one node; ``()`` for what costs nothing (inputs, dropout, sizes, weights)."""
    return lower(traced).by_node.get(node.name, ())


def node_flops(traced: TracedModule, node: fx.Node) -> int:
    """Count the floating-point operations of `node`; a multiply-add counts as two, moving data as none."""
    return sum(p.flops for p in primitives(traced, node))


def _lower(traced: TracedModule) -> LoweredProgram:
    aten = record(traced)
    lowered: dict[Value, Value] = {}
    found: list[Primitive] = []
    for call in aten.calls:
        if call.outputs:
            part, results = _lower_call(call, lowered)
            lowered.update(zip(call.outputs, results, strict=False))
            found.extend(part)
    outputs = tuple(lowered.get(value, value) for value in aten.outputs)
    alive = _join_padding(_without_dead(found, outputs), outputs)
    by_node: dict[str, list[Primitive]] = {}
    for primitive in alive:
        by_node.setdefault(primitive.node_name, []).append(primitive)
    node_values = {name: tuple(lowered.get(v, v) for v in values) for name, values in aten.node_values.items()}
    return LoweredProgram(tuple(alive), outputs, {name: tuple(part) for name, part in by_node.items()}, node_values)


def _lower_call(call: AtenCall, lowered: Mapping[Value, Value]) -> tuple[list[Primitive], tuple[Value, ...]]:
    """Primitives of one call, and what stands for its outputs (the indices of a max-pool have no counterpart)."""
    arguments: Any = map_nested((call.args, call.kwargs), Value, lambda v: lowered.get(v, v))
    args, kwargs = arguments
    rule, step = rule_for(call.op), Step(call)
    result: Any = NotImplemented if rule is None else rule(step, *args, **kwargs)
    if result is NotImplemented:
        step = Step(call)
        result = _opaque(step, arguments)
    return step.primitives, result if isinstance(result, tuple) else (result,)


def _opaque(step: Step, arguments: Any) -> tuple[Value, ...]:
    """Lower an operation that the table does not know: to a kernel of its own that no model covers."""
    inputs: list[Value] = []
    map_nested(arguments, Value, inputs.append)
    name = "opaque:" + step.call.op.partition(".")[0].lstrip("?")
    specs = [(v.shape, v.dtype) for v in step.call.outputs]
    # At least one operation per element written: a lower bound, since nothing is known.
    return step.emit_many(name, name, Pattern.OPAQUE, inputs, specs, flops=sum(v.numel for v in step.call.outputs))


def _join_padding(found: list[Primitive], outputs: tuple[Value, ...]) -> list[Primitive]:
    """Let 2-d convolutions add the zeros around what only they read, as the backend does."""
    readers: dict[Value, list[Primitive]] = {}
    for primitive in found:
        for value in primitive.inputs:
            readers.setdefault(value, []).append(primitive)
    joined: dict[Primitive, Primitive] = {}
    for padding in found:
        (padded,) = padding.outputs if padding.adds_zeros else (None,)
        reader = readers.get(padded, []) if padded is not None and padded not in outputs else []
        if len(reader) == 1 and reader[0].op == "conv2d" and reader[0].inputs[0] is padded:
            joined[reader[0]] = padding
    gone = set(joined.values())
    return [
        replace(p, inputs=(joined[p].inputs[0], *p.inputs[1:])) if p in joined else p for p in found if p not in gone
    ]


def _without_dead(found: list[Primitive], outputs: tuple[Value, ...]) -> list[Primitive]:
    needed = set(outputs)
    alive: list[Primitive] = []
    for primitive in reversed(found):
        if needed.intersection(primitive.outputs):
            needed.update(primitive.inputs)
            alive.append(primitive)
    return alive[::-1]
