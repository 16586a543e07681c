"""Which kernel the next trial goes to: where most time can still be won; and when a kernel is finished."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from netcut_fx.backends.tvm.roofline import MachinePeak, Work

#: A kernel so close to the least time that the machine needs has nothing to win. So many trials must have been made:
#: the peak is measured, and may look too low as long as other work runs beside it.
_NEAR_ROOFLINE, _TRIALS_AT_PEAK = 1.05, 3
#: A schedule that is faster by less has brought nothing: timings are no better than that.
_IMPROVES = 0.98


@dataclass(frozen=True)
class Allowance:
    """How many trials a kernel may have.

    Parameters
    ----------
    trials : int
        At most, those of earlier runs included.
    patience : int
        So many in succession that bring nothing end it.
    """

    trials: int
    patience: int


@dataclass
class KernelProgress:
    """What tuning knows of one kernel so far.

    Parameters
    ----------
    name : str
        The compiler's.
    calls : int
        How often the network runs it.
    work : Work
        Its operations and bytes.
    allowance : Allowance
        How many trials it may have.
    tried : list of float or None
        Seconds of each schedule tried, in order; None where it failed.
    exhausted : bool
        There is no further schedule to try.
    least_s : float
        No schedule can take less, see `set_bounds`.
    naive : bool
        Without a record it runs as unscheduled loops, since we have no schedule of our own for it.
    """

    name: str
    calls: int
    work: Work
    allowance: Allowance
    tried: list[float | None] = field(default_factory=list[float | None])
    exhausted: bool = False
    least_s: float = 0.0
    naive: bool = False

    @property
    def best_s(self) -> float:
        """Fastest schedule; infinite without one."""
        return min((s for s in self.tried if s is not None), default=math.inf)

    @property
    def fruitless(self) -> int:
        """Trials since the last one that brought something."""
        best, count = math.inf, 0
        for seconds in self.tried:
            better = seconds is not None and seconds < best * _IMPROVES
            best, count = (seconds, 0) if better and seconds is not None else (best, count + 1)
        return count

    @property
    def finished(self) -> str | None:
        """Why no further trial is made; None where one is."""
        if self.exhausted:
            return "no further schedule"
        if len(self.tried) >= self.allowance.trials:
            return "all trials made"
        if len(self.tried) >= _TRIALS_AT_PEAK and self.best_s <= _NEAR_ROOFLINE * self.least_s:
            return "at the machine's peak"
        if self.fruitless >= self.allowance.patience:
            return f"the last {self.fruitless} trials brought nothing"
        return None

    @property
    def left(self) -> int:
        """Trials that it may still have."""
        return 0 if self.finished else self.allowance.trials - len(self.tried)

    @property
    def to_win_s(self) -> float:
        """What the network would win if this kernel reached the roofline, less where trials keep bringing nothing."""
        return self.calls * (self.best_s - self.least_s) / (1 + self.fruitless)


def set_bounds(kernels: Sequence[KernelProgress], peak: MachinePeak) -> None:
    """Set the least time of each kernel from `peak`, or from what a faster kernel proves it to be."""
    for kernel in kernels:
        if math.isfinite(kernel.best_s):
            peak = peak.raised(kernel.work, kernel.best_s)
    for kernel in kernels:
        kernel.least_s = peak.least_s(kernel.work)


def next_kernel(kernels: Iterable[KernelProgress]) -> KernelProgress | None:
    """The kernel that the next trial goes to; None when all are finished.

    Each gets one first, those leading that have no schedule at all yet, then those with most work; then the one with
    most to win.
    """
    going = [kernel for kernel in kernels if kernel.finished is None]
    fresh = [kernel for kernel in going if not kernel.tried]
    if fresh:
        return max(fresh, key=lambda kernel: (kernel.naive, kernel.calls * kernel.least_s))
    return max(going, key=lambda kernel: kernel.to_win_s, default=None)


def network_seconds(kernels: Sequence[KernelProgress]) -> float | None:
    """Sum over all calls of the best times; None while some kernel has none."""
    total = sum(kernel.calls * kernel.best_s for kernel in kernels)
    return total if math.isfinite(total) else None
