"""The stopwatch: the protocol is kept, statistics are right; no test depends on how fast this machine is."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from netcut_fx.errors import NetcutError
from netcut_fx.measure import Measurement, Stopwatch, python_timer


class FakeClock:
    """A timer on which each call takes what the script says, in seconds."""

    def __init__(self, seconds: list[float] | float) -> None:
        self.script = seconds
        self.calls: list[int] = []

    def __call__(self, number: int) -> float:
        self.calls.append(number)
        each = (
            self.script if isinstance(self.script, float) else self.script[min(len(self.calls), len(self.script)) - 1]
        )
        return each * number


def test_warms_up_then_takes_rounds_that_last_long_enough() -> None:
    clock = FakeClock(0.002)
    measured = Stopwatch(warmup=3, repeat=5, number=1, min_repeat_ms=20).measure_timer(clock)
    assert clock.calls[0] == 3
    assert measured.number >= 10
    assert clock.calls[-5:] == [measured.number] * 5
    assert measured.ms == pytest.approx(2.0)
    assert measured.rounds == 5


def test_a_slow_call_is_one_per_round() -> None:
    clock = FakeClock(1.0)
    assert Stopwatch(warmup=1, repeat=3).measure_timer(clock).number == 1


def test_candidates_are_timed_in_turn() -> None:
    order: list[str] = []

    class Recorded(FakeClock):
        def __init__(self, name: str, seconds: float) -> None:
            super().__init__(seconds)
            self.name = name

        def __call__(self, number: int) -> float:
            order.append(self.name)
            return super().__call__(number)

    a, b = Stopwatch(warmup=1, repeat=4).measure_interleaved([Recorded("a", 0.5), Recorded("b", 1.0)])
    assert order[-8:] == ["a", "b"] * 4
    assert b.ms / a.ms == pytest.approx(2.0)


def test_median_interval_and_extremes() -> None:
    measured = Measurement.of([float(i) for i in range(1, 102)])
    assert measured.ms == 51.0
    assert (measured.min_ms, measured.max_ms) == (1.0, 101.0)
    assert (measured.low_ms, measured.high_ms) == (41.0, 61.0)
    assert Measurement.from_json(measured.to_json()) == measured
    assert str(Measurement.of([2.0])) == "2.000 ms [2.000, 2.000] (1 rounds of 1)"


@pytest.mark.parametrize(
    ("rounds", "low", "high"), [(1, 1, 1), (5, 1, 5), (6, 1, 6), (9, 2, 8), (15, 4, 12), (21, 6, 16)]
)
def test_the_interval_of_the_median_is_symmetric(rounds: int, low: int, high: int) -> None:
    measured = Measurement.of([float(i) for i in range(rounds, 0, -1)])
    assert (measured.low_ms, measured.high_ms) == (low, high)


@pytest.mark.parametrize("rounds", range(6, 120))
def test_the_interval_is_the_narrowest_that_covers_the_median_with_95_percent(rounds: int) -> None:
    measured = Measurement.of([float(i + 1) for i in range(rounds)])
    below, above = int(measured.low_ms) - 1, rounds - int(measured.high_ms)
    assert below == above
    # scipy's binomial distribution as the oracle: the median is missed where at most `below` samples are on one side.
    assert 2 * binom.cdf(below, rounds, 0.5) <= 0.05
    assert 2 * binom.cdf(below + 1, rounds, 0.5) > 0.05


@pytest.mark.parametrize("samples", [[], [0.0], [float("nan")], [1.0, -1.0]])
def test_impossible_samples_are_refused(samples: list[float]) -> None:
    with pytest.raises(NetcutError, match="must be positive and finite"):
        Measurement.of(samples)


def test_python_timer_makes_every_call() -> None:
    calls: list[int] = []
    assert python_timer(lambda: calls.append(1))(7) > 0
    assert len(calls) == 7
