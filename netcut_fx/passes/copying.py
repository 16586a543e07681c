"""Copies of a traced network: with its own weights, or without any."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from netcut_fx.graph import TracedModule


def copy_traced(traced: TracedModule, *, without: Collection[str] = (), result: Any = None) -> TracedModule:
    """Copy `traced`; the copy shares no storage with it.

    Node names, specs and all other meta survive; weights that no remaining node uses are not copied.

    Parameters
    ----------
    traced : TracedModule
        What to copy; it stays as it is.
    without : collection of str, optional
        fx names of nodes to leave out; none of the remaining nodes may use them.
    result : argument of the output node, optional
        Nodes of `traced` (nested as the output wants them) to return in place of what it returns.
    """
    return _copy(traced, {}, without, result)


def weightless(traced: TracedModule) -> TracedModule:
    """Copy `traced` without its weights: parameters and buffers have shapes but no data (the meta device).

    No weight is ever copied, so estimating hundreds of cuts of a large network stays cheap.
    """
    memo: dict[int, Any] = {}
    for tensor in tensors(traced.graph_module):
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = empty
    return _copy(traced, memo, (), None)


def tensors(module: nn.Module) -> Iterator[Tensor]:
    """All parameters and buffers, and tensors that a module holds as plain attributes; shared ones more than once."""
    for part in module.modules():
        for held in (vars(part), vars(part)["_parameters"], vars(part)["_buffers"]):
            yield from (value for value in held.values() if isinstance(value, Tensor))


def _copy(traced: TracedModule, memo: dict[int, Any], without: Collection[str], result: Any) -> TracedModule:
    source = traced.graph_module
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    output: fx.Node | None = None
    for node in source.graph.nodes:
        if node.op == "output":
            output = node
        elif node.name not in without:
            values[node] = graph.node_copy(node, values.__getitem__)
    if output is not None:
        returned = output.args[0] if result is None else result
        ending = graph.output(map_arg(returned, values.__getitem__))
        ending.meta = copy.copy(output.meta)
    graph_module = fx.GraphModule(source, graph, type(source).__name__)
    # GraphModule refers to the leaves of its source: one deep copy of all of them keeps tied weights tied.
    own: dict[str, Any] = copy.deepcopy(
        {key: graph_module.__dict__[key] for key in ("_modules", "_parameters", "_buffers")}, memo
    )
    graph_module.__dict__.update(own)
    graph_module.meta.update(source.meta)
    return TracedModule(graph_module, traced.name)
