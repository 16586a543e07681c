"""Floating-point operations of every value of a network, counted once for all nodes that look alike."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from netcut_fx.cut_graph import CutGraph
from netcut_fx.graph import TracedModule


def flops_by_position(graph: CutGraph) -> list[int]:
    """For each position of `graph`, the floating-point operations of its node; a multiply-add counts as two.

    Nodes that do the same to operands of the same specs cost the same, so one of each kind is lowered. What does not
    count in `graph` costs nothing: it is computed before the network runs, or not at all.
    """
    kinds = [_kind(graph, node) for node in graph.order]
    samples: dict[object, fx.Node] = {}
    for kind, node in zip(kinds, graph.order, strict=True):
        if node.op != "placeholder":
            samples.setdefault(kind, node)
    flops = _flops(graph, samples.values())
    return [
        0 if node.op == "placeholder" else flops[samples[kind]] for kind, node in zip(kinds, graph.order, strict=True)
    ]


def _kind(graph: CutGraph, node: fx.Node) -> object:
    operands = tuple((operand.name in graph.position, operand.meta["spec"]) for operand in node.all_input_nodes)
    return graph.effects.kinds.get(node.name), operands, node.meta["spec"]


def _flops(graph: CutGraph, samples: Iterable[fx.Node]) -> dict[fx.Node, int]:
    """Lower a network of nothing but the `samples`: placeholders yield what they read of other positions."""
    from netcut_fx.ops import node_flops

    wanted = set(samples)
    beneath: set[fx.Node] = set()
    for node in wanted:
        graph.uncounted(graph.position[node.name], beneath)
    part = fx.Graph()
    stand_ins: dict[fx.Node, fx.Node] = {}

    def operand(node: fx.Node) -> fx.Node:
        if node not in stand_ins:
            stand_ins[node] = part.placeholder(node.name)
            stand_ins[node].meta["spec"] = node.meta["spec"]
        return stand_ins[node]

    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.traced.nodes:
        if node in beneath:
            stand_ins[node] = part.node_copy(node, operand)
        elif node in wanted:
            copies[node] = part.node_copy(node, operand)
    part.output(tuple(copies.values()))
    network = TracedModule(fx.GraphModule(graph.traced.graph_module, part), graph.traced.name)
    return {node: node_flops(network, copy) for node, copy in copies.items()}
