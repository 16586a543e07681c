"""What each choice about a gated network costs.

Costs are whole numbers (nanoseconds, rounded up, or operations), so that sums are exact: a budget is never exceeded by
a rounding error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from netcut_fx.errors import BudgetError
from netcut_fx.gating.slots import Slots

Unit = Literal["ms", "flops"]
_PER_MS = 1_000_000


@dataclass(frozen=True)
class CostTable:
    """Costs of one input.

    Parameters
    ----------
    unit : {"ms", "flops"}
        What is counted; in the table itself milliseconds are whole nanoseconds.
    always : int
        What runs for every input: trunk, gate networks, dispatch.
    cells : tuple of mappings of int to int
        For each cell, the cost of each width.
    slots : tuple of Slots
        Where the decisions about each cell stand.
    static : int
        Cost of the network without gates; 0 if not known.
    """

    unit: Unit
    always: int
    cells: tuple[Mapping[int, int], ...]
    slots: tuple[Slots, ...]
    static: int = 0

    def total(self, widths: Sequence[int]) -> int:
        """Cost of one choice."""
        return self.always + sum(costs[width] for costs, width in zip(self.cells, widths, strict=True))

    @property
    def mandatory(self) -> int:
        """Cost of the least choice: every body skipped, or one group of it."""
        return self.total([min(costs) for costs in self.cells])

    @property
    def full(self) -> int:
        """Cost of the choice that keeps all."""
        return self.total([max(costs) for costs in self.cells])

    def shown(self, cost: float) -> str:
        """A cost with its unit."""
        return shown(self.unit, cost)

    def budget(self, given: float) -> int:
        """A budget in ms (or FLOPs) as a cost.

        Raises
        ------
        BudgetError
            If it is no positive number, or less than what always runs.
        """
        return as_budget(self.unit, given, self.mandatory)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        slots = [[s.layer, s.first_group, s.groups] for s in self.slots]
        cells = [{str(width): cost for width, cost in costs.items()} for costs in self.cells]
        return {"unit": self.unit, "always": self.always, "cells": cells, "slots": slots, "static": self.static}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(
            value["unit"],
            value["always"],
            tuple({int(width): cost for width, cost in costs.items()} for costs in value["cells"]),
            tuple(Slots(*slots) for slots in value["slots"]),
            value["static"],
        )


def as_cost(unit: Unit, price: float, what: str) -> int:
    """A price in ms or FLOPs as a whole number.

    Raises
    ------
    BudgetError
        If it is not known: unknown is never zero.
    """
    if not (math.isfinite(price) and price >= 0):
        raise BudgetError(
            f"the cost of {what} is {price}; a gated network needs the cost of each part: profile it first, or count "
            "FLOPs instead"
        )
    return math.ceil(price * _PER_MS) if unit == "ms" else math.ceil(price)


def as_budget(unit: Unit, given: float, mandatory: int) -> int:
    """A budget in ms or FLOPs as a whole number.

    Raises
    ------
    BudgetError
        If it is no positive number, or less than what always runs.
    """
    if not (math.isfinite(given) and given > 0):
        raise BudgetError(f"a budget of {given} is not possible; give a positive number of {unit}")
    budget = math.floor(given * _PER_MS) if unit == "ms" else math.floor(given)
    if budget < mandatory:
        raise BudgetError(
            f"a budget of {shown(unit, budget)} is below the {shown(unit, mandatory)} that the network takes "
            "with all that can be skipped left out; give at least that, or cut the network first"
        )
    return budget


def shown(unit: Unit, cost: float) -> str:
    """A cost with its unit."""
    return f"{cost / _PER_MS:.4g} ms" if unit == "ms" else f"{cost:.4g} FLOPs"
