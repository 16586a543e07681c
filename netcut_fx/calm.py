"""Measuring on a machine that others use as well: only rounds count in which a canary was as fast as it can be.

A neighbour that floods the memory, or a clock that falls, makes a network slower by a tenth for seconds or minutes. A
median over a second does not see that, and the quotient with a reference network corrects it only for networks that
suffer as much as the reference does. So a canary, a network that needs the memory, runs before and after each round:
where it was slow, the round is not taken, and measuring goes on until there are enough, or for too long.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from netcut_fx.backends.base import KernelTiming, Profile
from netcut_fx.measure import Measurement, Timer, calls_per_round

#: By how much a canary, or a whole network, may be slower than at its best in a round that counts.
TOLERANCE = 0.04
#: At its best is this quantile of all rounds, for the very fastest are flukes.
_BEST_QUANTILE = 0.05
#: With fewer rounds, what is known from before counts alone.
_ENOUGH_SEEN = 40
#: Of a round.
_SHORTEST_MS = 10.0


@dataclass
class CalmWatch:
    """Measures with a canary.

    Parameters
    ----------
    canary : callable
        Timer of a network that is compiled for the same threads.
    best_ms : float, optional
        What it takes at its best, if that is known from before.
    rounds : int
        Calm rounds that are wanted.
    longest_s : float
        Then the calmest rounds are taken as they are.
    """

    canary: Timer
    best_ms: float | None = None
    rounds: int = 15
    longest_s: float = 30.0
    _number: int = field(default=0, init=False)
    _seen: list[float] = field(default_factory=list[float], init=False)

    def measure(self, timer: Timer) -> Measurement:
        """Milliseconds of one call on a calm machine; where there was no calm, the canary's slowness is divided out."""
        number = calls_per_round(timer, _SHORTEST_MS)
        before = self._look()
        found: list[tuple[float, float]] = []
        end = time.monotonic() + self.longest_s
        while True:
            timer(1)  # what the canary took from the caches comes back
            own = timer(number) / number * 1e3
            after = self._look()
            found.append((max(before, after), own))
            before, limit = after, self.best() * (1 + TOLERANCE)
            calm = [ms for state, ms in found if state <= limit]
            if len(calm) >= self.rounds:
                return Measurement.of(calm, number)
            if len(found) >= self.rounds and time.monotonic() > end:
                break
        calmest = sorted(found)[: self.rounds]
        slower = max(1.0, float(np.median([state for state, _ in calmest])) / self.best())
        return Measurement.of([ms / slower for _, ms in calmest], number)

    def best(self) -> float:
        """What the canary takes at its best, in ms, as far as is known by now."""
        seen = [] if len(self._seen) < _ENOUGH_SEEN and self.best_ms is not None else self._seen
        found = float(np.quantile(seen, _BEST_QUANTILE)) if seen else float("inf")
        return found if self.best_ms is None else min(found, self.best_ms)

    def _look(self) -> float:
        if not self._number:
            self._number = calls_per_round(self.canary, _SHORTEST_MS)
        ms = self.canary(self._number) / self._number * 1e3
        self._seen.append(ms)
        return ms


def calm_rounds(profiles: Sequence[Profile], calm_ms: float | None = None, least: int = 20) -> Profile:
    """Put profiles of one network together and keep the rounds in which the whole was about as fast as it can be.

    Parameters
    ----------
    profiles : sequence of Profile
        Of one network.
    calm_ms : float, optional
        What the network takes when nothing disturbs it; by default the fastest round.
    least : int
        So many rounds are kept in any case, the fastest.
    """
    whole = np.asarray([ms for profile in profiles for ms in profile.whole_ms])
    overhead = min(profile.overhead_ms for profile in profiles)
    samples = [
        np.asarray([ms for profile in profiles for ms in profile.kernels[i].samples_ms])
        for i in range(len(profiles[0].kernels))
    ]
    keep = np.arange(len(samples[0]) if samples else 0)
    if len(whole) == len(keep):
        order = np.argsort(whole, kind="stable")
        limit = (float(whole.min()) if calm_ms is None else calm_ms) * (1 + TOLERANCE)
        keep = order[: max(min(least, len(order)), int((whole <= limit).sum()))]
    kernels = tuple(
        KernelTiming(kernel.name, kernel.key, tuple(float(ms) for ms in values[keep]))
        for kernel, values in zip(profiles[0].kernels, samples, strict=True)
    )
    return Profile(kernels, overhead, tuple(float(ms) for ms in whole[keep]) if len(whole) else ())
