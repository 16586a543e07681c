"""The command line through its real entry point: one clear line and exit status 2 for bad input."""

from __future__ import annotations

import json
import re
import resource
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from netcut_fx.bundle import LIBRARY_FILE, PARAMS_FILE, RUNTIME_FILE, read_bundle, write_bundle
from netcut_fx.manifest import MANIFEST_FILE
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


@pytest.mark.parametrize(
    ("layers", "listed", "run"),
    [
        # The flattened image itself could be kept: a cut, but none where a block ends.
        (
            "Flatten(), n.Linear(3072, 4)",
            "has no block frontier of width up to 1; use --granularity node (granularity='node')",
            "has no block frontier of width up to 1; use --granularity node (granularity='node')",
        ),
        (
            "Conv2d(3, 4, 32), n.Flatten()",
            "has no block frontier of width up to 1; the network has no point where a trunk could end",
            "has no frontier where one tensor crosses; look at wider ones with max_width, or restructure its forward "
            "so that one tensor carries the features",
        ),
    ],
)
def test_model_without_a_valid_frontier(tmp_path: Path, layers: str, listed: str, run: str) -> None:
    (tmp_path / "net.py").write_text(f"import torch.nn as n\ndef net():\n    return n.Sequential(n.{layers})\n")
    spec = f"{tmp_path}/net.py:net"
    assert refused("frontiers", spec, "--input-size", SIZE) == f"error: {spec} {listed}"
    assert run_refused(tmp_path, model=spec) == f"error: {spec} {run}"


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


