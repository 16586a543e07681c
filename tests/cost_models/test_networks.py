"""What a network is beyond its kernels: times that add up to it, and what its caches keep."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cost_models import Calibration, Kernel, KernelSample, Machine, NetworkSample, fit_estimator
from cost_models.anchoring import anchored, profiled_networks
from cost_models.between import Between, NetworkTotals
from cost_models.features import KernelFacts
from cost_models.footprint import ASSUMED_MS_PER_BYTE, capacities, fetched_bytes, footprint_bytes, missed
from tests.cost_models.made_up import MACHINE, convolution, elementwise, product

MB = 1024 * 1024


def sample(kernel: Kernel, ms: float, group: str = "net") -> KernelSample:
    return KernelSample(kernel, ms, 0.9 * ms, 1.1 * ms, 10, group)


def whole(name: str, kernels: tuple[Kernel, ...], ms: float, group: str = "net") -> NetworkSample:
    return NetworkSample(name, group, kernels, ms, 0.99 * ms, 1.01 * ms, "made up")


def test_kernels_add_up_to_the_network_they_were_timed_in() -> None:
    kernels = tuple(elementwise(8, c) for c in (8, 16, 32, 8))
    samples = [sample(k, ms) for k, ms in zip(kernels[:3], (1.0, 2.0, 3.0), strict=True)]
    cut = whole("cut", kernels[:2], 99.0)
    other = sample(elementwise(8, 64), 5.0, "other")
    found = anchored([*samples, other], [cut, whole("net", kernels, 14.0)])
    # 1 + 2 + 3 + 1 once more: they have to double.
    assert [s.ms for s in found] == [2.0, 4.0, 6.0, 5.0]
    assert [s.low_ms for s in found] == pytest.approx([1.8, 3.6, 5.4, 4.5])
    assert anchored([*samples, other], [cut]) == (*samples, other)
    network, ms = profiled_networks(samples, [whole("net", kernels, 14.0)])["net"]
    assert (network.name, ms) == ("net", 7.0)


def test_a_kernel_that_another_network_shares_counts_too() -> None:
    kernels = tuple(elementwise(8, c) for c in range(1, 21))
    samples = [*(sample(k, 1.0) for k in kernels[:19]), sample(kernels[19], 3.0, "other")]
    found = anchored(samples, [whole("net", kernels, 44.0)])
    assert {s.ms for s in found[:19]} == {2.0}
    assert found[19].ms == 3.0


def test_what_a_network_touches() -> None:
    facts = [KernelFacts.of(k) for k in (convolution("conv2d", 28, 64, 32), product(1, 1000, 512))]
    weights = 4 * (64 * 32 * 9 + 512 * 1000)
    assert footprint_bytes(facts) == pytest.approx(weights + facts[0].activation_bytes)
    assert footprint_bytes([]) == 0
    # A cache of about 8 begins to let go at 4 and keeps something up to 16.
    assert [missed(size, 8.0) for size in (0.0, 4.0, 8.0, 16.0, 80.0)] == pytest.approx([0, 0, 1 / 8, 7 / 16, 0.8875])


def test_what_a_kernel_waits_for() -> None:
    small, large, weights = (
        KernelFacts.of(k) for k in (elementwise(56, 16), elementwise(56, 64), product(1, 1000, 512))
    )
    dense = KernelFacts.of(convolution("conv2d", 56, 256, 256))
    found = fetched_bytes([small, large, small, weights])
    # Buffers count as far as they go beyond those that were touched before.
    assert found[:3] == pytest.approx(
        [small.activation_bytes, large.activation_bytes - small.activation_bytes, 0.0], rel=0.1
    )
    assert found[3] == pytest.approx(weights.weight_bytes, rel=0.2)
    # Who has a thousand operations for each byte does not wait.
    assert fetched_bytes([dense])[0] < 0.02 * dense.activation_bytes


@pytest.mark.parametrize("caches", [(32768, MB, 32 * MB), (32768, 512 * 1024), (MB,)])
def test_capacities_reach_from_the_own_cache_to_a_share_of_the_common_one(caches: tuple[int, ...]) -> None:
    own, shared = capacities(Machine(cache_bytes=caches))
    assert own <= shared == caches[-1] / 4
    assert own == (MB if len(caches) == 3 else min(caches[0], shared) if len(caches) == 2 else shared / 2)
    assert len(ASSUMED_MS_PER_BYTE) == 2


def test_the_price_of_what_is_fetched_again_is_found() -> None:
    generator = np.random.default_rng(0)
    truth = (0.0, 3e-8, 0.0, 6e-8)
    networks = []
    for _ in range(60):
        reload = tuple(float(v) for v in generator.uniform(-2e7, 0, 4))
        totals = NetworkTotals(generator.uniform(2, 20), 50, 0.0, reload)
        networks.append((totals, totals.kernels_ms + sum(a * b for a, b in zip(truth, reload, strict=True))))
    found = Between.fit(networks, ms_per_reload_byte=(2e-8, 0.0, 5e-8, 0.0))
    assert found.ms_per_reload_byte == pytest.approx(truth, abs=3e-9)
    assert found.scale == pytest.approx(1, abs=0.01)
    totals, ms = networks[0]
    assert totals.kernels_ms + found.caches_ms(totals) == pytest.approx(ms, rel=0.02)


def test_a_cut_keeps_more_in_its_caches_than_the_network_it_was_profiled_in() -> None:
    # Big pictures first, then the weights: as networks for images are.
    early = tuple(convolution("conv2d", 56, 32, 32 + 8 * i) for i in range(8))
    late = tuple(convolution("conv2d", 7, 512, 512 + i) for i in range(6))
    kernels = (*early, *late)
    samples = [sample(k, 1.0) for k in kernels]
    profiled = whole("net", kernels, float(len(kernels)))
    calibration = Calibration("f" * 64, tuple(samples), 0.0, MACHINE, (profiled,))
    estimator = fit_estimator("profiled", calibration)
    full, cut = estimator.estimate(kernels), estimator.estimate(early)
    assert full.ms == pytest.approx(14.0, rel=1e-3)
    assert cut.ms < 8.0
    assert dict(cut.provenance)["caches"] < 0
    assert "caches" not in dict(full.provenance)
    # Once a cut was measured, the price follows.
    measured = replace(calibration, networks=(profiled, whole("cut", early, 7.0)))
    assert abs(fit_estimator("profiled", measured).estimate(early).ms - 7.0) < abs(cut.ms - 7.0)


def test_caches_never_save_more_than_half() -> None:
    tiny = tuple(elementwise(112, c) for c in (60, 61))
    heavy = tuple(convolution("conv2d", 7, 1024, 1024 + i) for i in range(9))
    kernels = (*tiny, *heavy)
    samples = [sample(k, 1e-3) for k in kernels]
    profiled = whole("net", kernels, 1e-3 * len(kernels))
    estimator = fit_estimator("profiled", Calibration("f" * 64, tuple(samples), 0.0, MACHINE, (profiled,)))
    assert estimator.estimate(tiny).ms == pytest.approx(1e-3, rel=1e-3)
