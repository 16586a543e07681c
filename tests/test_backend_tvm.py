"""The real compiler on small networks: same answers as torch, kernels that add up, records that survive."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netcut_fx.errors import BackendError, SpecError, TargetMismatch
from netcut_fx.graph import TracedModule
from netcut_fx.host import detect_host
from netcut_fx.kernels import kernels
from netcut_fx.latency import LatencyModel, samples_of_profile
from netcut_fx.profiling import profile_network
from netcut_fx.tracing import trace
from tests.zoo import ZOO

pytest.importorskip("tvm")
from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.backends.tvm.kernel_search import extracted_tasks
from netcut_fx.backends.tvm.lower import lower
from netcut_fx.backends.tvm.records import open_records, records_folder, set_aside_corrupt_lines
from netcut_fx.backends.tvm.toolchain import tvm_target
from netcut_fx.backends.tvm.tune import tunable

NETWORKS = (
    "plain_chain",
    "residual",
    "inverted_residual",
    "dense",
    "inception",
    "squeeze_excite",
    "inplace_relu",
    "functional",
    "dead_branch",
    "transformer",
)


@pytest.fixture(scope="module")
def backend() -> TvmBackend:
    return TvmBackend()


@pytest.fixture(scope="module")
def tuned(backend: TvmBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of the residual network, two trials a kernel."""
    folder = tmp_path_factory.mktemp("tuning")
    report = backend.tune(traced("residual"), trials=2, database=folder)
    assert report.searched == report.kernels > 0
    return folder


def traced(name: str) -> TracedModule:
    module, (example, *_) = ZOO[name]()
    return trace(module, example[:1], name=name)


@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_answers_are_those_of_torch(backend: TvmBackend, name: str) -> None:
    module, (example, *_) = ZOO[name]()
    compiled = backend.compile(trace(module, example[:1]))
    with torch.no_grad():
        expected = module.eval()(example[:1]).numpy()
    assert np.abs(compiled.run(example[:1].numpy()) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_tuned_answers_are_those_of_torch_and_every_kernel_has_its_record(backend: TvmBackend, tuned: Path) -> None:
    module, (example, *_) = ZOO["residual"]()
    compiled = backend.compile(traced("residual"), database=tuned)
    with torch.no_grad():
        expected = module.eval()(example[:1]).numpy()
    assert np.abs(compiled.run(example[:1].numpy()) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert all(kernel.tuned for kernel in compiled.kernels)
    assert not any(kernel.tuned for kernel in backend.compile(traced("residual")).kernels)


def test_records_are_used_again(backend: TvmBackend, tuned: Path) -> None:
    again = backend.tune(traced("residual"), trials=2, database=tuned)
    assert (again.searched, again.trials) == (0, 0)


def test_profile_covers_our_kernel_list_and_prices_the_network(backend: TvmBackend, tuned: Path) -> None:
    network = traced("residual")
    profile = profile_network(backend, network, tuned)
    listed = kernels(network)
    assert {s.key for s in profile.calibration.samples} == {k.key for k in listed}
    estimate = LatencyModel.of_calibration(profile.calibration).price(listed)
    assert estimate.is_known
    assert set(dict(estimate.provenance)) <= {"measured", "overhead", "caches"}
    compiled = backend.compile(network, database=tuned)
    timings = compiled.profile(rounds=3)
    assert Counter(t.key for t in timings.kernels) == Counter(k.key for k in listed)
    assert samples_of_profile(listed, timings)


def test_a_kernel_that_the_layout_made_a_view_takes_next_to_nothing(backend: TvmBackend) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 16, 1), nn.LayerNorm(16)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x).flatten(2).transpose(1, 2))

    compiled = backend.compile(trace(Tokens(), torch.zeros(1, 3, 8, 8)))
    found = compiled.profile(rounds=3).kernels
    assert [k.key for k in found] == [k.key for k in compiled.kernels]
    assert [k.name for k in found if max(k.samples_ms) < 1e-5] == [k.name for k in found if "transpose" in k.name]


