"""The kernels the compiler will run for a network: primitive operations, fused by the compiler's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import networkx as nx
import torch
from torch import fx

from cost_models.kernel import Kernel
from netcut_fx.fusion import fuse
from netcut_fx.graph import TracedModule
from netcut_fx.ops import LoweredProgram, Pattern, Primitive, Value, lower
from netcut_fx.passes import prepare_pipeline, weightless
from netcut_fx.passes.rewriting import origin

_LIGHT = ("elementwise", "data_movement")


def kernels(traced: TracedModule) -> tuple[Kernel, ...]:
    """List the fused kernels of `traced`, once it is prepared for the compiler, in execution order.

    Parameters
    ----------
    traced : TracedModule
        Any traced network, with or without weights (device ``meta``); nothing is computed.

    Returns
    -------
    tuple of Kernel
        Every operation is in exactly one of them, but for what costs nothing when the network runs: computation on
        weights alone, and reshapes that become views. One that the table of operations does not know is a kernel of its
        own, of kind ``"opaque:<operation>"``.
    """
    return kernels_of_prepared(_prepared(traced))


def kernels_of_prepared(prepared: TracedModule) -> tuple[Kernel, ...]:
    """List the kernels of a network that went through `netcut_fx.passes.prepare_pipeline` already."""
    return tuple(group.kernel(prepared.by_name) for group in _groups(lower(prepared)))


def kernel_ends(traced: TracedModule) -> frozenset[str]:
    """Find where fused kernels end.

    Parameters
    ----------
    traced : TracedModule
        The network as it was traced, not prepared.

    Returns
    -------
    frozenset of str
        fx names of nodes of `traced` whose result some kernel writes to memory: cutting there splits no kernel. Of
        several nodes that yield the same elements (a convolution's result and its flattened view) the first.
    """
    prepared = _prepared(traced)
    program = lower(prepared)
    producer = {value: primitive for primitive in program.primitives for value in primitive.outputs}

    def source(value: Value) -> Value:
        while value in producer and producer[value].is_view:
            value = producer[value].inputs[0]
        return value

    first: dict[Value, fx.Node] = {}
    for node in prepared.nodes:
        values = program.node_values.get(node.name, ())
        if len(values) == 1 and node.op not in ("placeholder", "get_attr"):
            first.setdefault(source(values[0]), node)
    ends: set[str] = set()
    for group in _groups(program):
        for value in group.outputs:
            node = first.get(source(value))
            if node is not None and origin(node)[-1] in traced.by_qualname:
                ends.add(traced.by_qualname[origin(node)[-1]].name)
    return frozenset(ends)


#: A traced network does not change, so it is prepared once.
_prepared_of: WeakKeyDictionary[fx.GraphModule, TracedModule] = WeakKeyDictionary()


def _prepared(traced: TracedModule) -> TracedModule:
    prepared = _prepared_of.get(traced.graph_module)
    if prepared is None:
        _prepared_of[traced.graph_module] = prepared = prepare_pipeline()(weightless(traced))
    return prepared


@dataclass(frozen=True)
class _Group:
    """Primitives that run as one kernel, and the tensors that go in and out."""

    primitives: tuple[Primitive, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    def kernel(self, nodes: Mapping[str, fx.Node]) -> Kernel:
        names = dict.fromkeys(q for p in self.primitives for q in origin(nodes[p.node_name]))
        kinds = [p.kind for p in self.primitives]
        heavy = [kind for kind in kinds if kind not in _LIGHT]
        return Kernel(
            kind=heavy[0] if heavy else min(kinds, key=_LIGHT.index),
            ops=tuple(p.op for p in self.primitives),
            input_shapes=tuple(v.shape for v in self.inputs),
            output_shapes=tuple(v.shape for v in self.outputs),
            dtype=self.outputs[0].dtype,
            flops=sum(p.flops for p in self.primitives),
            bytes=sum(v.numel * _itemsize(v.dtype) for v in (*self.inputs, *self.outputs)),
            origin=tuple(names),
            detail=next((p.detail for p in self.primitives if p.detail), ""),
        )


def _groups(program: LoweredProgram) -> list[_Group]:
    graph = _fusion_graph(program)
    needed: dict[Value, set[object]] = {}
    for primitive in program.primitives:
        for value in primitive.inputs:
            needed.setdefault(value, set()).add(primitive)
    returned = set(program.outputs)
    only_output = program.outputs[0] if len(program.outputs) == 1 else None
    found: list[_Group] = []
    for members in fuse(graph):
        inside = tuple(m for m in members if isinstance(m, Primitive))
        if not inside:
            continue
        made = [v for p in inside for v in p.outputs]
        if len(inside) == 1 and inside[0].is_view and made[0] is not only_output:
            continue
        own = set(made)
        inputs = [v for p in inside for v in p.inputs if v not in own]
        outputs = made
        if len(members) > 1:
            # A fused function has each argument once and returns what others need.
            inputs = list(dict.fromkeys(inputs))
            outputs = [v for v in made if v in returned or needed.get(v, set()).difference(inside)]
        found.append(_Group(inside, tuple(inputs), tuple(outputs)))
    return found


def _fusion_graph(program: LoweredProgram) -> nx.DiGraph[Any]:
    """Primitives and their uses. Picking one result of several is an operation of its own to the compiler."""
    graph: nx.DiGraph[Any] = nx.DiGraph()
    producer: dict[Value, object] = {}
    used = {v for p in program.primitives for v in p.inputs} | set(program.outputs)
    single = len(program.outputs) == 1
    for primitive in program.primitives:
        graph.add_node(primitive, pattern=primitive.pattern, escapes=False)
        for value in primitive.inputs:
            if value in producer:
                graph.add_edge(producer[value], primitive)
        if len(primitive.outputs) == 1:
            producer[primitive.outputs[0]] = primitive
            continue
        for value in primitive.outputs:
            if value in used:
                graph.add_node(value, pattern=Pattern.INJECTIVE, escapes=False)
                graph.add_edge(primitive, value)
                producer[value] = value
    if not single:
        # Several results are returned as a tuple, which nothing is fused into.
        graph.add_node(program.outputs, pattern=Pattern.OPAQUE, escapes=True)
    for value in program.outputs:
        if value in producer:
            if single:
                graph.nodes[producer[value]]["escapes"] = True
            else:
                graph.add_edge(producer[value], program.outputs)
    return graph


def _itemsize(dtype: str) -> int:
    return getattr(torch, dtype).itemsize
