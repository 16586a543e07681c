"""What running a network shows about its nodes: who shares memory, who writes in place, who keeps the batch dimension.

All three are observed, not guessed from names: the graph is run once on tensors without storage (device ``meta``) with
one more example in the batch. Torch itself then says which results are views, its version counters say what was
written, and a first dimension that grew with the batch is the batch dimension.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from netcut_fx.graph import Spec, TensorSpec, TracedModule, spec_of

#: Identity of a tensor as a window on memory: storage, offset, shape, strides.
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
    """

    storages: dict[str, frozenset[int]]
    window: dict[str, Window]
    written: dict[str, frozenset[int]]
    keeps_batch: frozenset[str]


def observe(traced: TracedModule) -> Effects:
    """Run `traced` without computing anything and report its `Effects`.

    A node that cannot run so (it needs values, or has the batch size written into it) is replaced by an empty tensor of
    its known shape; there the batch dimension is taken from the shape alone, and memory from the node's name.
    """
    run = _MetaRun(traced)
    with torch.no_grad():
        for node in traced.nodes:
            if node.op != "output":
                run.run_node(node)
    return Effects(run.storages, run.window, run.written, frozenset(run.keeps_batch))


@dataclass
class _MetaRun:
    traced: TracedModule
    values: dict[fx.Node, Any] = field(default_factory=dict[fx.Node, Any])
    storages: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    window: dict[str, Window] = field(default_factory=dict[str, Window])
    written: dict[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    keeps_batch: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        root = self.traced.graph_module
        self.meta_tensors: dict[int, Tensor] = {id(t): _on_meta(t) for t in (*root.parameters(), *root.buffers())}
        self.meta_modules: dict[str, nn.Module] = {}
        specs = self.traced.input_specs
        self.batch = specs[0].shape[0] if specs and specs[0].shape else 0

    def run_node(self, node: fx.Node) -> None:
        operands = [t for source in node.all_input_nodes for t in _tensors(self.values[source])]
        versions = [t._version for t in operands]
        spec: Spec = node.meta["spec"]
        known = True
        try:
            value = self._compute(node)
            known = _same_structure(spec_of(value), spec)
        except Exception:  # whatever an operation raises on tensors without storage, its known shape stands in
            known, value = False, None
        if not known:
            value = self._stand_in(node, spec)
        written = {_storage(t) for t, before in zip(operands, versions, strict=True) if t._version != before}
        if not known and _writes_by_name(self.traced.graph_module, node) and operands:
            written.add(_storage(operands[0]))
        self.values[node] = value
        self.storages[node.name] = frozenset(_storage(t) for t in _tensors(value))
        if written:
            self.written[node.name] = frozenset(written)
        if isinstance(value, Tensor):
            self.window[node.name] = (_storage(value), int(value.storage_offset()), tuple(value.shape), value.stride())
            if isinstance(spec, TensorSpec) and self._grew(spec, tuple(value.shape)):
                self.keeps_batch.add(node.name)

    def _grew(self, spec: TensorSpec, observed: tuple[int, ...]) -> bool:
        return bool(spec.shape) and observed == self._grown(spec.shape) != spec.shape

    def _grown(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.batch + 1, *shape[1:]) if shape and shape[0] == self.batch else shape

    def _stand_in(self, node: fx.Node, spec: Spec) -> Any:
        if isinstance(spec, TensorSpec):
            if _writes_by_name(self.traced.graph_module, node):
                first = next((self.values[n] for n in node.all_input_nodes), None)
                if isinstance(first, Tensor) and tuple(first.shape) == self._grown(spec.shape):
                    return first
            return torch.empty(self._grown(spec.shape), dtype=spec.dtype, device="meta")
        return tuple(self._stand_in(node, part) for part in spec) if isinstance(spec, tuple) else None

    def _compute(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            spec: Spec = node.meta["spec"]
            if not isinstance(spec, TensorSpec):
                return None
            return torch.empty(self._grown(spec.shape), dtype=spec.dtype, device="meta")
        if node.op == "get_attr":
            value = _attribute(self.traced.graph_module, str(node.target))
            return self._meta_of(value) if isinstance(value, Tensor) else value
        args = fx.map_arg(node.args, self.values.__getitem__)
        kwargs = fx.map_arg(node.kwargs, self.values.__getitem__)
        if node.op == "call_module":
            return self._meta_module(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            receiver, *rest = args
            return getattr(receiver, str(node.target))(*rest, **kwargs)
        function: Callable[..., Any] = node.target  # pyright: ignore[reportAssignmentType]
        return function(*args, **kwargs)

    def _meta_of(self, tensor: Tensor) -> Tensor:
        return self.meta_tensors.setdefault(id(tensor), _on_meta(tensor))

    def _meta_module(self, path: str) -> nn.Module:
        if path not in self.meta_modules:
            # Copied with its weights already replaced, so that no weight is copied.
            module = self.traced.graph_module.get_submodule(path)
            self.meta_modules[path] = copy.deepcopy(module, dict(self.meta_tensors))
        return self.meta_modules[path]


def _on_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def _attribute(root: nn.Module, path: str) -> Any:
    value: Any = root
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]  # the only identity that meta storages have


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)


def _same_structure(one: Spec, other: Spec) -> bool:
    """Whether both are a tensor of the same rank and type, or nested alike."""
    if isinstance(one, TensorSpec) and isinstance(other, TensorSpec):
        return len(one.shape) == len(other.shape) and one.dtype == other.dtype
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same_structure, one, other))
    return one is None and other is None


def _writes_by_name(root: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return getattr(root.get_submodule(str(node.target)), "inplace", False) is True
    name = str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", ""))
    return (name.endswith("_") and not name.endswith("__")) or node.kwargs.get("inplace") is True
