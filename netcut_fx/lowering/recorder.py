"""The dispatch mode that writes down what one node asks of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._refs import view
from torch.utils._python_dispatch import TorchDispatchMode

from netcut_fx.lowering.tracks import Layout, RecordedCall, Recording, Slot, map_nested

_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


class Recorder(TorchDispatchMode):
    """Writes down the ATen calls of one node at a time, decomposed as `torch.export` decomposes them."""

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[Any, Callable[..., Any]] = dict(torch.export.default_decompositions().items())
        self.start({}, {})

    def start(self, inputs: dict[int, Slot], weights: dict[int, str]) -> None:
        """Begin with a new node: slots of its inputs and paths of its weights, by id of the tensor."""
        self.calls: list[RecordedCall] = []
        self.slots = dict(inputs)
        self.inputs = dict(inputs)
        self.weight_paths = weights
        self.weights: list[tuple[Slot, str | None]] = []
        self.layouts: dict[int, Layout] = {}
        self.count = len(inputs)
        self.alive: list[Any] = []

    def new_slot(self, tensor: Tensor) -> Slot:
        """Give `tensor` the next slot, in place of one it had."""
        slot = Slot(self.count)
        self.count += 1
        self.slots[id(tensor)] = slot
        self.layouts[slot.index] = Layout.of(tensor)
        self.alive.append(tensor)
        return slot

    def slot_of(self, tensor: Tensor) -> Slot:
        """Find the slot of a tensor; one never seen is a weight or a literal."""
        if id(tensor) not in self.slots:
            self.weights.append((self.new_slot(tensor), self.weight_paths.get(id(tensor))))
        return self.slots[id(tensor)]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = str(func.name()).removeprefix("aten::")
        # Export keeps resizing whole.
        rule: Any = None if name.startswith("upsample_") else self.table.get(func)
        if rule is None and func._can_decompose() and not name.startswith("upsample_"):
            rule = func.decompose
        if rule is not None:
            with self:
                result = rule(*args, **kwargs)
            if result is not NotImplemented:
                return result
        base, _, overload = name.partition(".")
        writes = base.endswith("_") and not base.endswith("__")
        if base == "copy_" and args[0].shape == args[1].shape and args[0].dtype == args[1].dtype:
            self.slots[id(args[0])] = self.slot_of(args[1])
            return args[0]
        if base == "detach":
            return args[0]
        op = base.rstrip("_") + ("." + overload if overload else "") if writes else name
        slotted = map_nested(args, Tensor, self.slot_of), map_nested(kwargs, Tensor, self.slot_of)
        if "device" in kwargs:
            kwargs["device"] = torch.device("meta")
        # Export's views have other strides where a dimension is 1, and these decide what pooling is decomposed into.
        function = _view if func in _VIEWS else func
        result = function(*map_nested(args, Tensor, without_storage), **map_nested(kwargs, Tensor, without_storage))
        if writes:
            slot = self.new_slot(args[0])
            self.calls.append(RecordedCall(op, *slotted, (slot,)))
            return args[0]
        outputs = [t for t in (result if isinstance(result, (tuple, list)) else (result,)) if isinstance(t, Tensor)]
        self.calls.append(RecordedCall(op, *slotted, tuple(self.new_slot(t) for t in outputs)))
        return result

    def finish(self, result: Any, inputs: Iterable[Tensor]) -> Recording:
        """End with what the node returned."""
        rebound = tuple(
            (slot, self.slots[key]) for key, slot in self.inputs.items() if self.slots[key].index != slot.index
        )
        shares: list[tuple[Slot, Slot]] = []
        storage_of = {storage_id(t): self.inputs[id(t)] for t in inputs}

        def note(tensor: Tensor) -> Slot:
            slot = self.slot_of(tensor)
            if storage_id(tensor) in storage_of and slot.index not in {s.index for pair in rebound for s in pair}:
                shares.append((slot, storage_of[storage_id(tensor)]))
            return slot

        slotted = map_nested(result, Tensor, note)
        return Recording(tuple(self.calls), tuple(self.weights), self.layouts, slotted, rebound, tuple(shares))


def without_storage(tensor: Tensor) -> Tensor:
    """Stand in for a literal; numbers mix with tensors of any device."""
    return tensor if tensor.is_meta or tensor.dim() == 0 else Layout.of(tensor).tensor()


def _view(tensor: Tensor, shape: Any) -> Tensor:
    """View a tensor as export's tensors without storage are viewed."""
    return view(tensor, list(shape))


def storage_id(tensor: Tensor) -> int:
    """Tell which memory a tensor without storage would live in."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
