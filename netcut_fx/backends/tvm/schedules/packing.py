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
    """

    order: tuple[int, ...]
    lanes: int = 0

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
        if not self.lanes:
            return tuple(new)
        return (-(-new[0] // self.lanes), *new[1:], self.lanes)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """`array` in the new order; panels that are not full end in zeros."""
        moved = array.transpose(self.order)
        if self.lanes:
            missing = -moved.shape[0] % self.lanes
            moved = np.pad(moved, [(0, missing), *[(0, 0)] * (moved.ndim - 1)])
            moved = np.moveaxis(moved.reshape(-1, self.lanes, *moved.shape[1:]), 1, -1)
        return np.ascontiguousarray(moved)


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
