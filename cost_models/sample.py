"""A measured kernel: evidence that the models rest on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cost_models.kernel import Kernel


@dataclass(frozen=True)
class KernelSample:
    """Time of one workload on one target.

    Parameters
    ----------
    key : str
        `Kernel.key`.
    kind : str
        `Kernel.kind`.
    flops, bytes : int
        As in `Kernel`.
    ms : float
        Median over all rounds.
    low_ms, high_ms : float
        5 % and 95 % quantiles of the rounds: where a single run of the kernel usually falls.
    rounds : int
        How many rounds they come from.
    """

    key: str
    kind: str
    flops: int
    bytes: int
    ms: float
    low_ms: float
    high_ms: float
    rounds: int

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) and v > 0 for v in (self.ms, self.low_ms, self.high_ms)):
            raise ValueError(f"kernel {self.key}: a measured time must be positive and finite, got {self.ms} ms")

    @classmethod
    def of(cls, kernel: Kernel, samples_ms: Sequence[float]) -> KernelSample:
        """Summarise the rounds of `kernel`."""
        values = np.asarray(samples_ms, dtype=np.float64)
        if values.size == 0 or not np.isfinite(values).all() or float(values.min()) <= 0:
            raise ValueError(f"kernel {kernel.key}: measured times must be positive and finite")
        low, mid, high = (float(v) for v in np.quantile(values, (0.05, 0.5, 0.95)))
        return cls(kernel.key, kernel.kind, kernel.flops, kernel.bytes, mid, low, high, int(values.size))


def merge_rounds(pairs: Iterable[tuple[Kernel, Sequence[float]]]) -> tuple[KernelSample, ...]:
    """One sample per workload: the rounds of all its calls taken together."""
    kernels: dict[str, Kernel] = {}
    rounds: dict[str, list[float]] = {}
    for kernel, samples_ms in pairs:
        kernels.setdefault(kernel.key, kernel)
        rounds.setdefault(kernel.key, []).extend(samples_ms)
    return tuple(KernelSample.of(kernels[key], values) for key, values in rounds.items())
