"""Choosing under a deadline."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models import LatencyEstimate
from netcut_fx.decision import Validated, choose, rank_retrained
from netcut_fx.errors import DeadlineUnmet, SpecError
from netcut_fx.evaluate import Accuracy


def about(ms: float, spread: float = 0.1) -> LatencyEstimate:
    return LatencyEstimate(ms, ms * (1 - spread), ms * (1 + spread), (("measured", ms),))


ESTIMATES = {
    "a": about(1.0),
    "b": about(2.0),
    "c": about(2.95),
    "d": about(4.0),
    "e": LatencyEstimate.unknown("resize"),
}
ACCURACIES = {name: Accuracy(correct, 100) for name, correct in zip("abcde", (50, 80, 80, 90, 99), strict=True)}


def test_every_candidate_is_judged_with_a_reason() -> None:
    decision = choose(ESTIMATES, ACCURACIES, 3.0, shortlist=2)
    verdicts = {j.name: j.verdict for j in decision.judgements}
    assert verdicts == {"a": "feasible", "b": "feasible", "c": "feasible", "d": "infeasible", "e": "unknown"}
    reasons = {j.name: j.reason for j in decision.judgements}
    assert reasons["a"] == "predicted 1.000 ms leaves 66.7% slack; quick accuracy 50.0%, rank 3 of 3"
    assert "its interval crosses the deadline" in reasons["c"]
    assert reasons["d"] == "predicted 4.000 ms, 33.3% over the deadline"
    assert reasons["e"] == "no measurement or model covers resize"
    assert "its interval reaches below" in choose(ESTIMATES, ACCURACIES, 3.9).judgements[3].reason


def test_most_accurate_first_and_the_faster_of_equals() -> None:
    decision = choose(ESTIMATES, ACCURACIES, 3.0, shortlist=2)
    assert decision.shortlist == ("b", "c")
    assert decision.reserve == ("a",)
    assert [j.name for j in decision.judgements if j.shortlisted] == ["b", "c"]
    assert str(decision).splitlines()[0] == "deadline 3.000 ms"
    assert str(decision).splitlines()[2].startswith("* b  feasible")


def test_an_impossible_deadline_names_the_smallest_reachable() -> None:
    with pytest.raises(
        DeadlineUnmet, match=r"no trimmed network meets 0\.5 ms: the smallest, cut at a, .* 1\.000 ms .1 cand"
    ):
        choose(ESTIMATES, ACCURACIES, 0.5)


def test_only_unknown_candidates_are_no_choice() -> None:
    with pytest.raises(DeadlineUnmet, match="no candidate has a known latency"):
        choose({"e": ESTIMATES["e"]}, ACCURACIES, 1e9)


@pytest.mark.parametrize("deadline_ms", [0.0, -1.0, math.nan, math.inf])
def test_senseless_deadlines_are_refused(deadline_ms: float) -> None:
    with pytest.raises(SpecError, match="must be a positive number of milliseconds"):
        choose(ESTIMATES, ACCURACIES, deadline_ms)


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.floats(0.01, 100)), st.integers(0, 100)), min_size=1, max_size=12),
    st.floats(0.01, 100),
    st.integers(1, 4),
)
def test_what_is_taken_is_feasible_and_nothing_feasible_is_better(
    rows: list[tuple[float | None, int]], deadline_ms: float, shortlist: int
) -> None:
    estimates = {str(i): LatencyEstimate.unknown("k") if ms is None else about(ms) for i, (ms, _) in enumerate(rows)}
    accuracies = {str(i): Accuracy(correct, 100) for i, (_, correct) in enumerate(rows)}
    feasible = {name for name, e in estimates.items() if e.is_known and e.ms <= deadline_ms}
    if not feasible:
        with pytest.raises(DeadlineUnmet):
            choose(estimates, accuracies, deadline_ms, shortlist=shortlist)
        return
    decision = choose(estimates, accuracies, deadline_ms, shortlist=shortlist)
    assert set(decision.shortlist) | set(decision.reserve) == feasible
    assert len(decision.shortlist) == min(shortlist, len(feasible))
    worst_taken = min(accuracies[name].value for name in decision.shortlist)
    assert all(accuracies[name].value <= worst_taken for name in decision.reserve)


def test_retrained_candidates_within_one_standard_error_are_told_apart_by_loss() -> None:
    candidates = {
        "most_correct": Validated(Accuracy(351, 359), 0.193, 1.7),
        "lower_loss": Validated(Accuracy(350, 359), 0.181, 2.0),
        "clearly_worse": Validated(Accuracy(330, 359), 0.010, 1.0),
        "worse_still": Validated(Accuracy(320, 359), 0.005, 1.0),
    }
    assert rank_retrained(candidates) == ("lower_loss", "most_correct", "clearly_worse", "worse_still")


def test_at_equal_validation_the_faster_comes_first() -> None:
    candidates = {name: Validated(Accuracy(50, 100), 0.5, ms) for name, ms in (("slow", 2.0), ("fast", 1.0))}
    assert rank_retrained(candidates) == ("fast", "slow")
