"""What every estimator offers, and how several are asked in turn."""

from __future__ import annotations

from collections.abc import Iterable
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


def estimate_kernels(
    kernels: Iterable[Kernel], model: CostModel, *, overhead_ms_per_kernel: float = 0.0
) -> LatencyEstimate:
    """Latency of kernels that run one after the other, the dispatch of each included."""
    listed = tuple(kernels)
    total = LatencyEstimate.sum(model.predict(kernel) for kernel in listed)
    if overhead_ms_per_kernel and total.is_known:
        ms = overhead_ms_per_kernel * len(listed)
        # A difference of two measured sums: all that is sure is its order of magnitude.
        total = total + LatencyEstimate(ms, 0.0, 2 * ms, (("overhead", ms),))
    return total
