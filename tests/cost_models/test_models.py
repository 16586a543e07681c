"""Estimators on made-up machines whose true cost is known."""

from __future__ import annotations

import numpy as np
import pytest

from cost_models import (
    FirstKnown,
    Kernel,
    KernelSample,
    LatencyEstimate,
    ProfiledModel,
    RooflineModel,
    estimate_kernels,
    kernel_key,
    merge_rounds,
)


def kernel(kind: str = "pointwise_conv2d", flops: int = 1_000_000, moved: int = 10_000, tag: int = 0) -> Kernel:
    ops = (kind.removeprefix("opaque:"), "add")
    return Kernel(kind, ops, ((1, 8, tag + 1, 4),), ((1, 8, 4, 4),), "float32", flops, moved)


def test_key_ignores_argument_order_and_origin() -> None:
    shapes = ((1, 8, 4, 4), (8, 8, 1, 1))
    one = Kernel("conv2d", ("conv2d",), shapes, ((1, 8, 4, 4),), "float32", 1, 1, ("a",))
    other = Kernel("conv2d", ("conv2d",), shapes[::-1], ((1, 8, 4, 4),), "float32", 1, 1, ("b",))
    assert one.key == other.key == "conv2d|1x8x4x4,8x8x1x1->1x8x4x4|float32"
    assert kernel_key(("add",), ((),), ((2,),), "float32") == "add|scalar->2|float32"


def test_profiled_returns_the_measured_time_and_only_that() -> None:
    measured = kernel()
    model = ProfiledModel([KernelSample.of(measured, [1.0, 2.0, 3.0])])
    estimate = model.predict(measured)
    assert estimate.ms == 2.0
    assert estimate.low_ms == pytest.approx(1.1)
    assert estimate.high_ms == pytest.approx(2.9)
    assert estimate.provenance == (("measured", 2.0),)
    assert model.predict(kernel(tag=1)).missing == (kernel(tag=1).key,)
    assert measured.key in model
    assert len(model) == 1


def test_rounds_of_equal_workloads_are_merged() -> None:
    (sample,) = merge_rounds([(kernel(), [1.0, 1.0]), (kernel(), [3.0, 3.0])])
    assert sample.ms == 2.0
    assert sample.rounds == 4


@pytest.mark.parametrize("times", [[], [0.0], [float("nan")], [-1.0], [1.0, float("inf")]])
def test_impossible_times_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        KernelSample.of(kernel(), times)


def machine(kinds: dict[str, float], peak: float, bandwidth: float, noise: float) -> list[KernelSample]:
    """Samples of a machine on which a kernel of each kind takes the given multiple of the roofline bound."""
    generator = np.random.default_rng(0)
    samples: list[KernelSample] = []
    for kind, slowdown in kinds.items():
        for i in range(20):
            flops, moved = int(generator.integers(10**5, 10**8)), int(generator.integers(10**4, 10**6))
            ms = slowdown * max(flops / peak, moved / bandwidth) * float(generator.uniform(1 - noise, 1 + noise))
            samples.append(KernelSample.of(kernel(kind, flops, moved, tag=i), [ms]))
    return samples


def test_roofline_learns_the_efficiency_of_each_kind() -> None:
    samples = machine({"pointwise_conv2d": 1.0, "depthwise_conv2d": 4.0}, peak=1e8, bandwidth=1e7, noise=0.0)
    model = RooflineModel.fit(samples)
    assert model is not None
    for sample in samples:
        probe = Kernel(sample.kind, ("x",), ((999,),), ((1,),), "float32", sample.flops, sample.bytes)
        assert model.predict(probe).ms == pytest.approx(sample.ms, rel=1e-6)


def test_roofline_interval_covers_the_noise_it_saw() -> None:
    model = RooflineModel.fit(machine({"conv2d": 2.0}, peak=1e8, bandwidth=1e7, noise=0.2))
    assert model is not None
    estimate = model.predict(kernel("conv2d", 10**7, 10**5))
    truth = 2.0 * max(10**7 / 1e8, 10**5 / 1e7)
    assert estimate.low_ms < truth < estimate.high_ms
    assert estimate.high_ms / estimate.low_ms < 1.6


def test_roofline_of_an_unmeasured_kind_uses_all_kinds_and_an_opaque_one_stays_unknown() -> None:
    model = RooflineModel.fit(machine({"conv2d": 1.0, "pool": 5.0}, 1e8, 1e7, 0.0))
    assert model is not None
    assert model.predict(kernel("matmul")).is_known
    opaque = kernel("opaque:resize")
    assert model.predict(opaque).missing == (opaque.key,)


def test_roofline_needs_evidence() -> None:
    assert RooflineModel.fit([]) is None


def test_measured_comes_before_modelled_and_nothing_is_free() -> None:
    measured, other, opaque = kernel(), kernel(tag=1), kernel("opaque:resize")
    samples = [KernelSample.of(measured, [5.0])]
    roofline = RooflineModel.fit(samples)
    assert roofline is not None
    model = FirstKnown((ProfiledModel(samples), roofline))
    total = estimate_kernels([measured, other], model, overhead_ms_per_kernel=0.5)
    assert dict(total.provenance) == {"measured": 5.0, "roofline": 5.0, "overhead": 1.0}
    assert total.ms == pytest.approx(11.0)
    assert estimate_kernels([measured, opaque], model).missing == (opaque.key,)
    assert estimate_kernels([], model) == LatencyEstimate.zero()
