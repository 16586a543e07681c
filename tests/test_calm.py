"""Measuring on a machine that others use as well."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from netcut_fx.backends.base import KernelTiming, Profile
from netcut_fx.calm import CalmWatch, calm_rounds


class Machine:
    """Times that depend on whether somebody else uses the machine in that round."""

    def __init__(self, disturbed: Callable[[int], bool]) -> None:
        self.disturbed, self.calls = disturbed, 0

    def timer(self, ms: float, slowed: float) -> Callable[[int], float]:
        def timed(number: int) -> float:
            self.calls += 1
            return number * ms * (slowed if self.disturbed(self.calls) else 1.0) / 1e3

        return timed


def test_rounds_in_which_others_disturb_do_not_count() -> None:
    # Disturbed four fifths of the time, in stretches: a median would be off by half.
    machine = Machine(lambda call: call > 20 and call % 50 < 40)
    watch = CalmWatch(machine.timer(10.0, 1.2), rounds=9)
    found = watch.measure(machine.timer(20.0, 1.5))
    assert found.ms == pytest.approx(20.0)
    assert found.high_ms == pytest.approx(20.0)
    assert watch.best() == pytest.approx(10.0)


def test_a_machine_that_is_never_calm_is_corrected_for() -> None:
    machine = Machine(lambda call: call > 10)
    watch = CalmWatch(machine.timer(10.0, 1.25), best_ms=10.0, rounds=9, longest_s=0.0)
    assert watch.measure(machine.timer(20.0, 1.25)).ms == pytest.approx(20.0)


def test_what_is_known_from_before_counts() -> None:
    machine = Machine(lambda _: True)
    # Nobody can tell that this is slow,
    assert CalmWatch(machine.timer(10.0, 1.25), longest_s=0.0).measure(machine.timer(20.0, 1.25)).ms == pytest.approx(
        25.0
    )
    # but who has seen better.
    watch = CalmWatch(machine.timer(10.0, 1.25), best_ms=10.0, longest_s=0.0)
    assert watch.measure(machine.timer(20.0, 1.25)).ms == pytest.approx(20.0)
    assert watch.best() == 10.0


def profile(whole: list[float], kernel: list[float]) -> Profile:
    return Profile((KernelTiming("a", "a", tuple(kernel)), KernelTiming("b", "b", tuple(whole))), 0.1, tuple(whole))


def test_calm_rounds_of_profiles() -> None:
    profiles = [profile([10.0, 15.0, 10.2], [1.0, 3.0, 1.1]), profile([14.0, 10.3, 12.0], [2.5, 1.2, 2.0])]
    found = calm_rounds(profiles, least=1)
    assert found.whole_ms == (10.0, 10.2, 10.3)
    assert found.kernels[0].samples_ms == (1.0, 1.1, 1.2)
    assert [k.name for k in found.kernels] == ["a", "b"]
    assert calm_rounds(profiles, calm_ms=14.0, least=1).whole_ms == (10.0, 10.2, 10.3, 12.0, 14.0)
    # Too few calm ones: the fastest.
    assert calm_rounds(profiles, calm_ms=9.0, least=2).whole_ms == (10.0, 10.2)
    assert len(calm_rounds(profiles).whole_ms) == 6


def test_profiles_that_did_not_time_the_whole_keep_all() -> None:
    alone = Profile((KernelTiming("a", "a", (1.0, 2.0)),), 0.5)
    found = calm_rounds([alone, Profile(alone.kernels, 0.2)])
    assert found.kernels[0].samples_ms == (1.0, 2.0, 1.0, 2.0)
    assert (found.overhead_ms, found.whole_ms) == (0.2, ())
    assert np.isfinite(found.kernels[0].samples_ms).all()
