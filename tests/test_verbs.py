"""The verbs from Python, with the real compiler: what the command line does, without it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import netcut_fx
from cost_models import Calibration
from netcut_fx.bundle import read_bundle
from netcut_fx.errors import InvalidFrontier, NetcutError
from netcut_fx.graph import TracedModule, state_hash
from netcut_fx.profiling import profile_network
from netcut_fx.runtime import load
from tests.small_run import RETRAIN, Listener, digits, residual
from tests.zoo import CLASSES, image, traced_zoo

pytest.importorskip("tvm")

HEAD = netcut_fx.HeadPass(classes=7)


def residual_for_one_image() -> TracedModule:
    return netcut_fx.trace(residual(), image(batch=1), name="residual")


@pytest.fixture(scope="module")
def latency_model() -> netcut_fx.LatencyModel:
    """Fitted to the residual network with its new head, as naive loops."""
    from netcut_fx.backends.tvm import TvmBackend

    traced = residual_for_one_image()
    deepest = netcut_fx.frontiers(traced)[-1]
    profile = profile_network(TvmBackend(), netcut_fx.cut(traced, deepest, head=HEAD), None)
    return netcut_fx.LatencyModel.of_calibration(profile.calibration)


def test_run_returns_the_result_and_leaves_it_in_its_folder(tmp_path: Path) -> None:
    model, listener = residual(), Listener()
    before = state_hash(model)
    result = netcut_fx.run(
        model, digits(), out=tmp_path, deadline_ms=1000.0, trials=1, shortlist=1, retrain=RETRAIN, reporter=listener
    )
    assert state_hash(model) == before
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert result["model"] == "Residual"
    assert result["deadline_ms"] == 1000.0
    assert [stage["name"] for stage in result["stages"]] == [name for name in listener.stages if name != "bundle"]
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert manifest.frontier == result["chosen"]["frontier"]
    assert manifest.labels == digits().classes
    images, labels = digits().subset("test")
    with load(result["bundle"]) as runtime:
        correct = (runtime.predict(images).indices == labels).mean()
    assert correct == pytest.approx(result["chosen"]["test_accuracy"])


def test_compile_answers_like_torch() -> None:
    trn = netcut_fx.cut(residual_for_one_image(), "layer1.1", head=HEAD)
    compiled = netcut_fx.compile(trn)
    given = image(batch=1, seed=3)
    with torch.no_grad():
        expected = trn.graph_module(given).numpy()
    assert expected.shape == (1, 7)
    assert np.abs(compiled.run(given.numpy()) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_compile_tunes_every_kernel_into_the_given_folder(tmp_path: Path) -> None:
    trn = netcut_fx.cut(residual_for_one_image(), "layer1.0", head=HEAD)
    seen: list[tuple[int, int, str]] = []
    compiled = netcut_fx.compile(trn, trials=1, database=tmp_path, progress=lambda *event: seen.append(event))
    assert all(kernel.tuned for kernel in compiled.kernels)
    assert [done for done, _, _ in seen] == list(range(1, seen[0][1] + 1))
    given = image(batch=1)
    with torch.no_grad():
        expected = trn.graph_module(given).numpy()
    assert np.abs(compiled.run(given.numpy()) - expected).max() <= 1e-4 * np.abs(expected).max()
    again = netcut_fx.compile(trn, database=tmp_path)
    assert all(kernel.tuned for kernel in again.kernels)


def test_tuning_without_a_folder_is_refused() -> None:
    with pytest.raises(NetcutError, match=r"^tuning needs a folder for its records; pass database=\.\.\.$"):
        netcut_fx.compile(residual_for_one_image(), trials=1)


def test_estimate_of_a_cut_is_that_of_the_cut_network(latency_model: netcut_fx.LatencyModel) -> None:
    traced = residual_for_one_image()
    found = netcut_fx.frontiers(traced)
    estimates = [netcut_fx.estimate(traced, f, model=latency_model, head=HEAD) for f in found]
    for frontier, estimate in zip(found, estimates, strict=True):
        assert estimate.is_known
        assert estimate == netcut_fx.estimate(netcut_fx.cut(traced, frontier, head=HEAD), model=latency_model)
        assert estimate == netcut_fx.estimate(traced, frontier.name, model=latency_model, head=HEAD)
    assert [e.ms for e in estimates] == sorted(e.ms for e in estimates)


def test_estimate_of_a_cut_needs_its_head(latency_model: netcut_fx.LatencyModel) -> None:
    with pytest.raises(NetcutError, match="estimate of a cut needs the head that will be put on it; pass head="):
        netcut_fx.estimate(residual_for_one_image(), "layer1.0", model=latency_model)


def test_estimate_of_a_kernel_that_nothing_covers_is_unknown() -> None:
    model = netcut_fx.LatencyModel.of_calibration(Calibration("0" * 64, ()))
    estimate = netcut_fx.estimate(residual_for_one_image(), model=model)
    assert not estimate.is_known
    assert estimate.missing
    assert not estimate.meets(1e9)


def test_cut_shares_no_storage_with_its_source() -> None:
    model = residual()
    traced = netcut_fx.trace(model, image(batch=1))
    before = traced.state_hash()
    trn = netcut_fx.cut(traced, netcut_fx.frontiers(traced)[-1], head=HEAD)
    places = {t.untyped_storage().data_ptr() for t in trn.graph_module.state_dict().values() if t.numel()}
    assert places
    for source in (model, traced.graph_module):
        assert not places & {t.untyped_storage().data_ptr() for t in source.state_dict().values()}
    with torch.no_grad():
        for tensor in trn.graph_module.state_dict().values():
            tensor.zero_()
    assert traced.state_hash() == before == netcut_fx.trace(model, image(batch=1)).state_hash()


def test_a_cut_without_a_head_gives_the_crossing_tensor() -> None:
    traced = traced_zoo("residual")
    frontier = netcut_fx.frontiers(traced)[0]
    trunk = netcut_fx.cut(traced, frontier.name)
    assert trunk.name == f"residual@{frontier.name}"
    assert tuple(trunk.graph_module(image()).shape) == frontier.specs[0].shape
    assert traced.graph_module(image()).shape[1] == CLASSES


def test_a_misspelt_frontier_is_refused() -> None:
    with pytest.raises(InvalidFrontier, match=r"did you mean .*layer1\.0"):
        netcut_fx.cut(traced_zoo("residual"), "layr1.0")
