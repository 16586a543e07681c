"""Running compiled pieces one after the other: decide once, then call what is kept. Needs numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.slots import Slots

#: Runs piece number ``index`` on what the piece before it yielded, and on scales.
Call = Callable[[int, Any, Sequence[NDArray[np.float32]]], Any]


@dataclass(frozen=True)
class CellCalls:
    """What is called for one cell.

    Parameters
    ----------
    name : str
        Of the cell.
    slots : Slots
        Where its decisions stand.
    variants : mapping of int to int or None
        By width, the number of the piece; None if nothing is left to compute.
    scale_shapes : mapping of int to tuple of shapes
        By width, the shape of each scale that the piece takes.
    channel_groups : mapping of int to tuple of int
        By width, the group of each channel that is scaled; empty without channel scales.
    """

    name: str
    slots: Slots
    variants: Mapping[int, int | None]
    scale_shapes: Mapping[int, tuple[tuple[int, ...], ...]]
    channel_groups: Mapping[int, tuple[int, ...]]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "slots": [self.slots.layer, self.slots.first_group, self.slots.groups],
            "variants": {str(w): piece for w, piece in self.variants.items()},
            "scale_shapes": {str(w): [list(s) for s in shapes] for w, shapes in self.scale_shapes.items()},
            "channel_groups": {str(w): list(groups) for w, groups in self.channel_groups.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(
            value["name"],
            Slots(*value["slots"]),
            {int(w): piece for w, piece in value["variants"].items()},
            {int(w): tuple(tuple(s) for s in shapes) for w, shapes in value["scale_shapes"].items()},
            {int(w): tuple(groups) for w, groups in value["channel_groups"].items()},
        )


@dataclass(frozen=True)
class Program:
    """The order in which pieces are called; piece 0 is the stem, piece 1 the gate networks.

    Parameters
    ----------
    total : int
        Number of saliences.
    steps : tuple of int or CellCalls
        What follows: the number of a piece that always runs, or a cell.
    """

    total: int
    steps: tuple[int | CellCalls, ...]

    @property
    def cells(self) -> tuple[CellCalls, ...]:
        """The cells among the steps."""
        return tuple(step for step in self.steps if isinstance(step, CellCalls))

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"total": self.total, "steps": [s if isinstance(s, int) else s.to_json() for s in self.steps]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        steps = tuple(s if isinstance(s, int) else CellCalls.from_json(s) for s in value["steps"])
        return cls(value["total"], steps)


class Dispatcher:
    """Runs one input at a time, and calls only what is kept of each cell.

    Parameters
    ----------
    program : Program
        What there is to call.
    table : CostTable
        What each choice costs.
    call : callable
        Runs one piece.
    to_numpy : callable
        From what a piece yields to an array.
    budget : int, optional
        From `CostTable.budget`: no input costs more.
    fill : bool
        Spend the budget on what gates would leave out, too.
    """

    def __init__(
        self,
        program: Program,
        table: CostTable,
        call: Call,
        to_numpy: Callable[[Any], NDArray[np.float32]],
        *,
        budget: int | None = None,
        fill: bool = False,
    ) -> None:
        self.program, self.table, self.budget, self.fill = program, table, budget, fill
        self._call, self._to_numpy = call, to_numpy
        # From the scales of one input to those of each channel, looked up and not computed.
        self._columns = [
            {w: np.array([c.slots.first_group + g for g in groups]) for w, groups in c.channel_groups.items()}
            if c.slots.first_group is not None
            else {}
            for c in program.cells
        ]

    def __call__(self, image: Any) -> tuple[NDArray[np.float32], tuple[int, ...]]:
        """Logits ``(1, classes)`` and the width of each cell."""
        call = self._call
        value = call(0, image, ())
        raw = self._to_numpy(call(1, value, ()))[0]
        widths = self.table.choose(raw[: self.program.total], self.budget, fill=self.fill)
        scales = raw[self.program.total :]
        number = 0
        for step in self.program.steps:
            if isinstance(step, int):
                value = call(step, value, ())
                continue
            width = widths[number]
            piece = step.variants[width]
            if piece is not None:
                value = call(piece, value, self._scales(step, number, width, scales))
            number += 1
        return self._to_numpy(value), tuple(widths)

    def _scales(
        self, cell: CellCalls, number: int, width: int, scales: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        shapes = cell.scale_shapes[width]
        if not shapes:
            return []
        found: list[NDArray[np.float32]] = []
        if cell.slots.layer is not None:
            found.append(scales[cell.slots.layer : cell.slots.layer + 1])
        if width in self._columns[number]:
            found.append(scales[self._columns[number][width]])
        return [scale.reshape(shape) for scale, shape in zip(found, shapes, strict=True)]
