"""The command line through its real entry point: one clear line and exit status 2 for bad input."""

from __future__ import annotations

import json
import re
import resource
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.command_line import NETCUT, ROOT, netcut, refused, run_refused
from tests.small_run import MODEL, SIZE
from tests.zoo import ZOO

UNTRACEABLE = """
import torch
class Net(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x
"""


def test_opt_prints_every_step() -> None:
    passes = "fold-batch-norm,simplify,dead-code"
    done = netcut("opt", MODEL, "--input-size", SIZE, "--passes", passes, "--print-ir")
    assert done.returncode == 0, done.stderr
    titles = [line[2:] for line in done.stdout.splitlines() if line.startswith("# ")]
    assert titles == ["before fold-batch-norm", *(f"after {name}" for name in passes.split(","))]
    answer = json.loads(netcut("opt", MODEL, "--input-size", SIZE, "--passes", passes, "--json").stdout)
    assert [step["pass"] for step in answer["steps"]] == ["input", *passes.split(",")]
    assert answer["steps"][0]["seconds"] is None
    assert answer["steps"][-1]["text"].strip() in done.stdout


def test_cut_writes_a_program_that_answers(tmp_path: Path) -> None:
    rows = json.loads(netcut("frontiers", MODEL, "--input-size", SIZE, "--json").stdout)["frontiers"]
    out = tmp_path / "trn.pt2"
    done = netcut(
        "cut", MODEL, "--at", rows[0]["name"], "--classes", "7", "--input-size", SIZE, "--out", str(out), "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["out"] == str(out)
    answer = torch.export.load(out).module()(torch.zeros(1, 3, 32, 32))
    assert answer.shape == (1, 7)


def test_passes_are_listed() -> None:
    assert {"cut", "head", "fold-batch-norm", "simplify", "dead-code"} <= set(netcut("passes").stdout.split())


def test_version() -> None:
    import netcut_fx

    assert netcut("--version").stdout.strip() == netcut_fx.__version__


@pytest.mark.parametrize(("deadline", "message"), [("0", "positive"), ("-3", "positive"), ("nan", "positive")])
def test_senseless_deadline(tmp_path: Path, deadline: str, message: str) -> None:
    assert message in run_refused(tmp_path, **{"deadline-ms": deadline})


def test_untraceable_model_names_operation_and_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(UNTRACEABLE)
    line = run_refused(tmp_path, model=f"{tmp_path}/net.py:Net")
    assert "control flow" in line
    assert "net.py:5" in line


def test_example_input_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3))\n"
    )
    line = run_refused(tmp_path, model=f"{tmp_path}/net.py:net")
    assert "float32[1, 3, 32, 32] does not fit" in line


def test_nan_in_weights(tmp_path: Path) -> None:
    state = ZOO["residual"]()[0].state_dict()
    name = next(n for n, t in state.items() if t.is_floating_point())
    state[name] = torch.full_like(state[name], float("nan"))
    save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / "w.safetensors")
    assert name in run_refused(tmp_path, weights=str(tmp_path / "w.safetensors"))


def test_data_with_one_class(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, x=np.zeros((9, 32, 32, 3), np.uint8), y=np.zeros(9, np.int64))
    assert run_refused(tmp_path, data=str(path)) == (
        f"error: {path} has one class only ('0'); a classifier needs at least two"
    )


def test_label_mismatch(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, x=np.zeros((9, 32, 32, 3), np.uint8), y=np.zeros(8, np.int64))
    assert run_refused(tmp_path, data=str(path)) == (
        f"error: {path}: x has 9 images but y has 8 labels; give one label per image"
    )


def test_empty_folder_and_unreadable_image(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in run_refused(tmp_path, data=str(tmp_path / "empty"))
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "images" / label / f"{i}.png").write_bytes(b"no image")
    assert "0.png" in run_refused(tmp_path, data=str(tmp_path / "images"))


def test_unknown_target(tmp_path: Path) -> None:
    assert "there is no target 'fpga'" in run_refused(tmp_path, target="fpga")


@pytest.mark.parametrize("command", [("cut", "--at", "layer1.0"), ("compile",)])
def test_unknown_pooling(command: tuple[str, ...]) -> None:
    assert "'max'" in refused(command[0], MODEL, "--input-size", SIZE, *command[1:], "--pool", "max")


def test_unknown_model_data_and_frontier(tmp_path: Path) -> None:
    assert "zoo" in run_refused(tmp_path, model="tests/zoo.py:Residuel")
    assert "nowhere" in run_refused(tmp_path, data="nowhere")
    assert "did you mean" in refused("cut", MODEL, "--at", "layr1.0", "--input-size", SIZE).lower()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """No file may grow beyond 10 kB, as on a disk that is nearly full; what was there before stays."""
    out = tmp_path / "trn.pt2"
    out.write_text("an older one")
    done = subprocess.run(
        [NETCUT, "cut", MODEL, "--at", "layer1.0", "--input-size", SIZE, "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"error: cannot write {out}: no space left on the device; nothing else was changed. Free space and run it again"
    )
    assert "Traceback" not in done.stderr
    assert out.read_text() == "an older one"
    assert list(tmp_path.iterdir()) == [out]


def test_report_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert "is not the result of a run" in refused("report", str(tmp_path / "x.json"))


def test_unknown_pass() -> None:
    line = refused("opt", MODEL, "--input-size", SIZE, "--passes", "simplify,fold-batchnorm")
    assert line.startswith("error: there is no pass 'fold-batchnorm' (did you mean 'fold-batch-norm'?); passes: ")


# The command that `make demo` runs.


def demo_commands() -> list[list[str]]:
    """Words after ``netcut`` of each of its calls in the recipe of `demo`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (recipe,) = re.findall(r"^demo:[^\n]*\n((?:\t[^\n]*\n)+)", makefile, re.MULTILINE)
    words = [shlex.split(line.replace("$(BIN)/", "")) for line in recipe.splitlines()]
    return [line[1:] for line in words if line[0].lstrip("@-") == "netcut"]


def test_the_demo_of_the_makefile_is_a_command_with_these_options() -> None:
    commands = demo_commands()
    assert commands
    for words in commands:
        # Options are parsed before --help answers, so that an unknown one is still an error.
        done = netcut(*words, "--help")
        assert done.returncode == 0, done.stderr
        assert f"netcut {words[0]}" in done.stdout
        assert netcut(*words, "--no-such-option", "--help").returncode == 2
