"""What an operation does to memory, observed once for all nodes that look alike.

A node is run on tensors without storage (device ``meta``). What it then does to memory depends only on its operation,
its options, and on the layouts of its operands and which of them share memory. Networks repeat their operations, so
what was seen is kept under exactly this, and a network of 100,000 nodes needs a few dozen runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree  # the only mapping that knows every nested type that torch returns

from netcut_fx.lowering.options import hashable, module_options, without_weights


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies in its memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    memory_bytes: int
    is_parameter: bool = False

    @classmethod
    def of(cls, tensor: Tensor) -> Layout:
        """Layout of `tensor`."""
        return cls(
            tuple(tensor.shape),
            tensor.stride(),
            int(tensor.storage_offset()),
            tensor.dtype,
            tensor.untyped_storage().nbytes(),
            isinstance(tensor, nn.Parameter),
        )

    @classmethod
    def fresh(cls, shape: tuple[int, ...], dtype: torch.dtype) -> Layout:
        """Layout of a new tensor."""
        return cls.of(torch.empty(shape, dtype=dtype, device="meta"))

    def tensor(self, memory: torch.UntypedStorage) -> Tensor:
        """Make the tensor in `memory`."""
        tensor = torch.empty(0, dtype=self.dtype, device="meta").set_(memory, self.offset, self.shape, self.stride)
        return nn.Parameter(tensor, requires_grad=False) if self.is_parameter else tensor


@dataclass(frozen=True, slots=True)
class Seen:
    """A tensor: which memory it lives in, and how."""

    memory: int
    layout: Layout


@dataclass(frozen=True)
class _Behaviour:
    """What a node does. Memories are numbered: those of the operands, then of the weights, then fresh ones."""

    leaves: tuple[Any, ...]
    structure: pytree.TreeSpec | None  # None for a single leaf
    written: tuple[int, ...]
    weights: tuple[str, ...]
    memories: int


class Run(NamedTuple):
    """One run of one node.

    ``kind`` is equal for nodes that do the same to operands of the same layout. ``known`` is False where the node
    cannot run without values. ``written`` are the memories of its operands that it writes.
    """

    kind: int
    known: bool = False
    value: Any = None
    written: tuple[int, ...] = ()


@dataclass
class NodeRunner:
    """Runs nodes of one network, each distinct one once."""

    root: nn.Module
    memories: int = 0
    kinds: int = 0
    _known: dict[Any, tuple[int, _Behaviour | None]] = field(default_factory=dict[Any, "tuple[int, _Behaviour | None]"])
    _held: dict[int, int] = field(default_factory=dict[int, int])  # storage of a weight -> its memory

    def fresh(self, shape: tuple[int, ...], dtype: torch.dtype) -> Seen:
        """Make a tensor in memory of its own."""
        self.memories += 1
        return Seen(self.memories - 1, Layout.fresh(shape, dtype))

    def held(self, tensor: Tensor) -> Seen:
        """Look at a weight or constant that the network holds."""
        identity = tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]  # also where nothing is stored
        if identity not in self._held:
            self._held[identity] = self.memories
            self.memories += 1
        return Seen(self._held[identity], Layout.of(tensor))

    def run(self, node: fx.Node, values: dict[fx.Node, Any]) -> Run:
        """Run `node`, given the `values` of its operands."""
        module = self.root.get_submodule(str(node.target)) if node.op == "call_module" else None
        slots: dict[int, int] = {}
        args = fx.map_arg(node.args, lambda source: _described(values[source], slots))
        kwargs = fx.map_arg(node.kwargs, lambda source: _described(values[source], slots)) if node.kwargs else None
        key = hashable((node.op, node.target if module is None else module_options(module), args, kwargs))
        known = self._known.get(key) if key is not None else None
        if known is None:
            known = self.kinds, _observe(node, module, values, slots)
            self.kinds += 1
            if key is not None:
                self._known[key] = known
        kind, behaviour = known
        if behaviour is None:
            return Run(kind)
        value, written = self._apply(behaviour, list(slots), module)
        return Run(kind, True, value, written)

    def _apply(self, seen: _Behaviour, memories: list[int], module: nn.Module | None) -> tuple[Any, tuple[int, ...]]:
        written = tuple(memories[slot] for slot in seen.written) if seen.written else ()
        if module is not None:
            memories += [self.held(_weight(module, path)).memory for path in seen.weights]
        fresh = seen.memories - len(memories)
        memories += range(self.memories, self.memories + fresh)
        self.memories += fresh
        leaves = [Seen(memories[leaf.memory], leaf.layout) if isinstance(leaf, Seen) else leaf for leaf in seen.leaves]
        return leaves[0] if seen.structure is None else pytree.tree_unflatten(leaves, seen.structure), written


def seen_in(value: Any) -> list[Seen]:
    """All tensors in a nested value."""
    if isinstance(value, Seen):
        return [value]
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Seen)]


def _described(value: Any, slots: dict[int, int]) -> Any:
    """A value with every memory replaced by its number among the operands' memories, in order of appearance."""
    if isinstance(value, Seen):
        return slots.setdefault(value.memory, len(slots)), value.layout
    return pytree.tree_map_only(Seen, lambda leaf: _described(leaf, slots), value)


