"""The only stopwatch: warm-up, then `repeat` rounds of `number` calls each, median and spread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from netcut_fx.errors import NetcutError

#: Runs `number` calls and returns the seconds they took together.
Timer = Callable[[int], float]


@dataclass(frozen=True)
class Stopwatch:
    """How to measure.

    Parameters
    ----------
    warmup : int
        Calls before the clock starts.
    repeat : int
        Rounds; each gives one sample, the mean over its calls.
    number : int
        Calls in a round; raised until a round lasts `min_repeat_ms`.
    min_repeat_ms : float
        Shortest round that the clock can be trusted with.
    """

    warmup: int = 3
    repeat: int = 15
    number: int = 1
    min_repeat_ms: float = 20.0

    def measure(self, call: Callable[[], object]) -> Measurement:
        """Measure `call`, timed from Python."""
        return self.measure_timer(python_timer(call))

    def measure_timer(self, timer: Timer) -> Measurement:
        """Measure through `timer`, which may loop below Python."""
        return self.measure_interleaved([timer])[0]

    def measure_interleaved(self, timers: Sequence[Timer]) -> list[Measurement]:
        """Measure several candidates in turn, A B C A B C ..., so that drift of the clock hits all of them alike."""
        numbers = [self._calls_per_round(timer) for timer in timers]
        samples: list[list[float]] = [[] for _ in timers]
        for _ in range(self.repeat):
            for i, timer in enumerate(timers):
                samples[i].append(timer(numbers[i]) / numbers[i] * 1e3)
        return [Measurement.of(s, number) for s, number in zip(samples, numbers, strict=True)]

    def _calls_per_round(self, timer: Timer) -> int:
        return calls_per_round(timer, self.min_repeat_ms, warmup=self.warmup, least=self.number)


def calls_per_round(timer: Timer, min_repeat_ms: float, *, warmup: int = 3, least: int = 1) -> int:
    """How many calls last `min_repeat_ms`, at least `least`, after some to warm up."""
    timer(max(1, warmup))
    number = max(1, least)
    while (seconds := timer(number)) * 1e3 < min_repeat_ms and number < 1_000_000:
        growth = min_repeat_ms / max(seconds * 1e3, 1e-4)
        number = max(number + 1, math.ceil(number * min(growth * 1.1, 100.0)))
    return number


@dataclass(frozen=True)
class Measurement:
    """Latency of one call.

    Parameters
    ----------
    ms : float
        Median over the rounds.
    low_ms, high_ms : float
        Confidence interval of the median from order statistics: the narrowest symmetric pair of ranks that covers it
        with at least 95 % by the binomial distribution, no normality assumed. Fewer than 6 rounds cannot give that
        much; then it is the extremes.
    min_ms, max_ms : float
        Extremes of the rounds.
    rounds, number : int
        Samples, and calls in each.
    """

    ms: float
    low_ms: float
    high_ms: float
    min_ms: float
    max_ms: float
    rounds: int
    number: int

    @classmethod
    def of(cls, samples_ms: Sequence[float], number: int = 1) -> Measurement:
        """Summarise the rounds' mean latencies.

        Raises
        ------
        NetcutError
            For no samples, or samples that are not positive and finite.
        """
        values = np.sort(np.asarray(samples_ms, dtype=np.float64))
        if values.size == 0 or not np.isfinite(values).all() or values[0] <= 0:
            raise NetcutError(
                f"measured latencies must be positive and finite, got {list(samples_ms)[:5]}; measure again"
            )
        low = _left_out_at_each_end(values.size)
        high = values.size - 1 - low
        return cls(
            float(np.median(values)),
            float(values[low]),
            float(values[high]),
            float(values[0]),
            float(values[-1]),
            int(values.size),
            number,
        )

    def to_json(self) -> dict[str, float | int]:
        """As a JSON object."""
        return dict(self.__dict__)

    @classmethod
    def from_json(cls, data: dict[str, float]) -> Measurement:
        """Read what `to_json` wrote."""
        return cls(
            *(float(data[k]) for k in ("ms", "low_ms", "high_ms", "min_ms", "max_ms")),
            rounds=int(data["rounds"]),
            number=int(data["number"]),
        )

    def __str__(self) -> str:
        return f"{self.ms:.3f} ms [{self.low_ms:.3f}, {self.high_ms:.3f}] ({self.rounds} rounds of {self.number})"


def _left_out_at_each_end(rounds: int) -> int:
    """How many samples lie outside each end of the median's interval: the largest k with P <= 2.5 %, at least 0.

    The true median lies below sample k of the sorted ones, counted from 0, where at most k samples are smaller than it:
    P = P(Binomial(rounds, 1/2) <= k), here in whole numbers.
    """
    left_out, events = 0, 1
    while 40 * (events := events + math.comb(rounds, left_out + 1)) <= 2**rounds:
        left_out += 1
    return left_out


def python_timer(call: Callable[[], object]) -> Timer:
    """A timer that loops over `call` in Python."""

    def run(number: int) -> float:
        start = time.perf_counter()
        for _ in range(number):
            call()
        return time.perf_counter() - start

    return run
