"""Orders in memory: of weights for the registers that read them, of activations with channels innermost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from netcut_fx.backends.tvm.schedules.contraction import Contraction
from netcut_fx.backends.tvm.schedules.machine import Machine


@dataclass(frozen=True)
class Packing:
    """A permutation of dimensions, one of them split into panels of `lanes` neighbours that come last.

    Parameters
    ----------
    order : tuple of int
        The dimensions in their new order.
    lanes : int
        Width of the panels of the first dimension of `order`; 0 for no panels.
    extent : int
        Length to which the dimension of the panels, without them the last of `order`, is padded with zeros.
    """

    order: tuple[int, ...]
    lanes: int = 0
    extent: int = 0

    def index_map(self) -> Callable[..., Any]:
        """For TVM: from old to new indices."""

        def transformed(*old: Any) -> Any:
            new = [old[i] for i in self.order]
            if not self.lanes:
                return tuple(new)
            return (new[0] // self.lanes, *new[1:], new[0] % self.lanes)

        return transformed

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        """The new shape."""
        new = [old[i] for i in self.order]
        new[self._padded] = max(new[self._padded], self.extent)
        if not self.lanes:
            return tuple(new)
        return (-(-new[0] // self.lanes), *new[1:], self.lanes)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """`array` in the new order; panels that are not full end in zeros."""
        moved = array.transpose(self.order)
        missing = [(0, 0)] * moved.ndim
        length = max(moved.shape[self._padded], self.extent)
        length += -length % (self.lanes or 1)
        missing[self._padded] = (0, length - moved.shape[self._padded])
        moved = np.pad(moved, missing)
        if self.lanes:
            moved = np.moveaxis(moved.reshape(-1, self.lanes, *moved.shape[1:]), 1, -1)
        return np.ascontiguousarray(moved)

    @property
    def _padded(self) -> int:
        return 0 if self.lanes else -1


def weight_packing(contraction: Contraction, machine: Machine) -> Packing | None:
    """How the weights of `contraction` have to lie; None if its channels make no vectors."""
    stage, weight = contraction.stage, contraction.weight
    walked = [stage.axis_of(index) for index in weight.indices]
    if contraction.channel not in walked:
        return None
    own = walked.index(contraction.channel)
    others = [i for i in range(len(walked)) if i != own]
    place = {axis: n for n, axis in enumerate(contraction.sums)}
    others.sort(key=lambda i: place.get(walked[i], -1))  # pyright: ignore[reportArgumentType, reportCallIssue]
    if contraction.kind == "depthwise":
        return Packing((*others, own))
    lanes = machine.lanes_for(contraction.group)
    return Packing((own, *others), lanes) if lanes > 1 else None
