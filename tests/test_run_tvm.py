"""`netcut run` with the real compiler, through its real entry point; killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_run import DATA, MODEL, SIZE, digits

pytest.importorskip("tvm")

ROOT = Path(__file__).parent.parent


def command(out: Path, *more: str) -> list[str]:
    netcut = Path(sys.executable).with_name("netcut")
    return [
        *(str(netcut), "run", "--model", MODEL, "--data", DATA, "--input-size", SIZE, "--trials", "1"),
        *("--shortlist", "1", "--epochs", "2", "--out", str(out), "--json", *more),
    ]


def run(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, *more), capture_output=True, text=True, cwd=ROOT, check=False, timeout=500)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run at three quarters of the uncut network's latency."""
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


@pytest.mark.parametrize("after", ["stages/features", "tuning", "stages/profile", "training"])
def test_killed_and_started_again_it_reuses_what_was_finished(tmp_path: Path, after: str) -> None:
    """SIGKILL as soon as the first file of a stage appears; the next start ends, and reuses the stages before it."""
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(out, "--deadline-fraction", "1.0"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    folder, _, prefix = after.partition("/")
    until = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < until:
        found = [p for p in (out / folder).rglob(f"{prefix}*") if p.is_file()] if (out / folder).exists() else []
        if found:
            break
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = run(out, "--deadline-fraction", "1.0")
    assert done.returncode == 0, done.stderr
    reused = {stage["name"] for stage in json.loads(done.stdout)["stages"] if stage["reused"]}
    expected = {"stages/features": {"features"}, "tuning": {"features"}, "stages/profile": {"features", "profile"}}
    assert reused >= expected.get(after, {"features", "profile"})


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    from netcut_fx.workspace import Workspace

    with Workspace(tmp_path):
        done = run(tmp_path, "--deadline-ms", "1")
    assert done.returncode == 2
    assert "in use by process" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1
