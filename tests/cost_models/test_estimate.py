"""Estimates: they add, and unknown never turns into a number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models import LatencyEstimate

finite = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@st.composite
def known(draw: st.DrawFn) -> LatencyEstimate:
    low, ms, high = sorted((draw(finite), draw(finite), draw(finite)))
    return LatencyEstimate(ms, low, high, ((draw(st.sampled_from(["measured", "roofline"])), ms),))


@given(known(), known())
def test_sum_adds_ends_and_shares(a: LatencyEstimate, b: LatencyEstimate) -> None:
    total = a + b
    assert total.ms == a.ms + b.ms
    assert total.low_ms == a.low_ms + b.low_ms
    assert total.high_ms == a.high_ms + b.high_ms
    assert sum(share for _, share in total.provenance) == pytest.approx(total.ms)


@given(st.lists(known(), max_size=5), st.integers(0, 5))
def test_one_unknown_part_makes_the_sum_unknown(parts: list[LatencyEstimate], position: int) -> None:
    parts.insert(min(position, len(parts)), LatencyEstimate.unknown("resize|1x3x8x8->1x3x16x16|float32"))
    total = LatencyEstimate.sum(parts)
    assert not total.is_known
    assert math.isnan(total.ms)
    assert total.missing == ("resize|1x3x8x8->1x3x16x16|float32",)


@given(known())
def test_unknown_never_meets_a_deadline(estimate: LatencyEstimate) -> None:
    assert not LatencyEstimate.unknown("k").meets(math.inf)
    assert estimate.meets(estimate.ms)
    assert not estimate.meets(math.nextafter(estimate.ms, -1)) or estimate.ms == 0


def test_each_missing_kernel_is_named_once() -> None:
    total = LatencyEstimate.sum(
        [LatencyEstimate.unknown("a"), LatencyEstimate.unknown("b"), LatencyEstimate.unknown("a")]
    )
    assert total.missing == ("a", "b")
    assert str(total) == "unknown (nothing covers a, b)"


def test_zero_is_neutral() -> None:
    estimate = LatencyEstimate(2.0, 1.5, 2.5, (("measured", 2.0),))
    assert estimate + LatencyEstimate.zero() == estimate
    assert str(estimate) == "2.000 ms [1.500, 2.500] from measured 2.000"


@pytest.mark.parametrize(
    ("low", "mid", "high"), [(1, 0.5, 2), (-1, 0, 1), (0, 3, 2), (0, 1, math.inf), (0, math.nan, 1)]
)
def test_impossible_intervals_are_refused(low: float, mid: float, high: float) -> None:
    with pytest.raises(ValueError, match="0 <= low <= ms <= high < inf"):
        LatencyEstimate(mid, low, high)


def test_unknown_must_say_what_is_missing() -> None:
    with pytest.raises(ValueError, match="at least one kernel"):
        LatencyEstimate.unknown()
