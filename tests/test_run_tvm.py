"""`netcut run` with the real compiler, through its real entry point; killed and started again, out of space."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from netcut_fx.atomic_files import PARTIAL_PREFIX
from netcut_fx.bundle import RUNTIME_FILE, read_bundle
from tests.small_run import DATA, MODEL, SIZE, digits

pytest.importorskip("tvm")

ROOT = Path(__file__).parent.parent


def command(out: Path, *more: str) -> list[str]:
    netcut = Path(sys.executable).with_name("netcut")
    return [
        *(str(netcut), "run", "--model", MODEL, "--data", DATA, "--input-size", SIZE, "--trials", "1"),
        *("--shortlist", "1", "--epochs", "2", "--out", str(out), "--json", *more),
    ]


def run(out: Path, *more: str, largest_file_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """A run to its end; `largest_file_bytes` makes every write beyond it fail, as on a disk that is nearly full."""

    def limit() -> None:
        if largest_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, largest_file_bytes))

    return subprocess.run(
        command(out, *more), capture_output=True, text=True, cwd=ROOT, check=False, timeout=500, preexec_fn=limit
    )


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a run that refused to go on."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def reused_stages(result: dict[str, Any]) -> set[str]:
    return {stage["name"] for stage in result["stages"] if stage["reused"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run at 95 % of the uncut network's latency."""
    done = run(tmp_path_factory.mktemp("run"), "--deadline-fraction", "0.95")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_result_holds_what_was_promised(finished: dict[str, Any]) -> None:
    chosen, uncut = finished["chosen"], finished["uncut"]
    assert chosen["measured_ms"] <= finished["deadline_ms"]
    assert chosen["low_ms"] <= chosen["predicted_ms"] <= chosen["high_ms"]
    assert 0 <= chosen["test_low"] <= chosen["test_accuracy"] <= chosen["test_high"] <= 1
    assert uncut["measured_ms"] > 0
    assert 0 <= uncut["test_accuracy"] <= 1
    for row in finished["candidates"]:
        assert row["verdict"] in {"chosen", "feasible", "infeasible", "refused", "unknown"}
        assert row["reason"]
        assert row["kept_flops"] > 0
    assert [row["name"] for row in finished["candidates"] if row["verdict"] == "chosen"] == [chosen["frontier"]]
    stored = json.loads((Path(finished["report"]).parent / "result.json").read_text())
    assert stored == finished


def test_bundle_answers_like_torch_in_a_process_without_torch(finished: dict[str, Any]) -> None:
    agreement = finished["agreement"]
    assert agreement["max_relative_error"] <= 1e-4
    assert agreement["same_top1"] == agreement["images"] > 0


def test_bundle_serves_and_is_as_accurate_as_reported(finished: dict[str, Any], tmp_path: Path) -> None:
    images, labels = digits().subset("test")
    np.savez(tmp_path / "images.npz", images=images)
    code = (
        "import sys, numpy as np; from netcut_fx.runtime import load; "
        "p = load(sys.argv[1]).predict(np.load(sys.argv[2])['images']); print(p.indices.tolist())"
    )
    served = subprocess.run(
        [sys.executable, "-c", code, finished["bundle"], str(tmp_path / "images.npz")],
        capture_output=True,
        text=True,
        check=True,
    )
    correct = (np.asarray(json.loads(served.stdout)) == labels).mean()
    assert correct == pytest.approx(finished["chosen"]["test_accuracy"])


