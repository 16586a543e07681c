"""The benchmark of latency estimation: what may be known in each setting, and what its figures mean."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from benchmarks.latency_plot import plot
from benchmarks.latency_scores import (
    AGAIN_SOURCE,
    EVIDENCE_SOURCE,
    PROFILE_SOURCE,
    allowed,
    deadline_sweep,
    noise_floor,
    scores,
    trials_sweep,
)
from cost_models import Calibration, LatencyEstimate
from tests.cost_models.made_up import calibration, true_ms

SUMMARY = (
    *("trns", "profiled_own_mape", "profiled_own_within_10", "analytical_loo_mape", "analytical_loo_within_10"),
    *("coverage_90", "mean_interval_width_pct", "kendall_tau", "noise_floor_mape", "calibration_minutes"),
)

#: The others take long to fit.
NAMES = ("profiled", "analytical", "flops")


@pytest.fixture(scope="module")
def evidence() -> Calibration:
    """Three networks, each profiled whole and measured at three cuts."""
    found = calibration(networks=3)
    cuts = []
    for network in found.networks:
        for length in (13, 26, 33):
            kernels = network.kernels[:length]
            ms = sum(map(true_ms, kernels))
            sample = replace(network, name=f"cut{length}", kernels=kernels, ms=ms, low_ms=ms, high_ms=ms)
            cuts.append(replace(sample, source=EVIDENCE_SOURCE))
            cuts.append(replace(sample, ms=1.02 * ms, high_ms=1.02 * ms, source=AGAIN_SOURCE))
    whole = tuple(replace(n, source=PROFILE_SOURCE) for n in found.networks)
    return replace(found, networks=(*whole, *cuts), minutes=7.0)


def test_the_settings_hide_what_they_say(evidence: Calibration) -> None:
    own = allowed(evidence, "net0", "own")
    mine = [s for s in evidence.samples if s.group == "net0"]
    # All of them, those of the network last: of a workload timed in several networks the last one counts.
    assert list(own.samples) == [s for s in evidence.samples if s.group != "net0"] + mine
    assert [n.source for n in own.networks if n.group == "net0"] == [PROFILE_SOURCE]
    left_out = allowed(evidence, "net0", "leave_one_out")
    assert "net0" not in {n.group for n in left_out.networks} | {s.group for s in left_out.samples}


def test_the_file_has_what_the_readme_quotes(evidence: Calibration) -> None:
    found = scores(evidence, None, NAMES)
    assert tuple(found["summary"]) == SUMMARY
    assert found["summary"]["trns"] == len(found["rows"]) == 9
    assert found["summary"]["noise_floor_mape"] == pytest.approx(2.0)
    assert found["summary"]["calibration_minutes"] == 7.0
    assert found["summary"]["profiled_own_mape"] < 6
    for setting in ("own", "leave_one_out"):
        assert tuple(found["settings"][setting]) == NAMES
        for figures in found["settings"][setting].values():
            assert {"mape", "within_5", "within_10", "coverage_90", "mean_interval_width_pct"} <= set(figures)
            assert figures["us_per_estimate"] > 0
    assert [point["share"] for point in found["learning_curve"]] == [0.125, 0.25, 0.5, 1.0]
    row = found["rows"][0]
    assert (row["network"], row["frontier"]) == ("net0", "cut13")
    low, high = row["own"]["profiled"]["interval_ms"]
    assert low < row["own"]["profiled"]["predicted_ms"] < high
    picture = ElementTree.fromstring(plot(found["rows"]))
    assert len(picture.findall(".//{http://www.w3.org/2000/svg}title")) == 1 + 2 * 9


def test_choosing_by_the_truth_loses_nothing(evidence: Calibration) -> None:
    trns = [n for n in evidence.networks if n.source == EVIDENCE_SOURCE]

    def factor(by: float) -> dict[str, LatencyEstimate]:
        return {f"{n.group}: {n.name}": LatencyEstimate(by * n.ms, 0.0, 9e9) for n in trns}

    right = deadline_sweep(trns, factor(1.0))
    assert (right["choices"], right["violations"], right["mean_flops_lost_pct"]) == (60, 0, 0.0)
    hasty = deadline_sweep(trns, factor(0.5))
    assert hasty["violations"] > 0
    # Who takes a network for half as slow as it is breaks a deadline by its double at most.
    assert 0 < hasty["worst_violation_pct"] <= 100
    slow = deadline_sweep(trns, factor(2.0))
    assert slow["violations"] == 0
    assert slow["mean_flops_lost_pct"] > 10


def test_a_noise_floor_needs_a_second_measurement(evidence: Calibration) -> None:
    assert noise_floor(evidence.networks)["networks"] == 9
    once = [n for n in evidence.networks if n.source != AGAIN_SOURCE]
    assert noise_floor(once) == {"networks": 0, "mape": None}


def test_profiles_with_fewer_trials_predict_the_same_cuts(evidence: Calibration) -> None:
    samples = tuple(replace(s, ms=2 * s.ms) for s in evidence.samples)
    networks = tuple(replace(n, ms=2 * n.ms, high_ms=2 * n.high_ms) for n in evidence.networks)
    slow = replace(evidence, minutes=1.0, samples=samples, networks=networks)
    few, many = trials_sweep(evidence, {32: evidence, 0: slow})
    assert (few["trials"], few["minutes"], few["networks"]) == (0, 1.0, 9)
    assert (many["trials"], many["minutes"]) == (32, 7.0)
    assert few["mape"] > many["mape"]


def test_an_empty_plot_is_a_picture() -> None:
    assert ElementTree.fromstring(plot([])).tag.endswith("svg")
