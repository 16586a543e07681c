"""What every estimator offers, and how several are asked in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cost_models.estimate import LatencyEstimate
from cost_models.kernel import Kernel


class CostModel(Protocol):
    """Predicts the latency of one kernel on one target."""

    def predict(self, kernel: Kernel) -> LatencyEstimate:
        """Estimate of `kernel`; unknown if this model does not cover it, never zero."""
        ...


@dataclass(frozen=True)
class FirstKnown:
    """Asks `models` in turn: the first that knows the kernel answers."""

    models: tuple[CostModel, ...]

    def predict(self, kernel: Kernel) -> LatencyEstimate:
        """Estimate of the first model that covers `kernel`."""
        for model in self.models:
            estimate = model.predict(kernel)
            if estimate.is_known:
                return estimate
        return LatencyEstimate.unknown(kernel.key)
