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

from netcut_fx import network_files
from netcut_fx.bundle import network_beside
from netcut_fx.cutting import cut
from netcut_fx.errors import BackendError, SpecError
from netcut_fx.frontier import frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.passes.head import HeadPass
from netcut_fx.tracing import trace
from tests.command_line import netcut, refused
from tests.small_run import MODEL, SIZE, residual
from tests.without_packages import error_without


@pytest.fixture(scope="module")
def trn() -> TracedModule:
    traced = trace(residual(), torch.zeros(1, 3, 32, 32), name="residual")
    return cut(traced, "layer1.0", head=HeadPass(7))


@pytest.fixture(scope="module", params=["fx", "export"])
def either(request: pytest.FixtureRequest) -> TracedModule:
    """A cut with a head of a network traced on either path."""
    traced = trace(residual(), torch.zeros(1, 3, 32, 32), name="residual", via=request.param)
    return cut(traced, "layer1.0", head=HeadPass(7))


def images(batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_a_program_answers_as_the_network(either: TracedModule, tmp_path: Path, dynamic_batch: bool):
    out = tmp_path / "new" / "trn.pt2"
    network_files.write_program(network_files.program_of(either, dynamic_batch=dynamic_batch), out)
    module = network_files.read_program(out).module()
    for batch in (1, 5) if dynamic_batch else (1,):
        torch.testing.assert_close(module(images(batch)), either.graph_module(images(batch)))


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_onnx_runtime_answers_as_torch(either: TracedModule, tmp_path: Path, dynamic_batch: bool):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    program, out = network_files.program_of(either, dynamic_batch=dynamic_batch), tmp_path / "trn.onnx"
    network_files.write_onnx(program, out)
    onnx.checker.check_model(str(out), full_check=True)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for batch in (1, 5) if dynamic_batch else (1,):
        (found,) = session.run(None, {session.get_inputs()[0].name: images(batch).numpy()})
        np.testing.assert_allclose(found, either.graph_module(images(batch)).detach().numpy(), rtol=1e-3, atol=1e-5)
    assert network_files.onnx_error(out, program) <= 1e-5


def test_a_file_of_another_network_is_found_out(trn: TracedModule, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network_files.write_onnx(network_files.program_of(trn), tmp_path / "trn.onnx")
    traced = trace(residual(), torch.zeros(1, 3, 32, 32))
    other = network_files.program_of(cut(traced, frontiers(traced)[1], head=HeadPass(7)))
    with pytest.raises(BackendError, match=r"ONNX Runtime answers otherwise than torch from .*: relative error "):
        network_files.onnx_error(tmp_path / "trn.onnx", other)


def test_without_onnx_it_says_which_extra_brings_it(trn: TracedModule, tmp_path: Path):
    network_files.write_program(network_files.program_of(trn), tmp_path / "trn.pt2")
    code = (
        "from pathlib import Path\n"
        "from netcut_fx.network_files import read_program, write_onnx\n"
        "write_onnx(read_program(Path('trn.pt2')), Path('trn.onnx'))\n"
    )
    assert error_without(("onnx",), code, tmp_path) == (
        "netcut_fx.errors.BackendError: writing ONNX needs onnx, which is not installed; install it with: pip install "
        "'netcut-fx[peers]'"
    )
    assert not (tmp_path / "trn.onnx").exists()


def test_a_static_program_gets_an_open_batch(trn: TracedModule, tmp_path: Path):
    network_files.write_program(network_files.program_of(trn), tmp_path / "trn.pt2")
    opened = network_files.with_dynamic_batch(network_files.read_program(tmp_path / "trn.pt2"))
    assert [tuple(x.shape) for x in network_files.example_inputs(opened)] == [(1, 3, 32, 32)]
    torch.testing.assert_close(opened.module()(images(4)), trn.graph_module(images(4)))


def test_files_that_are_no_programs(tmp_path: Path):
    with pytest.raises(SpecError, match=r"cannot read the network .*gone\.pt2: No such file or directory; give"):
        network_files.read_program(tmp_path / "gone.pt2")
    (tmp_path / "bad.pt2").write_bytes(b"nothing")
    with pytest.raises(SpecError, match=r"bad\.pt2 is no torch\.export program \(.*\); write it with netcut export"):
        network_files.read_program(tmp_path / "bad.pt2")


class _OneImageOnly(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, 3, 32 * 32).mean(2)


def test_a_network_bound_to_one_batch_size_says_so(tmp_path: Path):
    traced = trace(_OneImageOnly(), torch.zeros(1, 3, 32, 32), name="one")
    with pytest.raises(
        BackendError, match=r"torch\.export refuses one \(.*\); leave --dynamic-batch out: the graph may"
    ):
        network_files.program_of(traced, dynamic_batch=True)
    notes: list[str] = []
    network_files.write_network_beside(traced, tmp_path / "bundle", notes.append)
    assert notes == []
    assert network_files.read_program(tmp_path / "bundle.pt2").module()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


class _Turning(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_exported_leaves_none_behind(trn: TracedModule, tmp_path: Path):
    network_files.write_program(network_files.program_of(trn), tmp_path / "bundle.pt2")
    model = torch.nn.Sequential(_Turning(), torch.nn.Linear(3, 3))
    whole = trace(model, torch.zeros(1, 3), name="turning", leaf_modules=("_Turning",))
    notes: list[str] = []
    network_files.write_network_beside(whole, tmp_path / "bundle", notes.append)
    (note,) = notes
    assert note.startswith("torch.export refuses turning (GuardOnDataDependentSymNode: ")
    assert note.endswith(f"; report it; the bundle {tmp_path}/bundle is complete")
    assert list(tmp_path.iterdir()) == []


class _Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("where", ["weights", "constants", "sample_inputs", "compiled"])
def test_nothing_in_a_foreign_program_is_run(
    trn: TracedModule, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    network_files.write_program(network_files.program_of(trn), tmp_path / "trn.pt2")
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
        network_files.read_program(tmp_path / "bad.pt2")
    assert not (tmp_path / "unpickled").exists()


def test_relative_errors():
    assert network_files.relative_error([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert network_files.relative_error([1.0], [1.0, 4.0]) == float("inf")
    assert network_files.relative_error([0.0], [0.0]) == 0
    assert network_files.relative_error([float("nan")], [1.0]) == float("inf")


def test_the_command_writes_both_formats(tmp_path: Path):
    words = ("export", MODEL, "--input-size", SIZE, "--at", "layer1.0", "--classes", "7", "--json")
    out = tmp_path / "trn.pt2"
    done = netcut(*words, "--format", "pt2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["out"], answer["bytes"]) == (str(out), out.stat().st_size)
    assert network_files.read_program(out).module()(images(1)).shape == (1, 7)
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    done = netcut(*words, "--dynamic-batch", "--out", str(tmp_path / "trn.onnx"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["relative_error_onnxruntime"] <= 1e-5


NETS = """
import torch

class Both(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.fc = torch.nn.Embedding(4, 8), torch.nn.Linear(8, 3)

    def forward(self, ids, mask):
        seen = (self.words(ids) * mask.unsqueeze(2)).sum(1)
        return {"logits": self.fc(seen), "seen": seen}
"""


@pytest.mark.parametrize("via", ["fx", "export"])
def test_networks_with_several_inputs_and_outputs(tmp_path: Path, via: str):
    """Traced as `cut` does, with indices that must stay in range."""
    (tmp_path / "nets.py").write_text(NETS)
    inputs = ("--input", "ids=1x5:int64", "--input", "mask=1x5", "--leaf-module", "Embedding", "--via", via)
    words = ("export", f"{tmp_path}/nets.py:Both", *inputs, "--dynamic-batch")
    out = tmp_path / "both.pt2"
    done = netcut(*words, "--format", "pt2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    answer = network_files.read_program(out).module()(torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5))
    assert {name: tuple(value.shape) for name, value in answer.items()} == {"logits": (2, 3), "seen": (2, 8)}
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    done = netcut(*words, "--out", str(tmp_path / "both.onnx"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["relative_error_onnxruntime"] <= 1e-5


def test_a_finished_run_is_exported_as_it_is(trn: TracedModule, tmp_path: Path):
    program = network_files.program_of(trn)
    network_files.write_program(program, network_beside(tmp_path / "run" / "bundle"))
    out = tmp_path / "trn.pt2"
    done = netcut("export", str(tmp_path / "run"), "--format", "pt2", "--dynamic-batch", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}: 0.")
    torch.testing.assert_close(network_files.read_program(out).module()(images(2)), trn.graph_module(images(2)))
    for option in (("--at", "layer1.0"), ("--via", "fx"), ("--input", "1x3x32x32")):
        line = refused("export", str(tmp_path / "run"), *option, "--out", str(out))
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
        (("--pool", "max"), "error: pool 'max' is unknown; use one of auto, mean, class-token"),
    ],
)
def test_export_with_wrong_options(tmp_path: Path, words: tuple[str, ...], message: str):
    line = refused("export", MODEL, "--input-size", SIZE, "--out", str(tmp_path / "out"), *words)
    assert line == message
    assert list(tmp_path.iterdir()) == []
