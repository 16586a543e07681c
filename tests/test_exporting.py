"""Networks as files for other runtimes: they answer as torch does."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from netcut_fx import exporting
from netcut_fx.cutting import cut
from netcut_fx.errors import BackendError, SpecError
from netcut_fx.frontier import frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.passes.head import HeadPass
from netcut_fx.tracing import trace
from tests.small_run import MODEL, SIZE, residual
from tests.test_cli import netcut, refused


@pytest.fixture(scope="module")
def trn() -> TracedModule:
    traced = trace(residual(), torch.zeros(1, 3, 32, 32), name="residual")
    return cut(traced, "layer1.0", head=HeadPass(7))


def images(batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_a_program_answers_as_the_network(trn: TracedModule, tmp_path: Path, dynamic_batch: bool):
    out = tmp_path / "new" / "trn.pt2"
    exporting.write_program(exporting.program_of(trn, dynamic_batch=dynamic_batch), out)
    module = exporting.read_program(out).module()
    for batch in (1, 5) if dynamic_batch else (1,):
        torch.testing.assert_close(module(images(batch)), trn.graph_module(images(batch)))


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_onnx_runtime_answers_as_torch(trn: TracedModule, tmp_path: Path, dynamic_batch: bool):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    program, out = exporting.program_of(trn, dynamic_batch=dynamic_batch), tmp_path / "trn.onnx"
    exporting.write_onnx(program, out)
    onnx.checker.check_model(str(out), full_check=True)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for batch in (1, 5) if dynamic_batch else (1,):
        (found,) = session.run(None, {session.get_inputs()[0].name: images(batch).numpy()})
        np.testing.assert_allclose(found, trn.graph_module(images(batch)).detach().numpy(), rtol=1e-3, atol=1e-5)
    assert exporting.onnx_error(out, program) <= 1e-5


def test_a_file_of_another_network_is_found_out(trn: TracedModule, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    exporting.write_onnx(exporting.program_of(trn), tmp_path / "trn.onnx")
    traced = trace(residual(), torch.zeros(1, 3, 32, 32))
    other = exporting.program_of(cut(traced, frontiers(traced)[1], head=HeadPass(7)))
    with pytest.raises(BackendError, match=r"ONNX Runtime answers otherwise than torch from .*: relative error "):
        exporting.onnx_error(tmp_path / "trn.onnx", other)


def test_without_onnx_it_says_which_extra_brings_it(trn: TracedModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    find = exporting.importlib.util.find_spec
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    with pytest.raises(BackendError) as error:
        exporting.write_onnx(exporting.program_of(trn), tmp_path / "trn.onnx")
    assert str(error.value) == (
        "writing ONNX needs onnx, which is not installed; install it with: pip install 'netcut-fx[peers]'"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_static_program_gets_an_open_batch(trn: TracedModule, tmp_path: Path):
    exporting.write_program(exporting.program_of(trn), tmp_path / "trn.pt2")
    opened = exporting.with_dynamic_batch(exporting.read_program(tmp_path / "trn.pt2"))
    assert [tuple(x.shape) for x in exporting.example_inputs(opened)] == [(1, 3, 32, 32)]
    torch.testing.assert_close(opened.module()(images(4)), trn.graph_module(images(4)))


def test_files_that_are_no_programs(tmp_path: Path):
    with pytest.raises(SpecError, match=r"cannot read the network .*gone\.pt2: No such file or directory; give"):
        exporting.read_program(tmp_path / "gone.pt2")
    (tmp_path / "bad.pt2").write_bytes(b"nothing")
    with pytest.raises(SpecError, match=r"bad\.pt2 is no torch\.export program \(.*\); write it with netcut export"):
        exporting.read_program(tmp_path / "bad.pt2")


class _OneImageOnly(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, 3, 32 * 32).mean(2)


def test_a_network_bound_to_one_batch_size_says_so(tmp_path: Path):
    traced = trace(_OneImageOnly(), torch.zeros(1, 3, 32, 32), name="one")
    with pytest.raises(
        BackendError, match=r"torch\.export refuses one \(.*\); leave --dynamic-batch out: the graph may"
    ):
        exporting.program_of(traced, dynamic_batch=True)
    notes: list[str] = []
    exporting.write_network_beside(traced, tmp_path / "bundle", notes.append)
    assert notes == []
    assert exporting.read_program(tmp_path / "bundle.pt2").module()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_a_network_that_cannot_be_exported_leaves_none_behind(
    trn: TracedModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    exporting.write_program(exporting.program_of(trn), tmp_path / "bundle.pt2")
    monkeypatch.setattr(torch.export, "export", refuse)
    notes: list[str] = []
    exporting.write_network_beside(trn, tmp_path / "bundle", notes.append)
    assert notes == [
        "torch.export refuses residual@layer1.0 (RuntimeError: no such operator); report it; the bundle "
        f"{tmp_path}/bundle is complete"
    ]
    assert list(tmp_path.iterdir()) == []


class _Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("where", ["weights", "constants", "sample_inputs", "compiled"])
def test_nothing_in_a_foreign_program_is_run(
    trn: TracedModule, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    exporting.write_program(exporting.program_of(trn), tmp_path / "trn.pt2")
    pickled = io.BytesIO()
    torch.save(_Dangerous(), pickled)
    with zipfile.ZipFile("trn.pt2") as source, zipfile.ZipFile("bad.pt2", "w") as bad:
        for name in source.namelist():
            data = source.read(name)
            if where == "sample_inputs" and name.endswith("sample_inputs/model.pt"):
                data = pickled.getvalue()
            if where == "weights" and name.endswith("_weights_config.json"):
                config = json.loads(data)
                next(iter(config["config"].values()))["use_pickle"] = True
                data = json.dumps(config).encode()
            if where == "weights" and name.endswith("/weight_0"):
                data = pickled.getvalue()
            if where == "constants" and name.endswith("_constants_config.json"):
                entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
                data = json.dumps({"config": {"x": entry}}).encode()
            bad.writestr(name, data)
        if where == "constants":
            bad.writestr("archive/data/constants/opaque_obj_0", pickled.getvalue())
        if where == "compiled":
            bad.writestr("archive/data/aotinductor/model/model.so", b"")
    with pytest.raises(SpecError, match=r"bad\.pt2 is no torch\.export program \(.*\); write it with netcut export"):
        exporting.read_program(tmp_path / "bad.pt2")
    assert not (tmp_path / "unpickled").exists()


def test_relative_errors():
    assert exporting.relative_error([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert exporting.relative_error([1.0], [1.0, 4.0]) == float("inf")
    assert exporting.relative_error([0.0], [0.0]) == 0


def test_the_command_writes_both_formats(tmp_path: Path):
    words = ("export", MODEL, "--input-size", SIZE, "--at", "layer1.0", "--classes", "7", "--json")
    out = tmp_path / "trn.pt2"
    done = netcut(*words, "--format", "pt2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["out"], answer["bytes"]) == (str(out), out.stat().st_size)
    assert exporting.read_program(out).module()(images(1)).shape == (1, 7)
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    done = netcut(*words, "--dynamic-batch", "--out", str(tmp_path / "trn.onnx"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["relative_error_onnxruntime"] <= 1e-5


def test_a_finished_run_is_exported_as_it_is(trn: TracedModule, tmp_path: Path):
    exporting.write_program(exporting.program_of(trn), exporting.network_beside(tmp_path / "run" / "bundle"))
    out = tmp_path / "trn.pt2"
    done = netcut("export", str(tmp_path / "run"), "--format", "pt2", "--dynamic-batch", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}: 0.")
    torch.testing.assert_close(exporting.read_program(out).module()(images(2)), trn.graph_module(images(2)))
    line = refused("export", str(tmp_path / "run"), "--at", "layer1.0", "--out", str(out))
    assert line.endswith("run is a finished run, its network is exported as it is; leave the other options out")
    (tmp_path / "empty").mkdir()
    line = refused("export", str(tmp_path / "empty"), "--out", str(out))
    assert line.startswith(
        f"error: {tmp_path}/empty is no finished run: there is no file {tmp_path}/empty/bundle.pt2; "
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "onx"), "error: there is no format 'onx'; did you mean 'onnx'?"),
        (("--classes", "3"), "error: --classes puts a new head on a cut; give --at as well"),
    ],
)
def test_export_with_wrong_options(tmp_path: Path, words: tuple[str, ...], message: str):
    line = refused("export", MODEL, "--input-size", SIZE, "--out", str(tmp_path / "out"), *words)
    assert line == message
    assert list(tmp_path.iterdir()) == []