def test_a_wrong_shape_is_refused(backend: TvmBackend) -> None:
    compiled = backend.compile(traced("residual"))
    with pytest.raises(BackendError, match=r"compiled for inputs \(1, 3, 32, 32\), got \(1, 3, 16, 16\)"):
        compiled.run(np.zeros((1, 3, 16, 16), np.float32))


def test_half_written_records_are_set_aside(backend: TvmBackend, tuned: Path, tmp_path: Path) -> None:
    source = records_folder(tuned, backend.target)
    for file in ("database_workload.json", "database_tuning_record.json"):
        (tmp_path / file).write_bytes((source / file).read_bytes())
    whole = len((tmp_path / "database_tuning_record.json").read_text().splitlines())
    with (tmp_path / "database_tuning_record.json").open("a") as records:
        records.write("[0, [[[")
    with (tmp_path / "database_workload.json").open("a") as workloads:
        workloads.write('["123", "AA')
    assert set_aside_corrupt_lines(tmp_path) == 2
    assert len(open_records(tmp_path)) == whole
    assert (tmp_path / "database_tuning_record.json.corrupt").read_text() == "[0, [[[\n"


def test_only_what_is_asked_for_is_read(backend: TvmBackend, tuned: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned, tmp_path, dirs_exist_ok=True)
    alone = backend.compile(traced("residual"), database=tuned).kernels
    backend.tune(traced("plain_chain"), trials=1, database=tmp_path)
    folder = records_folder(tmp_path, backend.target)
    lowered = lower(traced("plain_chain"), backend.target)
    asked = [task.dispatched[0] for task in extracted_tasks(tunable(lowered, backend.target), backend.target)]
    found, every = open_records(folder, asked), open_records(folder)
    assert 0 < len(found) < len(every)
    assert all(found.has_workload(module) for module in asked)
    for module in asked:
        best = [
            min(map(float, db.query_tuning_record(module, tvm_target(backend.target), "main").run_secs))
            for db in (found, every)
        ]
        assert best[0] == best[1]
    # What others have tuned beside changes nothing.
    assert backend.compile(traced("residual"), database=tmp_path).kernels == alone
    assert len(open_records(folder, [])) == 0


def test_records_of_a_cut_off_workload_go_with_it(backend: TvmBackend, tuned: Path, tmp_path: Path) -> None:
    source = records_folder(tuned, backend.target)
    lines = (source / "database_workload.json").read_text().splitlines(keepends=True)
    (tmp_path / "database_workload.json").write_text("".join(lines[:-1]) + lines[-1][:40])
    records = (source / "database_tuning_record.json").read_text().splitlines(keepends=True)
    (tmp_path / "database_tuning_record.json").write_text("".join(records))
    set_aside_corrupt_lines(tmp_path)
    kept = (tmp_path / "database_tuning_record.json").read_text().splitlines()
    assert all(json.loads(line)[0] < len(lines) - 1 for line in kept)
    assert len(open_records(tmp_path)) == len(kept)


def test_unknown_targets_are_refused() -> None:
    with pytest.raises(SpecError) as error:
        TvmBackend("llvm -mcpu=znver44")
    assert str(error.value).endswith(" CPU 'znver44', as target 'llvm -mcpu=znver44' asks for; did you mean 'znver4'?")
    with pytest.raises(SpecError, match="threads must be between 1 and"):
        TvmBackend("native", threads=4096)
    with pytest.raises(SpecError, match="there is no target 'fpga'"):
        TvmBackend("fpga")


def test_a_target_that_this_machine_cannot_run_is_refused() -> None:
    host = detect_host()
    if host.arch != "x86_64" or "amx_int8" in host.features:
        pytest.skip("this CPU can run what is asked for")
    with pytest.raises(TargetMismatch) as error:
        TvmBackend("llvm -mcpu=sapphirerapids")
    assert f"this machine ({host.cpu_model}, " in str(error.value)
    assert "cannot run code for sapphirerapids: it lacks amx_bf16, amx_int8, " in str(error.value)
    assert str(error.value).endswith("; use --target native, or run on the device itself")
