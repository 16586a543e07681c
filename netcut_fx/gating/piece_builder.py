"""Putting a piece of a gated network together, node by node."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from netcut_fx.gating.gated_cell import GatedCell, keep_channels
from netcut_fx.gating.narrowing import dropped_channels, narrowed
from netcut_fx.gating.path_norm import PathNorm
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.tracing import retrace


class PieceBuilder:
    """A graph of its own, from nodes of others; a piece has its own copy of its weights, with the norms of its path."""

    def __init__(self, source: nn.Module, path: int = -1) -> None:
        self.source, self.path = source, path
        self.graph = fx.Graph()
        self.parts: dict[str, Any] = {}
        self.values: dict[fx.Node, fx.Node] = {}

    def placeholder(self, name: str) -> fx.Node:
        """A further input."""
        return self.graph.placeholder(name)

    def input(self, node: fx.Node) -> fx.Node:
        """An input that stands for `node`."""
        self.values[node] = self.placeholder("x")
        return self.values[node]

    def copy(self, node: fx.Node) -> None:
        """Compute `node` as the network does."""
        self.values[node] = self._copied(node, self.source, "", self.values, None)

    def body(self, cell: GatedCell, prefix: str, entry: fx.Node, width: int, channel_scale: fx.Node | None) -> fx.Node:
        """Copy the body of `cell` with `width` groups of its channels; its weights are found behind `prefix`."""
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
                values[node] = self._copied(node, cell.body, prefix, values, dropped.get(node.meta["qualname"]))
        raise AssertionError("a graph without output")

    def finish(self, end: fx.Node, name: str, specs: Sequence[TensorSpec]) -> TracedModule:
        """The piece that returns its node `end`, for one input."""
        self.graph.output(end)
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
                held = root.get_submodule(str(node.target))
                self.parts[path] = narrowed(held.norms[self.path] if isinstance(held, PathNorm) else held, dropped)
            elif path not in self.parts:
                owner, _, attribute = str(node.target).rpartition(".")
                self.parts[path] = copy.deepcopy(getattr(root.get_submodule(owner), attribute))
        return made
