"""Paths: the few ways through a gated network that are compiled whole, and which of them an input takes.

A decision for each cell would cost a call for each cell, and conversions of layouts between them. A path is one
compiled network, as fast as any: what it leaves out is time saved. Keeping what is most salient within a budget follows
Wang et al., "Dual Dynamic Inference" (IEEE JSTSP 2020, arXiv 1907.04523), which also bounds the cost of each input.
Needs numpy only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from netcut_fx.errors import BudgetError
from netcut_fx.gating.cost_table import as_budget
from netcut_fx.gating.slots import Slots


@dataclass(frozen=True)
class Paths:
    """The paths that there are, the cheapest first.

    Parameters
    ----------
    slots : tuple of Slots
        Where the decisions about each cell stand.
    widths : tuple of tuples
        The width of each cell on each path.
    costs : tuple of int
        What each costs from input to output, ascending; nanoseconds or operations.
    bounds : tuple of int
        What hardly an input on each exceeds, ascending: this is what a budget looks at. The costs where nothing was
        measured.
    """

    slots: tuple[Slots, ...]
    widths: tuple[tuple[int, ...], ...]
    costs: tuple[int, ...]
    bounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.bounds:
            object.__setattr__(self, "bounds", self.costs)

    @cached_property
    def columns(self) -> NDArray[np.int64]:
        """The salience of each step of each cell, ``(cells, steps)``; what a cell has less is its last one again."""
        steps = [s.columns for s in self.slots]
        longest = max(map(len, steps))
        return np.array([(*one, *[one[-1]] * (longest - len(one))) for one in steps], np.int64)

    @cached_property
    def kept(self) -> NDArray[np.float32]:
        """Which steps each path takes, ``(paths, cells * steps)``."""
        taken = np.array([[w - s.widths[0] for w, s in zip(one, self.slots, strict=True)] for one in self.widths])
        steps = np.arange(self.columns.shape[1])
        return (steps < taken[:, :, None]).astype(np.float32).reshape(len(self.widths), -1)

    def number(self, widths: Sequence[int]) -> int:
        """Which path has these widths; -1 if none does."""
        return self.widths.index(tuple(widths)) if tuple(widths) in self.widths else -1

    def choose(self, saliences: NDArray[np.float32], budget: int | None = None, *, fill: bool = False) -> int:
        """The path of one input: the largest sum of saliences among those within the budget, the cheapest of equals.

        Parameters
        ----------
        saliences : float array (total,)
            A step that others build on counts as at least as salient as they are.
        budget : int, optional
            From `budget`.
        fill : bool
            Every step counts as worth taking, so that a budget is spent on those that gates would leave out, too.

        Raises
        ------
        BudgetError
            If a salience is NaN.
        """
        steps = np.minimum.accumulate(saliences[self.columns], axis=1).ravel()
        if fill:
            steps = steps - steps.min() + 1.0
        scores = self.kept @ steps
        best = int(scores[: None if budget is None else self.within(budget)].argmax())
        if scores[best] != scores[best]:
            bad = np.flatnonzero(np.isnan(saliences))[0]
            raise BudgetError(
                f"salience {bad} of {len(saliences)} is NaN: the gates decide nothing; train the network again"
            )
        return best

    def within(self, budget: int) -> int:
        """How many paths, the cheapest ones, keep a budget from `budget`."""
        return bisect_right(self.bounds, budget)

    def budget(self, given_ms: float) -> int:
        """A budget in ms as a cost.

        Raises
        ------
        BudgetError
            If it is no positive number, or less than the cheapest path takes.
        """
        return as_budget("ms", given_ms, self.bounds[0])

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        slots = [[s.layer, s.first_group, s.groups] for s in self.slots]
        widths = [list(one) for one in self.widths]
        return {"slots": slots, "widths": widths, "costs": list(self.costs), "bounds": list(self.bounds)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        slots = tuple(Slots(*one) for one in value["slots"])
        widths = tuple(tuple(one) for one in value["widths"])
        return cls(slots, widths, tuple(value["costs"]), tuple(value["bounds"]))


def gates_of_widths(slots: Sequence[Slots], widths: Sequence[Sequence[int]], total: int) -> NDArray[np.float32]:
    """The gates (0 or 1) of paths, ``(paths, total)``."""
    found = np.zeros((len(widths), total), np.float32)
    for row, one in zip(found, widths, strict=True):
        for width, own in zip(one, slots, strict=True):
            if own.first_group is not None:
                row[own.first_group] = 1
            row[list(own.columns[: width - own.widths[0]])] = 1
    return found
