"""Calibration on torch eager: what is drawn, what is kept, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cost_models import Calibration, CalibrationError, hold
from cost_models.design import errors_by_kind, novelty
from cost_models.features import model_kind
from netcut_fx.backends.base import KernelTiming, Profile
from netcut_fx.backends.eager import EagerBackend, EagerModule
from netcut_fx.calibrating import calibrate, held_out_accuracy, next_probe, without
from netcut_fx.errors import BackendError, NetcutError, SpecError
from netcut_fx.evidence import CALIBRATION, add_evidence
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.machine_facts import data_caches, machine_of
from netcut_fx.probe_networks import random_probe
from netcut_fx.profiling import profile_until_known
from netcut_fx.tracing import trace
from tests.command_line import refused
from tests.cost_models.made_up import calibration as made_up
from tests.small_run import finish

SECOND = 1 / 60


def small(name: str) -> TracedModule:
    return trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)), torch.zeros(1, 3, 12, 12), name=name)


def test_probes_cover_all_kinds_and_are_drawn_again_from_the_same_seed() -> None:
    generator = np.random.default_rng(0)
    listed = [k for _ in range(20) for k in kernels(random_probe(generator))]
    assert {k.kind for k in listed} >= {
        *("conv2d", "pointwise_conv2d", "depthwise_conv2d", "grouped_conv2d"),
        *("matmul", "pool", "reduce", "elementwise", "data_movement"),
    }
    assert all(k.modelled for k in listed)
    assert max(k.flops for k in listed) < 2e9
    first, again = (kernels(random_probe(np.random.default_rng(7))) for _ in range(2))
    assert [k.key for k in first] == [k.key for k in again]


def test_what_was_measured_teaches_nothing_new() -> None:
    found = made_up(networks=2)
    known, new = [s.kernel for s in found.samples[:5]], kernels(small("new"))
    assert novelty(known, found.samples, {}) == 0.0
    assert novelty(new, found.samples, {}) > 0.0
    worse = novelty(new, found.samples, {"conv2d": 0.5, "pointwise_conv2d": 0.5, "elementwise": 0.5})
    assert worse > novelty(new, found.samples, {"conv2d": 0.1, "pointwise_conv2d": 0.1, "elementwise": 0.5})


def test_errors_are_known_by_kind_once_there_is_something_to_learn_from() -> None:
    found = made_up(networks=6, noise=0.1)
    errors = errors_by_kind(found.samples, found.machine)
    assert set(errors) == {model_kind(s.kernel) for s in found.samples}
    assert all(0 < e < 1 for e in errors.values())
    assert errors_by_kind(found.samples[:5], found.machine) == {}


def test_a_calibration_goes_on_where_it_was(tmp_path: Path) -> None:
    path, backend = tmp_path / "c.json", EagerBackend()
    heard: list[str] = []
    first = calibrate(
        backend,
        path,
        minutes=SECOND,
        database=tmp_path,
        networks=[small("own")],
        clock=lambda spent, total, what: heard.append(what),
    )
    assert first.measured >= 1
    assert "own" in {n.group for n in first.calibration.networks}
    assert heard[0] == "0 kernels, own"
    assert Calibration.load(path) == first.calibration
    second = calibrate(backend, path, minutes=SECOND, database=tmp_path, networks=[small("own")])
    assert len(second.calibration.networks) == len(first.calibration.networks) + second.measured
    assert second.calibration.minutes > first.calibration.minutes
    assert second.calibration.target["reference_ms"] == first.calibration.target["reference_ms"]
    assert second.calibration.machine == machine_of(backend.target)


def test_the_next_probe_has_a_name_of_its_own() -> None:
    found = made_up(networks=2)
    taken = replace(found, samples=tuple(replace(s, group="probe0") for s in found.samples))
    assert next_probe(taken, np.random.default_rng(0)).name == "probe1"


def test_two_calibrations_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    with hold(path), pytest.raises(CalibrationError, match=r"c\.json: another calibration is writing it; wait for it"):
        calibrate(EagerBackend(), path, minutes=1, database=tmp_path)


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_no_time_is_refused(tmp_path: Path, minutes: float) -> None:
    with pytest.raises(SpecError, match=r"a calibration needs a positive number of minutes, got "):
        calibrate(EagerBackend(), tmp_path / "c.json", minutes=minutes, database=tmp_path)


def test_a_calibration_of_another_target_is_refused(tmp_path: Path) -> None:
    made_up(networks=1).save(tmp_path / "c.json")
    with pytest.raises(CalibrationError, match="made for another target or toolchain"):
        calibrate(EagerBackend(), tmp_path / "c.json", minutes=1, database=tmp_path)


class _Broken(EagerBackend):
    """Compiles the reference and nothing else."""

    def compile(self, traced: TracedModule, *, database: Path | None = None) -> EagerModule:
        if traced.name != "reference":
            raise BackendError("it does not compile")
        return super().compile(traced)


def test_nothing_measured_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NetcutError, match=r"^nothing could be measured; the last reason was: probe0: it does not comp"):
        calibrate(_Broken(), tmp_path / "c.json", minutes=1, database=tmp_path)
    assert not (tmp_path / "c.json").exists()


class _Unsteady:
    """A compiled network whose rounds differ by half."""

    def __init__(self) -> None:
        self.rounds = 0

    def profile(self, rounds: int) -> Profile:
        self.rounds += rounds
        return Profile((KernelTiming("k", "k", tuple(1.0 + i % 2 for i in range(rounds))),), 0.1)


def test_unsteady_kernels_get_more_rounds() -> None:
    compiled = _Unsteady()
    profile = profile_until_known(compiled)  # type: ignore[arg-type]
    assert len(profile.kernels[0].samples_ms) == compiled.rounds == 100


def test_errors_are_those_of_networks_left_out() -> None:
    found = made_up(networks=8)
    errors = held_out_accuracy(found, ("linear", "flops"))
    assert list(errors) == ["linear", "flops"]
    assert all(row["networks"] == 8 for row in errors.values())
    assert held_out_accuracy(made_up(networks=3)) == {}
    rest = without(found, {"net0", "net3"})
    others = {f"net{i}" for i in (1, 2, 4, 5, 6, 7)}
    assert {n.group for n in rest.networks} == {s.group for s in rest.samples} == others


def test_a_run_leaves_its_measurements_as_evidence(tmp_path: Path) -> None:
    done = finish(tmp_path)
    found = Calibration.load(tmp_path / CALIBRATION, fingerprint=done.backend.target.fingerprint())
    by_source: dict[str, Sequence[str]] = {}
    for network in found.networks:
        by_source[network.source] = (*by_source.get(network.source, ()), network.name)
        assert network.group == "residual"
    assert set(by_source["netcut run, 1 trials a kernel"]) == set(done.measured)
    finish(tmp_path)
    assert len(Calibration.load(tmp_path / CALIBRATION).networks) == len(found.networks)


def test_damaged_evidence_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{")
    assert add_evidence(tmp_path / "c.json", made_up(networks=1), ()) == made_up(networks=1)
    assert Calibration.load(tmp_path / "c.json") == made_up(networks=1)


def test_caches_are_read_as_linux_lists_them(tmp_path: Path) -> None:
    for i, (kind, size) in enumerate([("Data", "32K"), ("Instruction", "64K"), ("Unified", "2M"), ("Data", "odd")]):
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        (folder / "type").write_text(f"{kind}\n")
        (folder / "size").write_text(f"{size}\n")
    assert data_caches(tmp_path) == (32 * 1024, 2 * 1024 * 1024)
    assert data_caches(tmp_path / "none") == ()
    backend = EagerBackend()
    assert machine_of(backend.target, tmp_path / "none").cache_bytes


def test_the_command_line_refuses_no_time(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    words = ("calibrate", "--budget-minutes", "0", "--out", str(tmp_path / "c.json"))
    assert refused(*words) == "error: a calibration needs a positive number of minutes, got 0; give --budget-minutes"
