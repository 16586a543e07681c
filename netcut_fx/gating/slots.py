"""Where the decision about each cell stands among all numbers that the gate networks yield for one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Slots:
    """Salience ``i`` of an input stands in column ``i``; the scale that belongs to it in column ``total + i``.

    Parameters
    ----------
    layer : int or None
        Column of the cell's body as a whole; None if the cell is not skippable.
    first_group : int or None
        Column of its first channel group, the others follow; None if it has no channel sets.
    groups : int
        How many groups; 1 without channel sets.
    """

    layer: int | None
    first_group: int | None
    groups: int

    @property
    def widths(self) -> range:
        """The numbers of groups that may be kept; 0 leaves the body out."""
        return range(self.layer is None, self.groups + 1)

    @property
    def columns(self) -> tuple[int, ...]:
        """The column that decides each step: from width 0 to 1 for a skippable cell, then a group more each time."""
        layer = () if self.layer is None else (self.layer,)
        first = self.first_group
        return layer if first is None else (*layer, *range(first + 1, first + self.groups))


def assign_slots(cells: Sequence[tuple[bool, int]]) -> tuple[tuple[Slots, ...], int, int]:
    """Number all decisions, layers first.

    Parameters
    ----------
    cells : sequence of (bool, int)
        Whether each cell is skippable, and into how many groups its channel sets are divided; 0 without any.

    Returns
    -------
    slots : tuple of Slots
        One for each cell.
    layers, groups : int
        How many cells are skippable, and how many groups all cells have together.
    """
    layers = sum(skippable for skippable, _ in cells)
    layer = taken = 0
    slots: list[Slots] = []
    for skippable, groups in cells:
        slots.append(Slots(layer if skippable else None, layers + taken if groups else None, groups or 1))
        layer += skippable
        taken += groups
    return tuple(slots), layers, taken
