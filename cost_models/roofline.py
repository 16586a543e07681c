"""Roofline for kernels that were not measured, with an efficiency per kind of kernel learnt from those that were.

The bound is ``max(flops / peak, bytes / bandwidth)`` (Williams, Waterman, Patterson 2009, DOI 10.1145/1498765.1498785).
A kernel reaches a share of it that depends on its kind: depthwise convolutions far less than matrix products. The share
and its spread come from the measured kernels of the same target.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cost_models.estimate import LatencyEstimate
from cost_models.kernel import Kernel
from cost_models.sample import KernelSample

#: With fewer measured kernels of a kind than this, its spread is taken from all kinds together.
_ENOUGH = 5


@dataclass(frozen=True)
class Slowdown:
    """How many times the roofline bound a kind of kernel takes: median and 5 % / 95 % quantiles."""

    median: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True)
class RooflineModel:
    """Predicts any kernel of a modelled kind.

    Parameters
    ----------
    peak_flops_per_ms : float
        Best rate that any measured kernel reached.
    bandwidth_bytes_per_ms : float
        Best rate at which any measured kernel moved its inputs and outputs.
    by_kind : dict
        `Slowdown` of each kind.
    pooled : Slowdown
        Over all kinds, for kinds that were not measured.
    """

    peak_flops_per_ms: float
    bandwidth_bytes_per_ms: float
    by_kind: dict[str, Slowdown]
    pooled: Slowdown

    @classmethod
    def fit(cls, samples: Iterable[KernelSample]) -> RooflineModel | None:
        """Fit to measured kernels; None without any."""
        known = tuple(samples)
        if not known:
            return None
        peak = max((s.flops / s.ms for s in known), default=0.0) or 1.0
        bandwidth = max((s.bytes / s.ms for s in known), default=0.0) or 1.0
        ratios: dict[str, list[float]] = defaultdict(list)
        for sample in known:
            bound = _bound_ms(sample.flops, sample.bytes, peak, bandwidth)
            if bound > 0:
                ratios[sample.kind].append(sample.ms / bound)
        if not ratios:
            return None
        everything = np.asarray([r for values in ratios.values() for r in values])
        pooled = _slowdown(everything)
        spread_low, spread_high = pooled.low / pooled.median, pooled.high / pooled.median
        by_kind: dict[str, Slowdown] = {}
        for kind, values in ratios.items():
            own = _slowdown(np.asarray(values))
            if own.samples < _ENOUGH:
                own = Slowdown(own.median, own.median * spread_low, own.median * spread_high, own.samples)
            by_kind[kind] = own
        return cls(peak, bandwidth, by_kind, pooled)

    def predict(self, kernel: Kernel) -> LatencyEstimate:
        """Bound times the slowdown of its kind; unknown for a kind that no model covers."""
        if not kernel.modelled:
            return LatencyEstimate.unknown(kernel.key)
        bound = _bound_ms(kernel.flops, kernel.bytes, self.peak_flops_per_ms, self.bandwidth_bytes_per_ms)
        slowdown = self.by_kind.get(kernel.kind, self.pooled)
        ms = bound * slowdown.median
        return LatencyEstimate(ms, bound * slowdown.low, bound * slowdown.high, (("roofline", ms),))


def _bound_ms(flops: int, moved_bytes: int, peak: float, bandwidth: float) -> float:
    return max(flops / peak, moved_bytes / bandwidth)


def _slowdown(ratios: np.ndarray) -> Slowdown:
    low, mid, high = (float(v) for v in np.quantile(ratios, (0.05, 0.5, 0.95)))
    if ratios.size < _ENOUGH:
        # A handful of kernels says nothing about the spread: allow a factor of two.
        low, high = min(low, mid / 2), max(high, mid * 2)
    return Slowdown(mid, low, high, int(ratios.size))
