"""Estimators of whole networks on a made-up processor whose true cost is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cost_models import (
    ESTIMATORS,
    Calibration,
    CalibrationError,
    Estimator,
    FirstKnown,
    Kernel,
    KernelSample,
    LatencyEstimate,
    ProfiledModel,
    accuracy_of,
    fit_estimator,
    kernel_key,
    merge_rounds,
)
from tests.cost_models.made_up import calibration, convolution, elementwise, network, opaque, true_ms

#: Largest mean error in per cent on networks never seen, and kernels 5 % off.
MAPE = {"profiled": 8, "analytical": 8, "gbdt": 8, "svr": 15, "linear": 60, "flops": 100}


@pytest.fixture(scope="module")
def evidence() -> Calibration:
    return calibration(networks=16)


def test_key_ignores_argument_order_and_origin() -> None:
    shapes = ((1, 8, 4, 4), (8, 8, 1, 1))
    one = Kernel("conv2d", ("conv2d",), shapes, ((1, 8, 4, 4),), "float32", 1, 1, ("a",))
    other = Kernel("conv2d", ("conv2d",), shapes[::-1], ((1, 8, 4, 4),), "float32", 1, 1, ("b",))
    assert one.key == other.key == "conv2d|1x8x4x4,8x8x1x1->1x8x4x4|float32"
    assert kernel_key(("add",), ((),), ((2,),), "float32") == "add|scalar->2|float32"
    assert replace(one, detail="dilation 2x2").key == f"{one.key}|dilation 2x2"


def test_profiled_returns_the_measured_time_and_only_that() -> None:
    measured, other = elementwise(8, 8), elementwise(8, 16)
    model = ProfiledModel([KernelSample.of(measured, [1.0, 2.0, 3.0])])
    estimate = model.predict(measured)
    assert (estimate.ms, estimate.provenance) == (2.0, (("measured", 2.0),))
    assert estimate.low_ms == pytest.approx(1.1)
    assert estimate.high_ms == pytest.approx(2.9)
    assert model.predict(other).missing == (other.key,)
    assert measured.key in model
    assert len(model) == 1


def test_rounds_of_equal_workloads_are_merged() -> None:
    (sample,) = merge_rounds([(elementwise(8, 8), [1.0, 1.0]), (elementwise(8, 8), [3.0, 3.0])], "net")
    assert (sample.ms, sample.rounds, sample.group) == (2.0, 4, "net")


@pytest.mark.parametrize("times", [[], [0.0], [float("nan")], [-1.0], [1.0, float("inf")]])
def test_impossible_times_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        KernelSample.of(elementwise(8, 8), times)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_networks_never_seen_are_predicted(name: str, evidence: Calibration) -> None:
    estimator = fit_estimator(name, evidence)
    networks = [network(seed) for seed in range(5000, 5030)]
    estimates = [estimator.estimate(kernels) for kernels in networks]
    found = accuracy_of(estimates, [sum(map(true_ms, kernels)) for kernels in networks])
    assert found["unknown"] == 0
    assert found["mape"] < MAPE[name]
    assert found["coverage_90"] >= 0.75
    for estimate in estimates:
        assert sum(share for _, share in estimate.provenance) == pytest.approx(estimate.ms)
        assert estimate.coverage == 0.9
        assert estimate.notes[0] == "90% interval from conformal over 16 measured networks"


def test_a_profiled_network_is_predicted_from_its_own_kernels(evidence: Calibration) -> None:
    estimator = fit_estimator("profiled", evidence)
    estimates = [estimator.estimate(n.kernels[:20]) for n in evidence.networks]
    assert all(dict(e.provenance).keys() <= {"measured", "overhead", "caches"} for e in estimates)
    found = accuracy_of(estimates, [sum(map(true_ms, n.kernels[:20])) for n in evidence.networks])
    assert found["mape"] < 4
    assert found["kendall_tau"] > 0.9
    assert found["mean_interval_width_pct"] < 25


@pytest.mark.parametrize("name", ESTIMATORS)
def test_what_no_model_covers_is_unknown_and_named(name: str, evidence: Calibration) -> None:
    kernel = opaque()
    estimate = fit_estimator(name, evidence).estimate([elementwise(14, 64), kernel, kernel])
    assert estimate.missing == (kernel.key,)
    assert not estimate.meets(math.inf)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_without_evidence_everything_is_unknown(name: str) -> None:
    kernel = elementwise(8, 8)
    estimator = fit_estimator(name, Calibration("f" * 64, ()))
    assert estimator.estimate([kernel]).missing == (kernel.key,)
    assert estimator.estimate([]) == LatencyEstimate.zero()


@pytest.mark.parametrize("name", ["svr", "gbdt", "linear", "flops"])
def test_an_unseen_kind_is_unknown_to_what_only_learns(name: str, evidence: Calibration) -> None:
    grouped = replace(convolution("conv2d", 14, 32, 32), kind="grouped_conv2d")
    assert fit_estimator(name, evidence).estimate([grouped]).missing == (grouped.key,)


def test_an_unseen_kind_borrows_from_its_family_and_says_so(evidence: Calibration) -> None:
    grouped = replace(convolution("conv2d", 14, 32, 32), kind="grouped_conv2d")
    estimate = fit_estimator("analytical", evidence).estimate([grouped])
    seen = fit_estimator("analytical", evidence).estimate([convolution("conv2d", 14, 32, 32)])
    assert estimate.notes[1:] == ("no grouped_conv2d was measured",)
    assert estimate.high_ms / estimate.low_ms > seen.high_ms / seen.low_ms
    only_light = Calibration("f" * 64, tuple(s for s in evidence.samples if s.kind == "elementwise"))
    assert fit_estimator("analytical", only_light).estimate([grouped]).missing == (grouped.key,)


def test_outside_the_measured_shapes_models_refuse_or_widen(evidence: Calibration) -> None:
    far, near = convolution("conv2d", 224, 2048, 2048), convolution("conv2d", 28, 64, 64)
    for name in ("svr", "gbdt"):
        assert fit_estimator(name, evidence).estimate([far]).missing == (far.key,)
    estimator = fit_estimator("analytical", evidence)
    wide, usual = estimator.estimate([far]), estimator.estimate([near])
    assert wide.high_ms / wide.low_ms > usual.high_ms / usual.low_ms
    assert "conv2d 3x3 beyond what was measured by a factor of" in wide.notes[1]


def test_measured_comes_before_modelled_and_nothing_is_free() -> None:
    measured, other = elementwise(8, 8), elementwise(8, 16)
    samples = (KernelSample.of(measured, [5.0]),)
    estimator = fit_estimator("profiled", Calibration("f" * 64, samples, 0.5))
    shares = dict(estimator.estimate([measured, other]).provenance)
    assert shares["measured"] == pytest.approx(5.0)
    assert shares["overhead"] == pytest.approx(1.0)
    assert sum(ms for source, ms in shares.items() if source.startswith("analytical")) > 0


def test_an_estimator_can_be_put_together_by_hand() -> None:
    samples = [KernelSample.of(elementwise(8, 8), [5.0])]
    estimate = Estimator("own", FirstKnown((ProfiledModel(samples),))).estimate([elementwise(8, 8)])
    assert estimate.ms == 5.0
    assert estimate.low_ms < 4.7
    assert estimate.high_ms > 5.3
    assert estimate.notes == ("90% interval from an assumed spread and 0 measured networks",)


def test_an_unknown_name_is_refused(evidence: Calibration) -> None:
    with pytest.raises(CalibrationError, match=r"^there is no estimator 'magic'; choose one of profiled, analytical, "):
        fit_estimator("magic", evidence)


def test_accuracy_counts_the_unknown_as_missed() -> None:
    known = LatencyEstimate(1.0, 0.9, 1.1)
    found = accuracy_of([known, known, LatencyEstimate.unknown("k")], [1.04, 1.2, 1.0])
    assert (found["networks"], found["unknown"]) == (3, 1)
    assert found["mape"] == pytest.approx(100 * (0.04 / 1.04 + 0.2 / 1.2) / 2)
    assert (found["within_5"], found["within_10"], found["coverage_90"]) == tuple(
        pytest.approx(1 / 3) for _ in range(3)
    )
    assert "p95_abs_pct" not in found
    assert accuracy_of([LatencyEstimate.unknown("k")], [1.0]) == {"networks": 1, "unknown": 1}
    assert accuracy_of([known] * 20, list(np.linspace(1, 2, 20)))["p95_abs_pct"] > 0
