"""Parts of the estimators: the roofline, what lies between kernels, intervals, hulls."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cost_models import Band, Between, Kernel, ModelledKernels
from cost_models.between import NetworkTotals
from cost_models.conformal import FLOOR, difficulty
from cost_models.features import (
    LOG_FEATURES,
    REORDERED,
    WINOGRAD,
    KernelFacts,
    log_features,
    model_kind,
    remainder_columns,
)
from cost_models.hull import Hull
from cost_models.residual import fit_residual
from tests.cost_models.made_up import MACHINE, calibration, convolution, elementwise, network, product, true_ms


@pytest.fixture(scope="module")
def analytical() -> ModelledKernels:
    found = ModelledKernels.fit("analytical", calibration(noise=0.0).samples, MACHINE)
    assert found is not None
    return found


def label(model: ModelledKernels, *kernels: object) -> list[str]:
    return [e.provenance[0][0] for e in model.predict_all(kernels)]  # type: ignore[arg-type]


def test_the_roofline_is_found_again(analytical: ModelledKernels) -> None:
    kernels = network(4242, calls=200)
    errors = [math.log(e.ms / true_ms(k)) for e, k in zip(analytical.predict_all(kernels), kernels, strict=True)]
    assert np.median(np.abs(errors)) < 0.08


def test_it_says_which_term_binds(analytical: ModelledKernels) -> None:
    found = label(analytical, convolution("conv2d", 28, 128, 128), elementwise(56, 300), elementwise(7, 8))
    assert found == ["analytical: compute", "analytical: L3", "analytical: overhead"]


def test_channels_that_fill_no_vector_cost_more(analytical: ModelledKernels) -> None:
    full, tail = (analytical.predict(convolution("pointwise_conv2d", 28, 64, c)).ms for c in (16, 17))
    assert tail / full > 1.15


def test_spreads_are_those_of_kernels_left_out() -> None:
    calm, rough = (
        ModelledKernels.fit("analytical", calibration(noise=noise).samples, MACHINE) for noise in (0.02, 0.3)
    )
    assert calm is not None
    assert rough is not None
    assert calm.pooled < rough.pooled
    assert 0.3 < rough.pooled < 0.9


def test_facts_tell_weights_from_activations() -> None:
    facts = KernelFacts.of(convolution("conv2d", 8, 4, 16))
    assert (facts.channels, facts.pixels, facts.ops) == (16, 64, 3)
    assert facts.weight_bytes == pytest.approx(4 * 16 * 4 * 9)
    assert facts.reduction == 2 * 4 * 9 + 3
    tokens = KernelFacts.of(product(10, 20, 30))
    assert (tokens.channels, tokens.pixels, tokens.weight_bytes) == (20, 10, pytest.approx(4 * 600))
    assert log_features([facts, tokens]).shape == (2, len(LOG_FEATURES))


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        (convolution("conv2d", 28, 64, 64), WINOGRAD),
        (convolution("conv2d", 28, 3, 64), "conv2d"),
        (convolution("conv2d", 28, 24, 64), "conv2d"),
        (convolution("conv2d", 28, 64, 64, window=5), "conv2d"),
        (replace(convolution("conv2d", 28, 64, 64), output_shapes=((1, 64, 26, 26),)), WINOGRAD),
        (replace(convolution("conv2d", 28, 64, 64), output_shapes=((1, 64, 14, 14),)), "conv2d"),
        (replace(convolution("conv2d", 4, 64, 64), output_shapes=((1, 64, 2, 2),)), "conv2d"),
        (replace(convolution("conv2d", 28, 64, 64), detail="dilation 2x2"), "conv2d"),
        (convolution("depthwise_conv2d", 28, 64, 64), "depthwise_conv2d"),
        (elementwise(28, 64), "elementwise"),
        (replace(elementwise(28, 64), ops=("relu", "reshape", "transpose")), REORDERED),
    ],
)
def test_what_runs_at_another_rate_is_a_kind_of_its_own(kernel: Kernel, kind: str) -> None:
    assert model_kind(kernel) == KernelFacts.of(kernel).kind == kind


@pytest.mark.parametrize(
    ("channels", "lanes", "share"),
    [
        (64, 16, 1.0),
        (8, 16, 0.5),  # a vector of eight
        (24, 16, 0.5),  # three vectors of eight
        (60, 16, 60 / 64),  # filled up: four more are little
        (23, 16, 23 / 32),  # no shorter vector cuts them evenly
        (4, 16, 0.25),
        (12, 8, 0.5),
        (2, 8, 0.25),  # filled up: vectors of two are not made
    ],
)
def test_lanes_that_do_work(channels: int, lanes: int, share: float) -> None:
    facts = KernelFacts.of(convolution("conv2d", 28, 16, channels))
    assert remainder_columns([facts], lanes).tolist() == [[pytest.approx(share)]]


@pytest.mark.parametrize(("groups", "share"), [(2, 1.0), (4, 1.0), (8, 0.5), (32, 1 / 16)])
def test_vectors_end_where_groups_do(groups: int, share: float) -> None:
    dense = convolution("conv2d", 28, 64, 64)
    weight = (64, 64 // groups, 3, 3)
    grouped = replace(dense, kind="grouped_conv2d", input_shapes=(dense.input_shapes[0], weight))
    facts = KernelFacts.of(grouped)
    assert facts.unbroken == 64 // groups
    assert remainder_columns([facts], 16).tolist() == [[share]]


def test_a_hull_measures_in_factors_of_two() -> None:
    hull = Hull.of([KernelFacts.of(elementwise(8, c)) for c in (8, 64)])
    asked = [elementwise(8, 16), elementwise(8, 256), convolution("conv2d", 8, 8, 8)]
    assert hull.distances([KernelFacts.of(k) for k in asked]).tolist() == [0.0, pytest.approx(2.0), math.inf]


def test_what_lies_between_kernels_is_found() -> None:
    generator = np.random.default_rng(0)
    networks = []
    for _ in range(40):
        totals = NetworkTotals(generator.uniform(2, 20), int(generator.integers(20, 200)), generator.uniform(1e6, 1e8))
        networks.append((totals, 1.04 * totals.kernels_ms + 0.003 * totals.calls + 2e-8 * totals.weight_bytes))
    found = Between.fit(networks)
    assert found.scale == pytest.approx(1.04, abs=0.01)
    assert found.ms_per_call == pytest.approx(0.003, rel=0.2)
    assert found.ms_per_weight_byte == pytest.approx(2e-8, rel=0.3)


def test_without_evidence_nothing_lies_between_but_the_calls() -> None:
    found = Between.fit([], ms_per_call=0.25)
    assert (found.scale, found.ms_per_call, found.ms_per_weight_byte) == (pytest.approx(1), pytest.approx(0.25), 0)


def test_conformal_intervals_cover_as_stated() -> None:
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        scores = generator.standard_t(3, size=30)
        band = Band.of_scores(list(scores))
        covered += [abs(generator.standard_t(3)) <= band.quantile for _ in range(5)]
    assert 0.88 < np.mean(covered) < 0.94


def test_few_scores_give_wide_intervals() -> None:
    widths = [Band.of_scores([1.0] * n).quantile for n in (0, 3, 8, 9)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 1.0
    assert str(Band.of_scores([1.0] * 9)) == "90% interval from conformal over 9 measured networks"
    assert Band.of_scores([5.0] * 3).quantile > Band.of_scores([0.1] * 3).quantile


@pytest.mark.parametrize("coverage", [0.0, 1.0, float("nan")])
def test_impossible_coverage_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match=r"coverage must be at least 0\.5 and below 1"):
        Band.of_scores([], coverage)


def test_errors_of_one_kind_add_up_and_those_of_different_kinds_do_not() -> None:
    one = difficulty([("conv2d", 1.0, 0.1), ("conv2d", 1.0, 0.1)])
    two = difficulty([("conv2d", 1.0, 0.1), ("pool", 1.0, 0.1)])
    assert one == pytest.approx(math.hypot(FLOOR, 0.1))
    assert two == pytest.approx(math.hypot(FLOOR, 0.05, 0.05))
    assert difficulty([]) == FLOOR


def test_what_a_model_leaves_over_is_carried_to_kernels_of_like_shapes() -> None:
    """Half as fast as modelled: believed of the like, the more the more there are, and of nothing else."""
    slow = [KernelFacts.of(convolution("pointwise_conv2d", 14, 64, channels)) for channels in (48, 64, 80, 96)]
    one, all_four = (fit_residual(slow[:n], np.full(n, 2.0), 16) for n in (1, 4))
    near, far = (
        KernelFacts.of(convolution("pointwise_conv2d", 14, 64, 72)),
        KernelFacts.of(convolution("pointwise_conv2d", 224, 3, 8)),
    )
    other = KernelFacts.of(convolution("depthwise_conv2d", 14, 64, 64))
    assert 1.2 < one.factors([near])[0] < all_four.factors([near])[0] < 2.0
    assert all_four.factors([far, other]).tolist() == [pytest.approx(1.0, abs=0.05), 1.0]
    assert all_four.factors([]).shape == (0,)


def test_a_kernel_where_something_went_wrong_does_not_speak_for_its_kind() -> None:
    kernels = [KernelFacts.of(convolution("pointwise_conv2d", 14, 64, channels)) for channels in (48, 64, 80, 96)]
    found = fit_residual(kernels, np.asarray([1.0, 1.0, 100.0, 1.0]), 16)
    assert found.factors(kernels).max() < 1.5


def test_slow_operations_count_for_what_they_take() -> None:
    plain = elementwise(8, 4)
    sigmoid = replace(plain, ops=("sigmoid",))
    facts, slow = KernelFacts.of(plain), KernelFacts.of(sigmoid)
    assert slow.work > 10 * facts.work
    assert slow.flops == facts.flops == facts.work
    assert slow.reduction == pytest.approx(slow.work / (8 * 8 * 4))
    # With a hundred operations for each number, one exponential in the epilogue is seen but does not decide.
    dense = convolution("conv2d", 8, 64, 32)
    gated = KernelFacts.of(replace(dense, ops=("conv2d", "sigmoid", "multiply")))
    assert 1 < gated.work / KernelFacts.of(dense).work < 1.1
