"""Networks that do not fit the bundle, and answers that are no numbers: found out before any time is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netcut_fx.bundle import write_bundle
from netcut_fx.network_files import write_onnx, write_program
from tests.command_line import netcut, refused
from tests.tiny_bundle import CLASSES, SIZE, runtime_library, tiny_bundle, tiny_manifest, weights

pytest.importorskip("tvm_ffi")

GIVE = "the network that the bundle was compiled from with --network"


@pytest.fixture(scope="module")
def bundle(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", library)


class Tiny(nn.Module):
    """What the bundle computes, with as many classes as it has, or others."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.weight, self.matrix, self.bias = (
            nn.Parameter(torch.from_numpy(array), requires_grad=False) for array in weights().values()
        )
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        features = nn.functional.conv2d(x, self.weight, padding=1).relu().mean((2, 3))
        return (features @ self.matrix + self.bias)[:, : self.classes]


class TwoInputs(Tiny):
    """Reads a second image."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return super().forward(x + y)


def exported(model: nn.Module, *shapes: tuple[int, ...]) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), tuple(torch.zeros(1, 3, *shape) for shape in shapes))


def answered_otherwise(bundle: Path, peer: str, network: Path) -> str:
    return refused("bench", str(bundle), "--no-peak", "--against", peer, "--network", str(network))


@pytest.mark.parametrize("peer", ["torch-eager", "onnxruntime"])
def test_the_network_itself_is_taken(bundle: Path, tmp_path: Path, peer: str):
    for package in ("onnx", "onnxscript", "onnxruntime") if peer == "onnxruntime" else ():
        pytest.importorskip(package)
    write_program(exported(Tiny(), (SIZE, SIZE)), tmp_path / "net.pt2")
    words = ("--no-peak", "--runs", "2", "--against", peer, "--network", str(tmp_path / "net.pt2"))
    done = netcut("bench", str(bundle), *words)
    assert done.returncode == 0, done.stderr
    assert f"│ {peer} " in done.stdout


@pytest.mark.parametrize("peer", ["torch-eager", "onnxruntime"])
def test_answers_of_a_peer_that_are_no_numbers(bundle: Path, tmp_path: Path, peer: str):
    for package in ("onnx", "onnxscript", "onnxruntime") if peer == "onnxruntime" else ():
        pytest.importorskip(package)
    model = Tiny()
    model.bias[0, 2] = np.nan
    write_program(exported(model, (SIZE, SIZE)), tmp_path / "net.pt2")
    assert answered_otherwise(bundle, peer, tmp_path / "net.pt2") == (
        f"error: {peer} answers NaN or infinity where the bundle answers numbers; leave it out, or give {GIVE}"
    )


def test_a_bundle_whose_answers_are_no_numbers(library: Path, tmp_path: Path):
    params = weights()
    params["p002"][0, 2] = np.inf
    parts = {"library": library, "runtime_library": runtime_library(), "manifest": tiny_manifest()}
    write_bundle(tmp_path / "b", params=params, **parts)
    assert refused("bench", str(tmp_path / "b"), "--no-peak") == (
        f"error: the bundle {tmp_path}/b answers NaN or infinity to random images: its weights are damaged; compile "
        "the network again"
    )


def test_a_network_with_other_classes(bundle: Path, tmp_path: Path):
    write_program(exported(Tiny(CLASSES - 1), (SIZE, SIZE)), tmp_path / "net.pt2")
    assert answered_otherwise(bundle, "torch-eager", tmp_path / "net.pt2") == (
        "error: torch-eager answers (1, 4), the bundle (1, 5): the network is another one; give the one that the "
        "bundle was compiled from with --network"
    )


@pytest.mark.parametrize(
    ("peer", "what"),
    [
        *(("onnxruntime", what) for what in ("two inputs", "another size", "damaged")),
        *(("openvino", what) for what in ("two inputs", "damaged")),  # it gives this network any size itself
    ],
)
def test_an_onnx_file_that_does_not_fit(bundle: Path, tmp_path: Path, peer: str, what: str):
    for package in ("onnx", "onnxscript", peer):
        pytest.importorskip(package)
    path, size = tmp_path / "net.onnx", (SIZE, SIZE)
    if what == "two inputs":
        write_onnx(exported(TwoInputs(), size, size), path)
    else:
        write_onnx(exported(Tiny(), (SIZE + 3, SIZE + 1)), path)
    if what == "damaged":
        path.write_bytes(path.read_bytes()[:200])
    line = answered_otherwise(bundle, peer, path)
    assert line.startswith((f"error: {peer} does not run {path} (", f"error: {peer} fails ("))
    assert line.endswith(("; leave it out of --against", f"; leave it out, or give {GIVE}"))


@pytest.mark.parametrize("what", ["two inputs", "another size"])
def test_a_program_that_does_not_fit(bundle: Path, tmp_path: Path, what: str):
    model, shapes = (TwoInputs(), ((SIZE, SIZE),) * 2) if what == "two inputs" else (Tiny(), ((SIZE, SIZE + 3),))
    write_program(exported(model, *shapes), tmp_path / "net.pt2")
    line = answered_otherwise(bundle, "torch-eager", tmp_path / "net.pt2")
    assert line.startswith(f"error: torch-eager does not run {tmp_path}/net.pt2 (")
