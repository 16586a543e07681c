"""Which nodes of an exported graph yield the same whenever the network runs."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

_PLAIN_NAMESPACES = ("aten", "prim", "prims")


def fixed_nodes(graph: fx.Graph, constants: Collection[fx.Node]) -> set[fx.Node]:
    """Find the calls that depend on no input, no weight and no random number.

    Parameters
    ----------
    graph : torch.fx.Graph
        Of an exported program.
    constants : collection of torch.fx.Node
        Placeholders that stand for constant tensors.

    Returns
    -------
    set of torch.fx.Node
        Calls that can be made once for all. A tensor that another operation writes to is not among them, nor is what
        it is made from: it must be made anew for each run.
    """
    rewritten: set[fx.Node] = set()
    while True:
        fixed = _derived(graph, constants, rewritten)
        found = {made for node in graph.nodes if node not in fixed for made in _written(node) if made in fixed}
        if not found:
            return fixed - set(constants)
        rewritten |= _ancestors(found)


def _derived(graph: fx.Graph, constants: Collection[fx.Node], rewritten: set[fx.Node]) -> set[fx.Node]:
    fixed = set(constants)
    for node in graph.nodes:
        if node not in rewritten and _is_plain(node) and all(source in fixed for source in node.all_input_nodes):
            fixed.add(node)
    return fixed - rewritten


def _is_plain(node: fx.Node) -> bool:
    """Whether a call yields the same for the same arguments."""
    target: Any = node.target
    if target is operator.getitem:
        return True
    if node.op != "call_function" or not isinstance(target, OpOverload):
        return False
    return target.namespace in _PLAIN_NAMESPACES and torch.Tag.nondeterministic_seeded not in target.tags


def _written(node: fx.Node) -> Iterator[fx.Node]:
    """The nodes whose memory a call writes to."""
    if not isinstance(node.target, OpOverload):
        return
    for position, argument in enumerate(node.target._schema.arguments):  # pyright: ignore[reportPrivateUsage]
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            if isinstance(value, fx.Node):
                yield value


def _ancestors(nodes: Collection[fx.Node]) -> set[fx.Node]:
    found, stack = set(nodes), list(nodes)
    while stack:
        fresh = [source for source in stack.pop().all_input_nodes if source not in found]
        found.update(fresh)
        stack += fresh
    return found
