"""What a network takes beyond the sum of its kernels: calls, memory traffic between them, a clock that runs off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cost_models.features import KernelFacts
from cost_models.kernel import Kernel

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
        Weights of all kernels: alone a kernel finds them in a cache, in a network often not.
    """

    kernels_ms: float
    calls: int
    weight_bytes: float

    @classmethod
    def of(cls, kernels: Sequence[Kernel], kernels_ms: float) -> NetworkTotals:
        """Of a network whose kernels add up to `kernels_ms`."""
        return cls(kernels_ms, len(kernels), sum(KernelFacts.of(k).weight_bytes for k in kernels))


@dataclass(frozen=True)
class Between:
    """``scale * kernels + calls * ms_per_call + weight_bytes * ms_per_weight_byte``.

    Parameters
    ----------
    scale : float
        Factor on the sum of the kernels.
    ms_per_call, ms_per_weight_byte : float
        At least zero.
    """

    scale: float = 1.0
    ms_per_call: float = 0.0
    ms_per_weight_byte: float = 0.0

    @classmethod
    def fit(cls, networks: Sequence[tuple[NetworkTotals, float]], ms_per_call: float = 0.0) -> Between:
        """Fit to measured networks, (totals, ms) each; without evidence `scale` is 1 and a call costs `ms_per_call`.

        Least squares on relative errors; a ridge keeps every number near what is assumed without evidence.
        """
        from scipy.optimize import lsq_linear

        assumed = np.asarray([1.0, ms_per_call, 0.0])
        spread = np.asarray([_SCALE_SPREAD, max(ms_per_call, _CALL_SPREAD_MS), _BYTE_SPREAD_MS])
        rows = np.asarray([(t.kernels_ms, t.calls, t.weight_bytes) for t, _ in networks]).reshape(-1, 3)
        measured = np.asarray([ms for _, ms in networks])
        weight = 1 / (_NOISE * measured)
        # In units of the spreads, so that columns are comparable.
        table = np.concatenate([rows * spread * weight[:, None], np.eye(3)])
        wanted = np.concatenate([measured * weight, assumed / spread])
        found = lsq_linear(table, wanted, bounds=(0, np.inf)).x * spread
        return cls(*(float(v) for v in found))

    def overhead_ms(self, totals: NetworkTotals) -> float:
        """What comes on top of the kernels."""
        return self.ms_per_call * totals.calls + self.ms_per_weight_byte * totals.weight_bytes
