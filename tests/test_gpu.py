"""NVIDIA GPUs: code is generated on any machine that has CUDA's compiler, networks run and are timed where a GPU is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netcut_fx import verbs
from netcut_fx.calibrating import calibrate
from netcut_fx.errors import BackendError, SpecError, TargetMismatch
from netcut_fx.graph import TracedModule
from netcut_fx.host import detect_host
from netcut_fx.kernels import kernels
from netcut_fx.latency import LatencyModel
from netcut_fx.profiling import profile_network
from netcut_fx.target import Target
from netcut_fx.tracing import trace
from tests.zoo import ZOO

pytest.importorskip("tvm")
from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.backends.tvm.gpu import gpu_target
from netcut_fx.backends.tvm.kernel_search import design_space, extracted_tasks
from netcut_fx.backends.tvm.lower import lower
from netcut_fx.backends.tvm.module import build_lowered
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.toolchain import import_tvm, toolchain_versions, tvm_target
from netcut_fx.backends.tvm.tune_status import tunable

HAS_GPU = bool(import_tvm().cuda(0).exist)
gpu = pytest.mark.skipif(not HAS_GPU, reason="there is no NVIDIA GPU on this machine")
compiler = pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc to compile CUDA with")
AMPERE = Target("cuda", "sm_80", detect_host().arch, "some GPU", (), 1, toolchain_versions())
NETWORKS = ("plain_chain", "inverted_residual", "inception", "squeeze_excite", "transformer")


def traced(name: str) -> TracedModule:
    module, (example, *_) = ZOO[name]()
    return trace(module, example[:1], name=name)


@compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kernel_becomes_cuda_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVM_CUDA_COMPILE_MODE", "nvcc")
    network = traced(name)
    built = build_lowered(lower(network, AMPERE), AMPERE, None)
    device_code = [m for m in _modules(built.executable.mod) if m.kind == "cuda"]
    assert len(device_code) == 1
    called = {kernel.name for kernel in built.kernels}
    source = device_code[0].inspect_source()
    assert called
    assert all(f"{name}_kernel" in source for name in called)
    # The same workloads as on a CPU, in the words of the cost models.
    assert [kernel.key for kernel in built.kernels] == [k.key for k in TvmBackend().kernels(network)]


def test_searching_starts_from_tvms_rules_for_gpus() -> None:
    lowered = lower(traced("plain_chain"), AMPERE)
    from tvm.s_tir import meta_schedule as ms

    found = 0
    for task in extracted_tasks(tunable(lowered, AMPERE), AMPERE):
        kernel, space = task.dispatched[0], design_space(Machine.for_schedules(AMPERE))
        # Kept: the space belongs to it.
        context = ms.TuneContext(mod=kernel, target=tvm_target(AMPERE), space_generator=space)
        designs = space.generate_design_space(kernel)
        assert context.target is not None
        found += sum("threadIdx.x" in design.mod.script() for design in designs)
    assert found


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
def test_without_a_gpu_nothing_can_be_measured_on_one() -> None:
    with pytest.raises(TargetMismatch, match=r"^target cuda needs an NVIDIA GPU with its driver, and TVM finds none"):
        TvmBackend("cuda")


def test_bundles_are_not_compiled_for_gpus() -> None:
    with pytest.raises(SpecError, match=r"^target cuda can be calibrated, tuned and measured, but bundles are served"):
        verbs.tvm_backend("cuda", links=True)


@gpu
def test_code_for_a_later_gpu_is_refused() -> None:
    with pytest.raises(TargetMismatch, match="cannot run code for sm_999"):
        gpu_target("sm_999")


@gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_answers_of_the_gpu_are_those_of_torch(name: str, tmp_path: Path) -> None:
    module, (example, *_) = ZOO[name]()
    compiled = TvmBackend("cuda").compile(trace(module, example[:1]))
    with torch.no_grad():
        expected = module.eval()(example[:1]).numpy()
    assert np.abs(compiled.run(example[:1].numpy()) - expected).max() <= 1e-3 * np.abs(expected).max()
    with pytest.raises(BackendError, match="cannot be saved: the runtime drives CPUs"):
        compiled.save(tmp_path)


@gpu
def test_a_gpu_is_tuned_profiled_and_priced(tmp_path: Path) -> None:
    backend, network = TvmBackend("cuda"), traced("residual")
    report = backend.tune(network, trials=2, database=tmp_path)
    assert report.trials > 0
    assert any(kernel.tuned for kernel in backend.compile(network, database=tmp_path).kernels)
    profile = profile_network(backend, network, tmp_path)
    estimate = LatencyModel.of_calibration(profile.calibration).price(kernels(network))
    assert estimate.is_known
    assert estimate.ms > 0


@gpu
def test_a_gpu_is_calibrated(tmp_path: Path) -> None:
    backend = TvmBackend("cuda")
    done = calibrate(backend, tmp_path / "gpu.json", minutes=0.1, database=tmp_path / "records", trials=0)
    assert done.calibration.fingerprint == backend.target.fingerprint()
    assert all(sample.ms > 0 for sample in done.calibration.samples)


def _modules(module: Any) -> list[Any]:
    found, waiting = list[Any](), [module]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += list(one.imports)
    return found
