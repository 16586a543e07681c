"""The three strategies on made-up facts: no network, no clock."""

from __future__ import annotations

import pytest

from cost_models import LatencyEstimate
from netcut_fx.evaluate import Accuracy
from netcut_fx.exploration.deadlines import just_below_uncut, sweep_of
from netcut_fx.exploration.facts import Candidate, Facts, Failure, Key, Trained
from netcut_fx.exploration.options import Strategy
from netcut_fx.exploration.strategies import Choice, Steps, choose, netcut_picks, next_steps, off_the_shelf
from netcut_fx.measure import Measurement

A1, A2, A3 = ("a", "1"), ("a", "2"), ("a", "3")
B1, B2 = ("b", "1"), ("b", "2")
#: ms, correct quick answers of 100, correct answers of 100 once retrained.
TABLE: dict[Key, tuple[float, int, int]] = {
    A1: (1.0, 50, 70),
    A2: (2.0, 80, 90),
    A3: (3.0, 70, 92),
    B1: (1.5, 60, 85),
    B2: (4.0, 90, 95),
}


def facts() -> Facts:
    """Networks a (cuts 1, 2 and uncut 3) and b (cut 1 and uncut 2), surveyed and estimated."""
    found = Facts()
    for key, (ms, quick, _) in TABLE.items():
        found.candidates[key] = Candidate(*key, key in (A3, B2), ms * 1e6, 1e3, Accuracy(quick, 100))
        found.estimates[key] = LatencyEstimate(ms, 0.9 * ms, 1.1 * ms)
    return found


def answer(found: Facts, steps: Steps, slower: dict[Key, float] | None = None) -> None:
    """Do what is wanted: measurements are the estimates times `slower`."""
    for key in steps.measure:
        found.measured[key] = Measurement.of([TABLE[key][0] * (slower or {}).get(key, 1.0)])
    for key in steps.train:
        accuracy = Accuracy(TABLE[key][2], 100)
        found.trained[key] = Trained(accuracy, accuracy, 1 - accuracy.value, 0.9, 1.0, 1.0)


def settled(
    strategy: Strategy, deadline_ms: float, slower: dict[Key, float] | None = None, shortlist: int = 1
) -> Choice:
    found = facts()
    for _ in range(20):
        steps = next_steps(strategy, found, deadline_ms, shortlist)
        if steps == Steps():
            return choose(strategy, found, deadline_ms, shortlist)
        answer(found, steps, slower)
    raise AssertionError("never settles")


def test_netcut_takes_the_deepest_cut_of_each_network_whose_estimate_meets_the_deadline() -> None:
    assert netcut_picks(facts(), 2.5) == [A2, B1]
    assert netcut_picks(facts(), 1.2) == [A1]
    assert netcut_picks(facts(), 0.5) == []
    assert settled("netcut", 2.5) == Choice(A2, (A2, B1))


def test_netcut_as_published_keeps_a_winner_whose_measurement_breaks_the_deadline() -> None:
    assert settled("netcut", 2.5, {A2: 1.5}).winner == A2


def test_the_potential_of_a_cut_is_the_best_quick_accuracy_in_its_trunk() -> None:
    found = facts()
    assert [found.potential(found.candidates[k]) for k in TABLE] == [0.5, 0.8, 0.8, 0.6, 0.9]


def test_ranked_retrains_only_the_first_by_potential_and_of_equal_cuts_the_deepest() -> None:
    assert settled("ranked", 3.5) == Choice(A3, (A3,))
    assert settled("ranked", 2.5) == Choice(A2, (A2,))
    assert settled("ranked", 1.6) == Choice(B1, (B1,))
    assert settled("ranked", 3.5, shortlist=2) == Choice(A3, (A3, A2))


def test_ranked_goes_on_to_the_next_where_a_measurement_refutes_the_estimate() -> None:
    assert settled("ranked", 2.5, {A2: 1.5}) == Choice(B1, (B1,))
    assert settled("ranked", 1.2, {A1: 1.5}) == Choice(None, ())


def test_exhaustive_trains_and_measures_everything() -> None:
    assert settled("exhaustive", 3.5) == Choice(A3, tuple(TABLE))
    assert settled("exhaustive", 10.0, {B2: 3.0}).winner == A3


def test_unknown_latency_never_meets_a_deadline() -> None:
    found = facts()
    found.estimates[A2] = LatencyEstimate.unknown("conv")
    assert netcut_picks(found, 2.5) == [A1, B1]
    assert next_steps("ranked", found, 2.5, 1).measure == (B1,)


def test_what_failed_is_left_out() -> None:
    found = facts()
    found.failures = [Failure("b", "", "time", "x"), Failure("a", "2", "train", "x")]
    assert netcut_picks(found, 10.0) == [A3]
    assert next_steps("exhaustive", found, 10.0, 1).train == (A1, A3)


def test_off_the_shelf_is_the_best_uncut_network_in_time() -> None:
    found = facts()
    answer(found, Steps((A3, B2), (A3, B2)))
    assert off_the_shelf(found, 5.0) == B2
    assert off_the_shelf(found, 3.5) == A3
    assert off_the_shelf(found, 2.0) is None


def test_a_sweep_reaches_from_the_fastest_cut_to_the_slowest_network() -> None:
    found = facts()
    answer(found, Steps((A3, B2)))
    sweep = sweep_of(found, 3)
    assert sweep == pytest.approx((1.05, 2.1, 4.2))
    found.failures = [Failure("b", "", "train", "x")]
    assert max(sweep_of(found, 3)) < 4.2


def test_just_below_an_uncut_network_the_next_one_takes_its_place() -> None:
    found = facts()
    answer(found, Steps((A3, B2), (A3, B2)))
    below = just_below_uncut(found)
    assert below == pytest.approx([0.98 * found.measured[key].ms for key in (A3, B2)], rel=5e-3)
    assert [off_the_shelf(found, ms) for ms in below] == [None, A3]
