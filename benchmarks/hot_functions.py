"""The functions that a user waits for, timed by pytest-benchmark on EfficientNet-Lite0 at 96x96."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from cost_models import ESTIMATORS, Calibration, KernelSample, fit_estimator
from netcut_fx.frontier import frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.latency import LatencyModel
from netcut_fx.model_spec import load_model
from netcut_fx.passes.copying import weightless
from netcut_fx.passes.cut import cut_nodes
from netcut_fx.passes.head import HeadPass
from netcut_fx.tracing import trace


@pytest.fixture(scope="module")
def traced() -> TracedModule:
    return trace(load_model("demo"), torch.zeros(1, 3, 96, 96), name="demo")


def test_trace(benchmark: Any) -> None:
    model, example = load_model("demo"), torch.zeros(1, 3, 96, 96)
    assert len(benchmark(trace, model, example).nodes) > 100


def fresh() -> tuple[tuple[TracedModule], dict[str, Any]]:
    """A newly traced network, about which nothing is remembered yet."""
    return (trace(load_model("demo"), torch.zeros(1, 3, 96, 96), name="demo"),), {}


def test_block_frontiers(benchmark: Any) -> None:
    assert len(benchmark.pedantic(frontiers, setup=fresh, rounds=7)) == 16


def test_kernels(benchmark: Any) -> None:
    assert len(benchmark.pedantic(kernels, setup=fresh, rounds=7)) > 40


def test_kernels_of_one_cut(benchmark: Any, traced: TracedModule) -> None:
    frontier, head, bare = frontiers(traced)[7], HeadPass(10), weightless(traced)
    assert len(benchmark(lambda: kernels(head(cut_nodes(bare, frontier.nodes))))) > 20


@pytest.fixture(scope="module")
def calibration(traced: TracedModule) -> Calibration:
    """Made-up times for the kernels of the network."""
    unique = {k.key: k for k in kernels(traced)}.values()
    return Calibration("0" * 64, tuple(KernelSample.of(k, [1e-3 + k.flops / 3e7]) for k in unique))


def test_fit_of_the_analytical_model(benchmark: Any, calibration: Calibration) -> None:
    assert benchmark.pedantic(fit_estimator, ("analytical", calibration), rounds=3).name == "analytical"


@pytest.mark.parametrize("name", ESTIMATORS)
def test_first_price(benchmark: Any, traced: TracedModule, calibration: Calibration, name: str) -> None:
    """Nothing is remembered of any kernel."""
    network, estimator = kernels(traced), fit_estimator(name, calibration)

    def forgetful() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (LatencyModel(replace(estimator, _known={})), network), {}

    assert benchmark.pedantic(LatencyModel.price, setup=forgetful, rounds=20).is_known


def test_price_of_known_kernels(benchmark: Any, traced: TracedModule, calibration: Calibration) -> None:
    model = LatencyModel.of_calibration(calibration)
    assert benchmark(model.price, kernels(traced)).is_known
