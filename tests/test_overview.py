"""The report over many networks, from a made-up result."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from netcut_fx.exploration.overview import choice_rows, render_overview, write_fronts_svg, write_overview
from netcut_fx.pictures.front_steps import front_steps
from netcut_fx.pictures.svg import decade_ticks, inline


def cut(network: str, name: str, ms: float | None, accuracy: float | None, *, uncut: bool = False) -> dict[str, Any]:
    return {
        "network": network,
        "cut": name,
        "uncut": uncut,
        "measured_ms": ms,
        "predicted_ms": ms,
        "test_accuracy": accuracy,
        "test_low": None if accuracy is None else accuracy - 0.02,
        "test_high": None if accuracy is None else accuracy + 0.02,
        "quick_accuracy": 0.5,
        "validation_accuracy": accuracy,
        "angular_similarity": 0.9,
    }


def result() -> dict[str, Any]:
    """Two networks, one of which failed, and one deadline."""
    whole, trimmed = cut("a<b>", "flatten", 2.0, 0.8, uncut=True), cut("a<b>", "blocks.3", 1.0, 0.9)
    chosen = {
        "winner": trimmed,
        "meets": True,
        "retrained": 1,
        "cpu_seconds": 12.0,
        "gain_pct": 12.5,
        "regret_points": 0.0,
        "speedup": 42.0,
    }
    return {
        "data": "hands.npz",
        "strategies": ["ranked"],
        "networks": [
            {"name": "a<b>", "failed": None, "cuts": [trimmed, whole, cut("a<b>", "blocks.1", 0.5, None)]},
            {"name": "broken", "failed": "survey: no weights", "cuts": []},
        ],
        "deadlines": [
            {
                "deadline_ms": 2.5,
                "off_the_shelf": whole,
                "strategies": {"ranked": chosen},
                "best_known": {"winner": trimmed, "gain_pct": 12.5},
            },
            {"deadline_ms": 0.1, "off_the_shelf": None, "strategies": {"ranked": {"winner": None, "retrained": 0}}},
        ],
        "fronts": {
            "off_the_shelf": [{"network": "a<b>", "cut": "flatten", "ms": 2.0, "test_accuracy": 0.8}],
            "ours": [{"network": "a<b>", "cut": "blocks.3", "ms": 1.0, "test_accuracy": 0.9}],
        },
        "better_and_faster": [{"cut": trimmed, "uncut": whole}],
        "bill": {"by_network": {"a<b>": {"survey_cpu_seconds": 3.0}}, "survey_cpu_seconds": 3.0},
        "failures": [{"network": "a<b>", "cut": "blocks.1", "step": "train", "message": "the head diverged"}],
    }


def test_every_deadline_has_a_row_for_each_strategy() -> None:
    met, none = choice_rows(result())
    assert (met.shelf, met.winner, met.ms, met.gain, met.regret) == (
        "a<b>",
        "a<b> @ blocks.3",
        "1.00",
        "+12.5\u00a0%",
        "0.0",
    )
    assert (met.retrained, met.seconds, met.speedup, met.status) == ("1", "12", "42.0×", "met")
    assert (none.shelf, none.winner, none.gain, none.seconds) == ("none in time", "nothing in time", "–", "unknown")
    assert none.status == "none"


def test_a_better_network_that_another_deadline_wanted_has_a_row() -> None:
    made = result()
    made["deadlines"][0]["best_known"] = {"winner": made["deadlines"][0]["off_the_shelf"], "gain_pct": 0.0}
    chosen, known, _ = choice_rows(made)
    assert (chosen.strategy, known.strategy) == ("ranked", "best known")
    assert (known.winner, known.gain, known.status) == ("a<b>, uncut", "0.0\u00a0%", "met")
    assert (known.retrained, known.seconds, known.speedup) == ("–", "–", "–")


def test_the_page_names_what_failed_and_escapes_every_name() -> None:
    page = render_overview(result())
    assert "a&lt;b&gt;" in page
    assert "a<b>" not in page
    assert "survey: no weights" in page
    assert "the head diverged" in page
    assert "More accurate and faster than uncut" in page
    assert "+12.5 % accuracy at 2.50 ms" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    HTMLParser().feed(page)


def test_equal_results_make_equal_files(tmp_path: Path) -> None:
    first = write_overview(result(), tmp_path / "a.html").read_bytes()
    again = write_overview(json.loads(json.dumps(result())), tmp_path / "b.html").read_bytes()
    assert first == again
    assert write_fronts_svg(result(), tmp_path / "fronts.svg").read_text().startswith("<svg")


def test_the_picture_draws_what_was_trained_and_measured() -> None:
    drawn = inline(front_steps(result()))
    assert drawn.count('class="mark') == 2
    assert "a&lt;b&gt; @ blocks.3" in drawn
    assert "nothing was both retrained and measured" in inline(front_steps({"networks": []}))


def test_a_logarithmic_axis_has_round_ticks() -> None:
    assert decade_ticks(0.08, 12.0) == (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    assert decade_ticks(1.1, 1.6) == pytest.approx((1.1, 1.2, 1.3, 1.4, 1.5, 1.6))


def test_nothing_known_is_unknown_and_no_error() -> None:
    assert "At none of the deadlines" in render_overview({})