# Everything below compiles.


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A calibration that `estimate` wrote, and its estimates."""
    pytest.importorskip("tvm")
    folder = tmp_path_factory.mktemp("estimate")
    file = folder / "calibration.json"
    done = netcut(*estimate_words(file), "--trials", "1", "--database", str(folder / "tuning"), "--json")
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("tuning/*/database_tuning_record.json"))) == 1
    return file, json.loads(done.stdout)["estimates"]


def estimate_words(calibration: Path) -> list[str]:
    return ["estimate", MODEL, "--input-size", SIZE, "--classes", "7", "--calibration", str(calibration)]


def test_estimate_lists_every_cut_with_its_interval(calibrated: tuple[Path, list[dict[str, Any]]]) -> None:
    _, rows = calibrated
    listed = json.loads(netcut("frontiers", MODEL, "--input-size", SIZE, "--json").stdout)["frontiers"]
    names = [row["name"] for row in rows]
    assert names[:3] == [row["name"] for row in listed][:3]
    assert len(set(names)) == len(names)
    for row in rows:
        assert 0 < row["low_ms"] <= row["predicted_ms"] <= row["high_ms"]
        assert row["missing"] == []
        assert sum(row["provenance"].values()) == pytest.approx(row["predicted_ms"])
    assert rows[0]["predicted_ms"] < rows[-1]["predicted_ms"]


def test_estimate_reads_the_calibration_that_it_wrote(calibrated: tuple[Path, list[dict[str, Any]]]) -> None:
    file, rows = calibrated
    before = file.read_bytes()
    done = netcut(*estimate_words(file), "--json")
    assert done.returncode == 0, done.stderr
    assert "profile" not in done.stderr
    assert json.loads(done.stdout)["estimates"] == rows
    assert file.read_bytes() == before


def test_estimate_explains_what_it_rests_on(calibrated: tuple[Path, list[dict[str, Any]]]) -> None:
    file, rows = calibrated
    done = netcut(*estimate_words(file), "--explain")
    assert done.returncode == 0, done.stderr
    assert "rests on" in done.stdout
    for row in rows:
        assert row["name"] in done.stdout
        assert f"{row['predicted_ms']:.3f}" in done.stdout
    assert "measured" in done.stdout
    assert "rests on" not in netcut(*estimate_words(file)).stdout


def test_estimate_refuses_a_calibration_that_is_not_its_own(
    calibrated: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    stored = json.loads(calibrated[0].read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**stored, "fingerprint": "0" * 64}))
    line = refused(*estimate_words(other))
    assert line.startswith(f"error: {other}: made for another target or toolchain (000000000000, this is ")
    assert line.endswith("); calibrate again on this machine")
    other.write_bytes(calibrated[0].read_bytes()[:100])
    assert refused(*estimate_words(other)).startswith(f"error: {other}: not a calibration (")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `compile` makes of the first cut of the residual network with a head for 7 classes."""
    pytest.importorskip("tvm")
    folder = tmp_path_factory.mktemp("compile")
    words = ["compile", MODEL, "--input-size", SIZE, "--at", "layer1.0", "--classes", "7", "--trials", "1"]
    done = netcut(*words, "--database", str(folder / "tuning"), "--out", str(folder / "bundle"), "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["bundle"] == str(folder / "bundle")
    assert answer["untuned_kernels"] == []
    assert answer["measured"]["ms"] > 0
    return folder / "bundle"


def test_compile_writes_a_bundle_that_says_what_it_is(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert (manifest.frontier, manifest.input_shape, manifest.output_shape) == ("layer1.0", (1, 3, 32, 32), (1, 7))
    assert len(manifest.labels) == 7


def test_bench_times_the_bundle(bundle: Path) -> None:
    done = netcut("bench", str(bundle), "--repeat", "7", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["measured"]["rounds"] == 7
    assert 0 < answer["measured"]["low_ms"] <= answer["measured"]["ms"] <= answer["measured"]["high_ms"]
    assert answer["measured_when_built_ms"] == read_bundle(bundle).manifest.measurement["ms"]
    assert answer["deadline_ms"] is None
    assert answer["meets_deadline"] is None
    text = netcut("bench", str(bundle)).stdout
    assert "(21 rounds of" in text
    assert "when it was built:" in text


def test_bench_of_a_bundle_with_a_flipped_byte(bundle: Path, tmp_path: Path) -> None:
    for name in (LIBRARY_FILE, RUNTIME_FILE, PARAMS_FILE):
        copy = tmp_path / name / "bundle"
        shutil.copytree(bundle, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        line = refused("bench", str(copy))
        assert line.startswith(f"error: {name} in the bundle {copy} was changed after it was written: SHA-256 ")
        assert line.endswith("; copy the bundle again")
    shutil.copytree(bundle, tmp_path / "m")
    text = (tmp_path / "m" / MANIFEST_FILE).read_text()
    (tmp_path / "m" / MANIFEST_FILE).write_text(text.replace('"layer1.0"', '"layer1.1"'))
    assert "it was changed after the bundle was written" in refused("bench", str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cpu_model": "A CPU of another kind"}, "A CPU of another kind"),
        ({"features": ("sve2",)}, "sve2"),
        ({"arch": "riscv64"}, "it was compiled for Linux on riscv64, this machine is "),
        ({"kind": "cuda"}, "it was compiled for cuda, this runtime drives CPUs; compile it for llvm"),
    ],
)
def test_bench_of_a_bundle_of_another_target(
    bundle: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    whole = read_bundle(bundle)
    write_bundle(
        tmp_path / "other",
        library=whole.library,
        runtime_library=whole.runtime_library,
        params=whole.params,
        manifest=replace(whole.manifest, target=replace(whole.manifest.target, **changed)),
    )
    line = refused("bench", str(tmp_path / "other"))
    assert line.startswith(f"error: cannot load the bundle {tmp_path}/other: ")
    assert message in line


def test_bench_on_another_cpu_model_works_when_asked_for(bundle: Path, tmp_path: Path) -> None:
    whole = read_bundle(bundle)
    target = replace(whole.manifest.target, cpu_model="A CPU of another kind")
    files = {"library": whole.library, "runtime_library": whole.runtime_library, "params": whole.params}
    write_bundle(tmp_path / "other", manifest=replace(whole.manifest, target=target), **files)
    done = netcut("bench", str(tmp_path / "other"), "--any-cpu", "--repeat", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["measured"]["ms"] > 0


def test_a_deadline_below_the_smallest_network_says_what_is_reachable(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    line = run_refused(tmp_path, **{"deadline-ms": "0.0001", "trials": "0"})
    found = re.fullmatch(
        r"error: no trimmed network meets 0\.0001 ms: the smallest, cut at layer1\.0, is predicted to take "
        r"(\d+\.\d+) ms; allow at least that, use --granularity kernel for earlier cuts, or start from a "
        r"smaller network",
        line,
    )
    assert found, line
    assert float(found[1]) > 0.0001
