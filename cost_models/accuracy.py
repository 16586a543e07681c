"""How good estimates are, in the figures that publications give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cost_models.estimate import LatencyEstimate


def accuracy_of(estimates: Sequence[LatencyEstimate], measured_ms: Sequence[float]) -> dict[str, float | int]:
    """Compare estimates with what was measured.

    Returns
    -------
    dict
        ``networks`` and ``unknown`` (counts; unknown ones enter no other figure but count as not within and not
        covered), ``mape``, ``p95_abs_pct`` and ``mean_interval_width_pct`` in per cent, ``within_5``, ``within_10`` and
        ``coverage_90`` as shares, ``kendall_tau``. Figures that need more networks than there are, are left out.
    """
    from scipy.stats import kendalltau

    known = [(e, ms) for e, ms in zip(estimates, measured_ms, strict=True) if e.is_known]
    found: dict[str, float | int] = {"networks": len(estimates), "unknown": len(estimates) - len(known)}
    if not known:
        return found
    predicted, truth = np.asarray([e.ms for e, _ in known]), np.asarray([ms for _, ms in known])
    low, high = np.asarray([e.low_ms for e, _ in known]), np.asarray([e.high_ms for e, _ in known])
    errors = 100 * np.abs(predicted / truth - 1)
    share = len(known) / len(estimates)
    found |= {
        "mape": float(errors.mean()),
        "within_5": float((errors <= 5).mean()) * share,
        "within_10": float((errors <= 10).mean()) * share,
        "coverage_90": float(((low <= truth) & (truth <= high)).mean()) * share,
        "mean_interval_width_pct": float((100 * (high - low) / predicted).mean()),
    }
    if len(known) >= 20:
        found["p95_abs_pct"] = float(np.quantile(errors, 0.95))
    if len(known) >= 2:
        result: Any = kendalltau(predicted, truth)
        tau = float(result.statistic)
        if np.isfinite(tau):
            found["kendall_tau"] = tau
    return found
