"""The summary of the study, from made-up rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.study_settings import SETTINGS, TINY
from benchmarks.study_summary import (
    details_of,
    extrapolated_speedups,
    interval,
    most_telling,
    portable,
    rounded,
    summary,
    sweep_speedup,
)


def cut(flops: float, seconds: float | None, *, uncut: bool = False) -> dict[str, Any]:
    return {
        "uncut": uncut,
        "kept_flops": flops,
        "train_cpu_seconds": seconds,
        "predicted_ms": flops / 1e6,
        "measured_ms": flops / 2e6,
        "test_accuracy": 0.75,
    }


def row(pool: str, gains: tuple[float | None, ...], *, per_class: int | None = 10) -> dict[str, Any]:
    def chosen(gain: float | None, speedup: float) -> dict[str, Any]:
        return {
            "winner": {
                "network": "a",
                "cut": str(speedup),
                "train_cpu_seconds": 2.5,
                "angular_similarity": 0.6,
                "test_accuracy": 0.9,
            },
            "meets": gain != 3.0,
            "gain_pct": gain,
            "regret_points": 0.5,
            "speedup": speedup,
            "cpu_seconds": 10.0,
        }

    return {
        "pool": pool,
        "train_per_class": per_class,
        "networks": [{"cuts": [cut(1e6, None), cut(2e6, 60.0), cut(4e6, 100.0, uncut=True)]}],
        "deadlines": [
            {
                "deadline_ms": float(i),
                "off_the_shelf": None if g is None else {"angular_similarity": 0.5},
                "strategies": {"ranked": chosen(g, 50.0 + i), "netcut": chosen(g, 5.0)},
                "best_known": {"gain_pct": None if g is None else g + 0.5},
            }
            for i, g in enumerate(gains, start=1)
        ],
        "bill": {"survey_cpu_seconds": 15.0},
        "better_and_faster": [{}],
    }


def test_summary_takes_means_over_seeds_and_spreads_over_deadlines() -> None:
    rows = [row("small", (1.0, 2.0)), row("all", (None, 4.0, 10.0)), row("all", (1.0, 2.0, 20.0))]
    found = summary(rows)
    assert (found["networks"], found["trns"], found["better_and_faster"]) == (1, 2, 2)
    assert (found["max_relative_gain_pct"], found["min_gain_pct_on_sweep"]) == (15.0, 3.0)
    assert (found["max_gain_of_best_known_pct"], found["min_gain_of_best_known_pct"]) == (15.5, 3.5)
    assert (found["max_gain_images_a_class"], found["max_gain_deadline_ms"]) == ("10", 3.0)
    assert found["measured_speedup_small_networks"] == 51.5
    assert found["measured_speedup_of_netcut_strategy_small_networks"] == 5.0
    assert found["exploration_speedup"] == pytest.approx(20.0)
    assert found["regret_points"] == 0.5
    assert found["deadline_violations"] == 0
    assert not any(isinstance(value, dict) for value in found.values())


def test_details_have_seeds_and_spreads() -> None:
    rows = [row("small", (1.0, 2.0)), row("all", (None, 4.0, 10.0)), row("all", (1.0, 2.0, 20.0))]
    found = details_of(rows)
    gains = found["gain_by_images_a_class"]["10"]
    assert (gains["max"]["deadline_ms"], gains["max"]["by_seed_pct"]) == (3.0, [10.0, 20.0])
    assert (gains["seeds"], gains["deadlines"]) == (2, 2)
    # The uncut network takes 2 ms and is right in 75 %, so the first deadline has nothing to compare with.
    strict = found["strict_gain_by_images_a_class"]["10"]
    assert strict["max"]["mean_pct"] == pytest.approx(20.0)
    assert strict["deadlines"] == 2
    assert found["angular_gain_by_images_a_class"]["10"]["max"]["mean_pct"] == pytest.approx(20.0)
    assert found["measured_speedup_small_networks"]["max"] == 52.0


def test_a_whole_sweep_retrains_each_winner_once() -> None:
    assert sweep_speedup(row("all", (1.0, 1.0))) == pytest.approx(200 / (15 + 2 * 2.5))
    assert sweep_speedup(row("all", ())) is None


def test_the_picture_is_of_the_row_with_the_largest_gain() -> None:
    rows = [row("small", (9.0,)), row("all", (1.0, None)), row("all", (0.0, 4.0)), row("all", (None,))]
    assert most_telling(rows) is rows[2]
    assert most_telling(rows[:1]) is rows[0]


def test_result_files_hold_no_path_of_the_machine() -> None:
    made = {"a": ["/x/project/nets.py:f", 1.0], "b": "/x/shared/w.pt", "c": "/y/z"}
    found = portable(made, Path("/x/project"))
    assert found == {"a": ["nets.py:f", 1.0], "b": "../shared/w.pt", "c": "/y/z"}


def test_an_interval_needs_two_seeds() -> None:
    assert interval([3.0]) is None
    # Student's 97.5 % quantile with one degree of freedom is 12.706; the standard error of (10, 20) is 5.
    assert interval([10.0, 20.0]) == pytest.approx([15 - 5 * 12.706, 15 + 5 * 12.706], abs=1e-2)


def test_what_was_not_trained_is_priced_by_its_operations() -> None:
    assert extrapolated_speedups(row("all", (1.0,)), "ranked") == [pytest.approx((15 + 25 + 60 + 100) / 10)]


def test_deadlines_that_no_uncut_network_meets_can_be_left_out() -> None:
    made = row("all", (None, 1.0))
    assert len(extrapolated_speedups(made, "ranked")) == 2
    assert len(extrapolated_speedups(made, "netcut", shelf_only=True)) == 1


def test_the_published_strategy_is_priced_by_what_the_predictions_make_it_retrain() -> None:
    found = extrapolated_speedups(row("all", (1.0, 1.0, 1.0, 1.0)), "netcut")
    assert found == [pytest.approx(200 / (15 + price)) for price in (25, 60, 60, 100)]


def test_a_missed_deadline_is_counted_and_floats_are_shortened() -> None:
    assert summary([row("all", (3.0,))])["deadline_violations"] == 1
    assert rounded({"a": [1 / 3, 2, "x", True, None]}) == {"a": [0.333333, 2, "x", True, None]}


def test_settings_have_names_of_their_own_and_seeds_share_a_recipe() -> None:
    names = [s.name for s in (*SETTINGS, *TINY)]
    assert len(set(names)) == len(names)
    assert len({s.recipe for s in SETTINGS if s.train_per_class is not None}) == 1
