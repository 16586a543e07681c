"""What is kept of a node that was run without computing: its calls in terms of slots, not of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slot:
    """Stands for a tensor in a recording: inputs first, then weights, then results."""

    index: int


@dataclass(frozen=True)
class Layout:
    """Shape, strides and type: all there is to a tensor without storage."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Layout:
        """Take the layout of `tensor`."""
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)

    def tensor(self) -> Tensor:
        """Make a tensor without storage."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


@dataclass(frozen=True)
class RecordedCall:
    """One call, with slots in place of tensors."""

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Slot, ...]


@dataclass(frozen=True)
class Recording:
    """What one node does, in terms of slots.

    ``weights`` are (slot, path of the weight inside the module, or None for a literal), ``layouts`` what is needed to
    make the tensors of slots anew, ``rebound`` the inputs written in place and the slot that holds their new content,
    ``aliases`` the results that share memory with an input.
    """

    calls: tuple[RecordedCall, ...]
    weights: tuple[tuple[Slot, str | None], ...]
    layouts: dict[int, Layout]
    result: Any
    rebound: tuple[tuple[Slot, Slot], ...]
    aliases: tuple[tuple[Slot, Slot], ...]


def map_nested(value: Any, kind: type | tuple[type, ...], replace: Callable[[Any], Any]) -> Any:
    """Replace every `kind` inside the tuples, lists, dicts and slices of `value`."""
    if isinstance(value, kind):
        return replace(value)
    if isinstance(value, tuple):
        items: list[Any] = [map_nested(v, kind, replace) for v in value]  # pyright: ignore[reportUnknownVariableType]
        return tuple(items)
    if isinstance(value, list):
        return [map_nested(v, kind, replace) for v in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {k: map_nested(v, kind, replace) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, slice):
        return slice(*(map_nested(v, kind, replace) for v in (value.start, value.stop, value.step)))
    return value
