"""What gated networks are trained for beside their labels: an expected cost near a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netcut_fx.errors import BudgetError, NetcutError
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.gate_network import Gates


@dataclass(frozen=True)
class CostObjective:
    """``weight * (expected cost / full cost - rate)²``, added to the cross-entropy.

    The squared distance from a target is that of Veit and Belongie (arXiv 1711.11503), there of the share of layers.

    Parameters
    ----------
    table : CostTable
        In ms or FLOPs.
    rate : float
        The target as a share of what the network costs with all gates open, in (0, 1].
    weight : float
        Of the term.
    """

    table: CostTable
    rate: float
    weight: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise BudgetError(f"a target rate of {self.rate} is not possible; give a share above 0 and at most 1")
        least = self.table.mandatory / self.table.full
        if self.rate < least:
            raise BudgetError(
                f"a target rate of {self.rate:g} cannot be reached: with all that can be skipped left out the network "
                f"still takes {least:.3f} of its cost; give at least that, or cut the network first"
            )

    @classmethod
    def of_cost(cls, table: CostTable, cost: float, weight: float = 2.0) -> CostObjective:
        """With a target in ms (or FLOPs) instead of a share."""
        return cls(table, min(1.0, table.budget(cost) / table.full), weight)

    def __call__(self, module: nn.Module) -> Tensor:
        """Penalty for the batch that `module` has just computed in training mode."""
        gates = next((m for m in module.modules() if isinstance(m, Gates)), None)
        if gates is None or gates.last is None:
            raise NetcutError("a cost can only be trained for where gates decide; run the pass gate on the network")
        return self.weight * (self.expected(gates.last) / self.table.full - self.rate) ** 2

    def expected(self, gates: Tensor) -> Tensor:
        """Mean cost over a batch of gates ``(N, total)``, each 0 or 1, with gradients."""
        gates = gates.float()  # sums of nanoseconds need more digits than bfloat16 has
        cost = torch.full((), float(self.table.always))
        for costs, slots in zip(self.table.cells, self.table.slots, strict=True):
            widths = sorted(costs)
            kept = torch.ones_like(gates[:, 0])
            cost = cost + costs[widths[0]]
            for before, after, column in zip(widths, widths[1:], slots.columns, strict=False):
                kept = kept * gates[:, column]
                cost = cost + (costs[after] - costs[before]) * kept.mean()
        return cost

    def to_json(self) -> dict[str, Any]:
        """All that decides it."""
        return {"table": self.table.to_json(), "rate": self.rate, "weight": self.weight}
