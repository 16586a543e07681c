"""Residual regions: what a network can do without for one input, because an addition has another way around it.

Found from the data flow alone. Between two neighbouring separators (nodes that every path from input to output passes)
lie all branches; where the later one is an addition of exactly two of them, either may be left out and the result still
has its form. The shortcut is the one that is the entry itself, or else the one with fewer parameters (a projection, a
strided slice that is padded). The other one is the body.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
from torch import fx

from netcut_fx.cut_graph import CutGraph, cut_graph, parameters_of
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.operation_kinds import plain_name


@dataclass(frozen=True)
class Region:
    """One residual region; all nodes by qualified name, in execution order.

    Parameters
    ----------
    entry : str
        What both branches read.
    body : tuple of str
        The nodes that a skip leaves out; the last of them goes into the addition.
    shortcut : str
        The other operand of the addition: `entry`, or the end of a projection.
    addition : str
        Yields the sum; with the body skipped, the shortcut.
    """

    entry: str
    body: tuple[str, ...]
    shortcut: str
    addition: str


def residual_regions(traced: TracedModule) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """Find the residual regions of a network.

    Returns
    -------
    regions : tuple of Region
        In execution order; they do not overlap.
    reasons : tuple of str
        For every addition of two branches that is none, why.
    """
    graph = cut_graph(traced)
    dependence: nx.DiGraph[int] = nx.DiGraph()
    dependence.add_edges_from((s, p) for p, sources in enumerate(graph.sources) for s in sources)
    found: list[Region] = []
    reasons: list[str] = []
    entries = dict(zip(graph.separators[1:], graph.separators, strict=False))
    for position, node in enumerate(graph.order):
        if not _adds_two(traced, node):
            continue
        name = node.meta["qualname"]
        if position not in entries:
            reasons.append(f"{name} is not on every path from input to output")
            continue
        region = _region(graph, dependence, entries[position], position)
        if isinstance(region, str):
            reasons.append(f"{name} {region}")
        else:
            found.append(region)
    return tuple(found), tuple(reasons)


def raw_operands_agree(graph: CutGraph, positions: range) -> bool:
    """Whether the nodes read exactly what the graph says: no in-place write stands between."""
    return all(
        set(graph.order[p].all_input_nodes) == set(graph.operands[graph.order[p]])
        and all(user in graph.operands for user in graph.order[p].users)
        for p in positions
    )


def nodes_between(entry: fx.Node, end: fx.Node, *also: fx.Node) -> tuple[fx.Node, ...] | None:
    """What computes `end` from `entry` (and `also`), weights and sizes included, in execution order.

    None if something else is needed: another value, or the size of one.
    """
    needed: set[fx.Node] = set()
    stack = [end]
    while stack:
        node = stack.pop()
        if node in needed or node is entry or node in also:
            continue
        if node.op == "placeholder":
            return None
        needed.add(node)
        stack += node.all_input_nodes
    return tuple(node for node in end.graph.nodes if node in needed)


def _adds_two(traced: TracedModule, node: fx.Node) -> bool:
    if node.op not in ("call_function", "call_method") or plain_name(traced, node) not in ("add", "iadd"):
        return False
    return len(node.args) == 2 and not node.kwargs and len(node.all_input_nodes) == 2


def _region(graph: CutGraph, dependence: nx.DiGraph[int], entry: int, addition: int) -> Region | str:
    """The region that ends with `addition`, or why there is none."""
    order, span = graph.order, range(entry + 1, addition)
    sources = graph.sources[addition]
    if len(sources) != 2:
        return "adds no two branches"
    if order[entry].op == "placeholder":
        return "starts at the input of the network"
    if not raw_operands_agree(graph, range(entry + 1, addition + 1)):
        return "is reached by in-place writes"
    specs = [order[p].meta["spec"] for p in (*sources, addition)]
    if not isinstance(specs[0], TensorSpec) or any(spec != specs[0] for spec in specs):
        return "adds branches of different shapes"
    inside = dependence.subgraph(span)
    branches = [_with_ancestors(inside, p) if p in span else frozenset[int]() for p in sources]
    if branches[0] & branches[1]:
        return "adds branches that share operations"
    # Fewer parameters first; an empty branch is the entry itself.
    sizes = [(sum(p.numel() for i in b for p in parameters_of(graph.traced, order[i])), len(b)) for b in branches]
    short = sizes.index(min(sizes))
    body = sorted(branches[1 - short])
    if not sizes[1 - short][0]:
        return "adds a branch without weights"
    if nodes_between(order[entry], order[addition]) is None:
        return "needs more than what its branches read"
    shortcut = order[sources[short]]
    return Region(_name(order[entry]), tuple(_name(order[p]) for p in body), _name(shortcut), _name(order[addition]))


def _with_ancestors(graph: nx.DiGraph[int], position: int) -> frozenset[int]:
    return frozenset({position, *nx.ancestors(graph, position)})


def _name(node: fx.Node) -> str:
    return str(node.meta["qualname"])
