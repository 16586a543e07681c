"""What was measured: single kernels and whole networks. The evidence that the models rest on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cost_models.kernel import Kernel

#: A kernel that seems to take less did not run: the compiler made it a view. Nothing is learnt from it about others.
VIEW_MS = 1e-5


@dataclass(frozen=True)
class KernelSample:
    """Time of one workload on one target.

    Parameters
    ----------
    kernel : Kernel
        The workload; its `origin` is not kept on disk.
    ms : float
        Median over all rounds.
    low_ms, high_ms : float
        5 % and 95 % quantiles of the rounds: where a single run of the kernel usually falls.
    rounds : int
        How many rounds they come from.
    group : str
        The network or probe that it ran in. Errors of one group are not independent, so checks leave out whole groups.
    """

    kernel: Kernel
    ms: float
    low_ms: float
    high_ms: float
    rounds: int
    group: str = ""

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) and v > 0 for v in (self.ms, self.low_ms, self.high_ms)):
            raise ValueError(f"kernel {self.key}: a measured time must be positive and finite, got {self.ms} ms")

    @property
    def key(self) -> str:
        """`Kernel.key`."""
        return self.kernel.key

    @property
    def kind(self) -> str:
        """`Kernel.kind`."""
        return self.kernel.kind

    @classmethod
    def of(cls, kernel: Kernel, samples_ms: Sequence[float], group: str = "") -> KernelSample:
        """Summarise the rounds of `kernel`."""
        values = np.asarray(samples_ms, dtype=np.float64)
        if values.size == 0 or not np.isfinite(values).all() or float(values.min()) <= 0:
            raise ValueError(f"kernel {kernel.key}: measured times must be positive and finite")
        low, mid, high = (float(v) for v in np.quantile(values, (0.05, 0.5, 0.95)))
        return cls(kernel, mid, low, high, int(values.size), group)


def merge_rounds(pairs: Iterable[tuple[Kernel, Sequence[float]]], group: str = "") -> tuple[KernelSample, ...]:
    """One sample per workload: the rounds of all its calls taken together."""
    kernels: dict[str, Kernel] = {}
    rounds: dict[str, list[float]] = {}
    for kernel, samples_ms in pairs:
        kernels.setdefault(kernel.key, kernel)
        rounds.setdefault(kernel.key, []).extend(samples_ms)
    return tuple(KernelSample.of(kernels[key], values, group) for key, values in rounds.items())


@dataclass(frozen=True)
class NetworkSample:
    """Time of one whole network, measured end to end.

    Parameters
    ----------
    name : str
        What it is: network and cut.
    group : str
        The network that it was cut from; see `KernelSample.group`.
    kernels : tuple of Kernel
        What it runs, one entry for each call.
    ms, low_ms, high_ms : float
        Median, and an interval of it.
    source : str
        Who measured it, for people.
    """

    name: str
    group: str
    kernels: tuple[Kernel, ...]
    ms: float
    low_ms: float
    high_ms: float
    source: str = ""

    def __post_init__(self) -> None:
        if not self.kernels:
            raise ValueError(f"network {self.name}: a measured network needs its kernels, got none")
        if not (0 < self.low_ms <= self.ms <= self.high_ms < math.inf):
            raise ValueError(
                f"network {self.name}: a measured time needs 0 < low <= ms <= high < inf, got {self.low_ms}, "
                f"{self.ms}, {self.high_ms} ms"
            )
