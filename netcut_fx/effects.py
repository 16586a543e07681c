"""What running a network shows about its nodes: who shares memory, who writes in place, who keeps the batch dimension.

All three are observed, not guessed from names: the graph is run once on tensors without storage (device ``meta``) with
one more example in the batch. Torch itself then says which results are views, its version counters say what was
written, and a first dimension that grew with the batch is the batch dimension. Nodes that look alike are run once, see
`netcut_fx.node_effects`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from netcut_fx.graph import Spec, TensorSpec, TracedModule
from netcut_fx.node_effects import Layout, NodeRunner, Seen, seen_in

#: Identity of a tensor as a window on memory: memory, offset, shape, strides.
Window = tuple[int, int, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Effects:
    """Memory and batch behaviour of each node, by fx name.

    Parameters
    ----------
    storages : dict
        Storages that the node's tensors live in.
    window : dict
        The window of a node that yields one tensor.
    written : dict
        Storages that the node writes although they existed before it; only nodes that do.
    keeps_batch : frozenset of str
        Nodes that yield one tensor whose first dimension is the batch.
    kinds : dict
        Equal numbers for nodes that do the same to operands of the same layout; only nodes that are calls.
    """

    storages: dict[str, tuple[int, ...]]
    window: dict[str, Window]
    written: dict[str, frozenset[int]]
    keeps_batch: frozenset[str]
    kinds: dict[str, int]


def observe(traced: TracedModule) -> Effects:
    """Run `traced` without computing anything and report its `Effects`.

    A node that has the batch size written into it runs with just that; then the batch dimension is taken from the shape
    alone. One that needs values cannot run at all and yields new tensors of the known shapes, unless it is called like
    an in-place operation. A traced network does not change, so what was seen is kept with it.
    """
    kept: dict[str, object] = traced.__dict__
    found = kept.get("_effects")
    if not isinstance(found, Effects):
        kept["_effects"] = found = _MetaRun(traced).effects()
    return found


@dataclass
class _MetaRun:
    traced: TracedModule
    values: dict[fx.Node, Any] = field(default_factory=dict[fx.Node, Any])
    storages: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    window: dict[str, Window] = field(default_factory=dict[str, Window])
    written: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    keeps_batch: set[str] = field(default_factory=set[str])
    kinds: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        self.runner = NodeRunner(self.traced.graph_module)
        specs = self.traced.input_specs
        self.batch = specs[0].shape[0] if specs and specs[0].shape else 0

    def effects(self) -> Effects:
        for node in self.traced.nodes:
            if node.op != "output":
                self.run_node(node)
        return Effects(self.storages, self.window, self.written, frozenset(self.keeps_batch), self.kinds)

    def run_node(self, node: fx.Node) -> None:
        spec: Spec = node.meta["spec"]
        known, value, written = self._compute(node)
        if not known or not _same_structure(value, spec):
            value, written = self._at_example_size(node, spec)
        self.values[node] = value
        self.storages[node.name] = tuple(seen.memory for seen in seen_in(value))
        if written:
            self.written[node.name] = frozenset(written)
        if isinstance(value, Seen):
            layout = value.layout
            self.window[node.name] = (value.memory, layout.offset, layout.shape, layout.stride)
            if isinstance(spec, TensorSpec) and spec.shape and layout.shape == self._grown(spec.shape) != spec.shape:
                self.keeps_batch.add(node.name)

    def _grown(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.batch + 1, *shape[1:]) if shape and shape[0] == self.batch else shape

    def _at_example_size(self, node: fx.Node, spec: Spec) -> tuple[Any, tuple[int, ...]]:
        """Run `node` with the batch size of the example; if it cannot run then either, go by its name."""
        sources = {source: self._resized(self.values[source], source.meta["spec"]) for source in node.all_input_nodes}
        run = self.runner.run(node, sources)
        if run.known and _same_structure(run.value, spec):
            return self._resized(run.value, spec, grow=True), run.written
        operands = [seen for source in node.all_input_nodes for seen in seen_in(self.values[source])]
        if not operands or not _writes_by_name(self.traced.graph_module, node):
            return self._fresh(spec), ()
        same = isinstance(spec, TensorSpec) and operands[0].layout.shape == self._grown(spec.shape)
        return operands[0] if same else self._fresh(spec), (operands[0].memory,)

    def _resized(self, value: Any, spec: Spec, *, grow: bool = False) -> Any:
        """The same memory with the shapes of `spec`, or what those grow to with the batch."""
        if isinstance(value, Seen) and isinstance(spec, TensorSpec):
            shape = self._grown(spec.shape) if grow else spec.shape
            return value if value.layout.shape == shape else Seen(value.memory, Layout.fresh(shape, spec.dtype))
        if isinstance(value, (tuple, list)) and isinstance(spec, tuple):
            parts: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
            return tuple(self._resized(part, s, grow=grow) for part, s in zip(parts, spec, strict=True))
        return value

    def _fresh(self, spec: Spec) -> Any:
        if isinstance(spec, TensorSpec):
            return self.runner.fresh(self._grown(spec.shape), spec.dtype)
        return tuple(map(self._fresh, spec)) if isinstance(spec, tuple) else None

    def _compute(self, node: fx.Node) -> tuple[bool, Any, tuple[int, ...]]:
        """Whether the node can run, what it yields and what it writes."""
        if node.op == "placeholder":
            spec: Spec = node.meta["spec"]
            return True, self._fresh(spec), ()
        if node.op == "get_attr":
            value = _attribute(self.traced.graph_module, str(node.target))
            return True, self.runner.held(value) if isinstance(value, Tensor) else value, ()
        run = self.runner.run(node, self.values)
        self.kinds[node.name] = run.kind
        return run.known, run.value, run.written


def _attribute(root: nn.Module, path: str) -> Any:
    value: Any = root
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _same_structure(value: Any, spec: Spec) -> bool:
    """Whether both are a tensor of the same rank and type, or nested alike."""
    if isinstance(value, Seen):
        return (
            isinstance(spec, TensorSpec)
            and len(value.layout.shape) == len(spec.shape)
            and value.layout.dtype == spec.dtype
        )
    if isinstance(value, dict):
        value = tuple(value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        parts: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
        return isinstance(spec, tuple) and len(parts) == len(spec) and all(map(_same_structure, parts, spec))
    return spec is None


def _writes_by_name(root: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return getattr(root.get_submodule(str(node.target)), "inplace", False) is True
    name = str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", ""))
    return (name.endswith("_") and not name.endswith("__")) or node.kwargs.get("inplace") is True
