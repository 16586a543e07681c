"""What a network takes beyond the sum of its kernels: calls, memory traffic between them, a clock that runs off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: How far, as a standard deviation, whole networks may be off the sum of their kernels by a common factor.
_SCALE_SPREAD = 0.05
#: Smallest standard deviation of the cost of one call.
_CALL_SPREAD_MS = 2e-3
#: Of the cost of reading weights from memory, in ms for each byte: 10 GB/s for those that were counted as free.
_BYTE_SPREAD_MS = 1e-7
#: Relative error of one network that counts as one standard deviation.
_NOISE = 0.02


@dataclass(frozen=True)
class NetworkTotals:
    """What counts of a network here.

    Parameters
    ----------
    kernels_ms : float
        Sum of the predictions of its kernels.
    calls : int
        Kernel calls.
    weight_bytes : float
        Weights of the kernels that were not measured in a network with these weights.
    reload_bytes : tuple of float
        For each of `cost_models.footprint.capacities`, what kernels wait for since a cache of that size lost it from
        run to run, beyond what they waited for where they were measured; below zero in a smaller network.
    """

    kernels_ms: float
    calls: int
    weight_bytes: float
    reload_bytes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Between:
    """``scale * kernels_ms``, and for calls, weights and what caches do not keep a price each.

    Parameters
    ----------
    scale : float
        Factor on the sum of the kernels.
    ms_per_call, ms_per_weight_byte : float
        At least zero.
    ms_per_reload_byte : tuple of float
        At least zero, one for each capacity.
    """

    scale: float = 1.0
    ms_per_call: float = 0.0
    ms_per_weight_byte: float = 0.0
    ms_per_reload_byte: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls,
        networks: Sequence[tuple[NetworkTotals, float]],
        ms_per_call: float = 0.0,
        ms_per_reload_byte: Sequence[float] = (),
    ) -> Between:
        """Fit to measured networks, (totals, ms) each; without evidence `scale` is 1 and the others are as given.

        Least squares on relative errors; a ridge keeps every number near what is assumed without evidence.
        """
        from scipy.optimize import lsq_linear

        reloads = len(ms_per_reload_byte)
        assumed = np.asarray([1.0, ms_per_call, 0.0, *ms_per_reload_byte])
        spread = np.asarray(
            [_SCALE_SPREAD, max(ms_per_call, _CALL_SPREAD_MS), _BYTE_SPREAD_MS, *[_BYTE_SPREAD_MS] * reloads]
        )
        rows = np.asarray([(t.kernels_ms, t.calls, t.weight_bytes, *t.reload_bytes) for t, _ in networks])
        rows = rows.reshape(-1, 3 + reloads)
        measured = np.asarray([ms for _, ms in networks])
        weight = 1 / (_NOISE * measured)
        # In units of the spreads, so that columns are comparable.
        table = np.concatenate([rows * spread * weight[:, None], np.eye(3 + reloads)])
        wanted = np.concatenate([measured * weight, assumed / spread])
        scale, call, byte, *reload = (float(v) for v in lsq_linear(table, wanted, bounds=(0, np.inf)).x * spread)
        return cls(scale, call, byte, tuple(reload))

    def overhead_ms(self, totals: NetworkTotals) -> float:
        """What comes on top of the kernels for calls, and for weights from memory."""
        return self.ms_per_call * totals.calls + self.ms_per_weight_byte * totals.weight_bytes

    def caches_ms(self, totals: NetworkTotals) -> float:
        """What caches cost that keep less than where the kernels were measured; below zero where they keep more."""
        reload = zip(self.ms_per_reload_byte, totals.reload_bytes, strict=True)
        return sum(ms * size for ms, size in reload)