def test_report_and_bench_of_the_run(finished: dict[str, Any], tmp_path: Path) -> None:
    netcut = str(Path(sys.executable).with_name("netcut"))
    result = Path(finished["report"]).parent / "result.json"
    done = subprocess.run(
        [netcut, "report", str(result), "--out", str(tmp_path / "r.html")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == Path(finished["report"]).read_text()
    bench = subprocess.run([netcut, "bench", finished["bundle"], "--json"], capture_output=True, text=True, check=True)
    measured = json.loads(bench.stdout)
    assert measured["deadline_ms"] == finished["deadline_ms"]
    assert measured["measured"]["ms"] > 0


def test_the_network_lies_beside_its_bundle(finished: dict[str, Any]) -> None:
    netcut = str(Path(sys.executable).with_name("netcut"))
    words = (netcut, "bench", finished["bundle"], "--against", "torch-eager", "--no-peak", "--runs", "3", "--json")
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    own, eager = json.loads(done.stdout)["timings"]
    assert eager["relative_error"] < 1e-4
    listed = read_bundle(Path(finished["bundle"])).manifest.measurement["kernels"]
    assert [kernel["flops"] for kernel in own["kernels"]] == [row["flops"] for row in listed]


# Every candidate meets this deadline on any machine, so that noise of the clock decides nothing.
AMPLE = ("--deadline-ms", "1000", "--shortlist", "2")


def whole_lines(folder: Path, pattern: str) -> list[str]:
    """Lines with their end, of all files below `folder` that match."""
    return [
        line for path in sorted(folder.rglob(pattern)) for line in path.read_text().splitlines(True) if line[-1] == "\n"
    ]


def trained_epochs(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Records of the finished epochs of fine-tuning, by checkpoint."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in out.glob("training/retrain-*.safetensors"):
        with safe_open(path, framework="np") as file:
            history = json.loads(file.metadata()["facts"])["history"]
        found[path.name] = [record for record in history if record["stage"] == "fine-tuning"]
    return found


def stored(out: Path) -> dict[str, tuple[int, int, bytes]]:
    """Finished stages: a file that was written again would be another inode, even with the same bytes."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in (out / "stages").glob("*")
        if path.is_file() and not path.name.startswith(PARTIAL_PREFIX)
    }


def stage_is_stored(name: str) -> Callable[[Path], bool]:
    return lambda out: any(file.startswith(f"{name}-") for file in stored(out))


#: When to kill -9, in the order in which a run gets there; and whether the process is hit alone, as by a user's
#: ``kill -9 PID``, or with all processes it has started.
KILLS: tuple[tuple[str, Callable[[Path], bool], bool], ...] = (
    ("features are stored", stage_is_stored("features"), False),
    ("two kernels are tuned", lambda out: len(whole_lines(out / "tuning", "database_tuning_record.json")) >= 2, True),
    ("the profile is stored", stage_is_stored("profile"), False),
    ("a candidate is measured", stage_is_stored("measured"), False),
    ("an epoch is trained", lambda out: any(trained_epochs(out).values()), False),
    ("the bundle is written", lambda out: any(out.glob(f"{PARTIAL_PREFIX}*/bundle/manifest.json")), False),
)


def kill_when(out: Path, ready: Callable[[Path], bool], alone: bool) -> None:
    """Start a run and SIGKILL it as soon as `ready`, before it has a result."""
    process = subprocess.Popen(
        command(out, *AMPLE),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 300
    try:
        while not ready(out):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < until, "the run never came to the point where it is to be killed"
            time.sleep(0.004)
    finally:
        if alone:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (out / "result.json").exists(), "the run was killed too late"


def test_killed_at_every_step_and_started_again_it_reuses_what_was_finished(tmp_path: Path) -> None:
    """One run, killed six times: what each start finds finished is there in the end, not made again."""
    out = tmp_path / "run"
    stages: dict[str, tuple[int, int, bytes]] = {}
    records: list[str] = []
    epochs: dict[str, list[dict[str, Any]]] = {}
    for step, ready, alone in KILLS:
        kill_when(out, ready, alone)
        assert stages.items() <= stored(out).items(), f"killed when {step}: a finished stage was made again"
        now = whole_lines(out / "tuning", "database_tuning_record.json")
        assert now[: len(records)] == records, f"killed when {step}: tuning began again"
        # Each record holds the seconds that an epoch took: an epoch that is trained again has others.
        for name, before in epochs.items():
            assert trained_epochs(out)[name][: len(before)] == before, f"killed when {step}: {name} was trained again"
        stages, records, epochs = stored(out), now, trained_epochs(out)
    assert {name.partition("-")[0] for name in stages} == {"features", "profile", "measured"}
    done = run(out, *AMPLE)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    retrained = {f"retrain {row['name']}" for row in result["candidates"] if row["test_accuracy"] is not None}
    measured = {s["name"] for s in result["stages"] if s["name"].startswith("measure ")}
    assert len(retrained) >= 2
    assert measured
    assert reused_stages(result) == {"features", "profile", *measured, *retrained}
    assert not [s["name"] for s in result["stages"] if s["name"].startswith("tune")]
    assert stored(out) == stages
    # One trial a kernel was asked for, so a kernel with two records was tuned twice.
    assert set(Counter(json.loads(line)[0] for line in records).values()) == {1}
    assert whole_lines(out / "tuning", "database_tuning_record.json") == records
    assert read_bundle(out / "bundle").manifest.frontier == result["chosen"]["frontier"]
    assert not list(out.glob(f"{PARTIAL_PREFIX}*"))


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    from netcut_fx.workspace import Workspace

    with Workspace(tmp_path):
        done = run(tmp_path, "--deadline-ms", "1")
    assert error_line(done) == (
        f"error: the folder {tmp_path} is in use by process {os.getpid()}; wait for it to end, or choose another folder"
    )


def test_a_full_disk_is_one_line_and_stores_nothing_half(tmp_path: Path) -> None:
    """The features (70 kB) do not fit."""
    out = tmp_path / "run"
    assert error_line(run(out, *AMPLE, largest_file_bytes=40_000)) == (
        f"error: cannot save the result of 'features' in {out}/stages: no space left on the device; the steps finished "
        "before it are stored there and will be reused. Free space and run it again"
    )
    assert list((out / "stages").iterdir()) == []


def test_a_disk_that_fills_at_the_end_costs_no_finished_stage(finished: dict[str, Any], tmp_path: Path) -> None:
    """Everything fits but the compiler's runtime library, which the bundle brings along."""
    done_before, out = Path(finished["report"]).parent, tmp_path / "run"
    for folder in ("stages", "training", "tuning"):
        shutil.copytree(done_before / folder, out / folder)
    largest = max(path.stat().st_size for path in out.rglob("*") if path.is_file())
    limit = (largest + (done_before / "bundle" / RUNTIME_FILE).stat().st_size) // 2
    line = error_line(run(out, *AMPLE, largest_file_bytes=limit))
    assert re.fullmatch(
        rf"error: cannot (deliver to|write the bundle) {re.escape(str(out))}\S*: no space left on the device; .*"
        r"Free space and run it again",
        line,
    ), line
    assert not (out / "result.json").exists()
    assert not (out / "bundle").exists()
    assert not list(out.glob(f"{PARTIAL_PREFIX}*"))
    before = stored(out)
    assert {name.partition("-")[0] for name in before} == {"features", "profile", "measured"}
    again = run(out, *AMPLE)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    worked = {
        s["name"] for s in result["stages"] if s["name"].startswith(("features", "profile", "measure ", "retrain"))
    }
    assert reused_stages(result) == worked
    assert stored(out) == before


def test_the_demo_in_a_small_setting(tmp_path: Path) -> None:
    """The demo's own network, pretrained, on fewer and smaller images with one schedule a kernel."""
    netcut = str(Path(sys.executable).with_name("netcut"))
    done = subprocess.run(
        [
            *(netcut, "run", "--model", "demo", "--data", "digits?limit=200", "--input-size", "32", "--trials", "1"),
            *("--deadline-fraction", "0.6", "--shortlist", "1", "--epochs", "1", "--out", str(tmp_path), "--json"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["candidates"]][:16] == [f"_blocks.{i}" for i in range(16)]
    assert result["chosen"]["measured_ms"] <= result["deadline_ms"]
    assert result["chosen"]["kept_flops"] < result["uncut"]["kept_flops"]
    assert result["agreement"]["same_top1"] == result["agreement"]["images"]
