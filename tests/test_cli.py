"""The command line through its real entry point: one clear line and exit status 2 for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.small_run import DATA, MODEL, SIZE
from tests.zoo import ZOO

ROOT = Path(__file__).parent.parent
NETCUT = str(Path(sys.executable).with_name("netcut"))

UNTRACEABLE = """
import torch
class Net(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x
"""


def netcut(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([NETCUT, *arguments], capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)


def refused(*arguments: str) -> str:
    """The one line on which a command refuses its input."""
    done = netcut(*arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def run_refused(tmp_path: Path, **changed: str) -> str:
    given = {
        "model": MODEL,
        "data": DATA,
        "input-size": SIZE,
        "deadline-ms": "1",
        "out": str(tmp_path / "out"),
        **changed,
    }
    return refused("run", *(word for name, value in given.items() for word in (f"--{name}", value)))


def test_frontiers_as_json() -> None:
    done = netcut("frontiers", MODEL, "--input-size", SIZE, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["frontiers"]
    assert len(rows) >= 2
    assert [r["kept_flops"] for r in rows] == sorted(r["kept_flops"] for r in rows)
    assert all(r["kept_params"] >= 0 and r["removed_params"] > 0 for r in rows)


def test_opt_prints_every_step() -> None:
    passes = "fold-batch-norm,simplify,dead-code"
    done = netcut("opt", MODEL, "--input-size", SIZE, "--passes", passes, "--print-ir")
    assert done.returncode == 0, done.stderr
    titles = [line[2:] for line in done.stdout.splitlines() if line.startswith("# ")]
    assert titles == ["input", *passes.split(",")]


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
    np.savez(tmp_path / "one.npz", x=np.zeros((9, 32, 32, 3), np.uint8), y=np.zeros(9, np.int64))
    assert "class" in run_refused(tmp_path, data=str(tmp_path / "one.npz"))


def test_label_mismatch(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", x=np.zeros((9, 32, 32, 3), np.uint8), y=np.zeros(8, np.int64))
    assert "9" in run_refused(tmp_path, data=str(tmp_path / "bad.npz"))


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


def test_unknown_model_data_and_frontier(tmp_path: Path) -> None:
    assert "zoo" in run_refused(tmp_path, model="tests/zoo.py:Residuel")
    assert "nowhere" in run_refused(tmp_path, data="nowhere")
    assert "did you mean" in refused("cut", MODEL, "--at", "layr1.0", "--input-size", SIZE).lower()


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is not there")
    out = tmp_path / "trn.pt2"
    out.symlink_to("/dev/full")
    rows = json.loads(netcut("frontiers", MODEL, "--input-size", SIZE, "--json").stdout)["frontiers"]
    assert "write" in refused("cut", MODEL, "--at", rows[0]["name"], "--input-size", SIZE, "--out", str(out))


def test_report_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert "is not the result of a run" in refused("report", str(tmp_path / "x.json"))