def _observe(
    node: fx.Node, module: nn.Module | None, values: dict[fx.Node, Any], slots: dict[int, int]
) -> _Behaviour | None:
    sizes: dict[int, int] = {}
    for seen in (seen for source in node.all_input_nodes for seen in seen_in(values[source])):
        sizes[seen.memory] = max(seen.layout.memory_bytes, sizes.get(seen.memory, 0))
    storages = {memory: torch.UntypedStorage(size, device="meta") for memory, size in sizes.items()}
    operands: list[tuple[Tensor, int]] = []

    def tensor(seen: Seen) -> Tensor:
        made = seen.layout.tensor(storages[seen.memory])
        operands.append((made, slots[seen.memory]))
        return made

    made = {source: pytree.tree_map_only(Seen, tensor, values[source]) for source in node.all_input_nodes}
    args, kwargs = fx.map_arg((node.args, node.kwargs), made.__getitem__)
    paths: dict[int, str] = {}
    weights: list[Tensor] = []
    function = _function(node, None if module is None else without_weights(module, "", paths, weights))
    versions = [operand._version for operand, _ in operands]
    try:
        with torch.no_grad():
            result = function(*args, **kwargs)
    except Exception:  # whatever an operation raises on tensors without storage
        return None
    written = {slot for (t, slot), before in zip(operands, versions, strict=True) if t._version != before}
    leaves, structure = pytree.tree_flatten(result)
    numbers = {storage._cdata: slots[memory] for memory, storage in storages.items()}  # pyright: ignore[reportPrivateUsage]
    used = [weight for weight in weights if any(_storage(weight) == _storage(t) for t in _tensors(leaves))]
    numbers |= {_storage(weight): len(slots) + i for i, weight in enumerate(used)}
    count = len(slots) + len(used)
    for leaf in _tensors(leaves):
        if _storage(leaf) not in numbers:
            numbers[_storage(leaf)] = count
            count += 1
    return _Behaviour(
        leaves=tuple(Seen(numbers[_storage(x)], Layout.of(x)) if isinstance(x, Tensor) else x for x in leaves),
        structure=None if structure.is_leaf() else structure,
        written=tuple(sorted(written)),
        weights=tuple(paths[id(weight)] for weight in used),
        memories=count,
    )


def _function(node: fx.Node, module: nn.Module | None) -> Callable[..., Any]:
    if module is not None:
        return module
    if node.op == "call_method":
        return lambda receiver, *args, **kwargs: getattr(receiver, str(node.target))(*args, **kwargs)
    return node.target  # pyright: ignore[reportReturnType]


def _tensors(leaves: Iterable[Any]) -> Sequence[Tensor]:
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]  # the only identity of memory without content


def _weight(module: nn.Module, path: str) -> Tensor:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)
