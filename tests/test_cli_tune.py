"""`netcut tune` as users start it: killed and started again, looked at, merged, misused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import NETCUT, ROOT, netcut, refused

MODEL = ("tests/zoo.py:PlainChain", "--input-size", "32")
TRIALS = 3


def tuned(database: Path, *more: str) -> dict[str, Any]:
    done = netcut("tune", *MODEL, "--trials", str(TRIALS), "--database", str(database), "--json", *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lines(database: Path, name: str) -> list[str]:
    return [
        line for path in database.glob(f"*/{name}") for line in path.read_text().splitlines(True) if line[-1] == "\n"
    ]


def test_killed_and_started_again_it_goes_on_and_tells_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    database = tmp_path / "tuning"
    process = subprocess.Popen(
        [NETCUT, "tune", *MODEL, "--trials", str(TRIALS), "--database", str(database)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 400
    while len(lines(database, "trials.jsonl")) < 2:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until, "it never measured anything"
        time.sleep(0.01)
    # Alone, as a user's kill -9 does: its worker ends with its trial.
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    os.sync()
    before = lines(database, "database_tuning_record.json")
    report = tuned(database)
    assert (report["trials_left"], report["failed_trials"]) == (0, 0)
    records = lines(database, "database_tuning_record.json")
    assert records[: len(before)] == before
    assert max(Counter(json.loads(line)[0] for line in records).values()) <= TRIALS
    status = tuned(database, "--status")
    (target,) = status["targets"]
    assert (target["records"], target["failed"], target["set_aside"]) == (len(records), 0, 0)
    assert len(status["kernels"]) == report["kernels"] == target["workloads"]
    assert sum(kernel["share"] for kernel in status["kernels"]) == pytest.approx(1.0)
    assert {kernel["left"] for kernel in status["kernels"]} == {0}
    merged = netcut("tune", "--merge", str(database), "--database", str(tmp_path / "other"), "--json")
    assert json.loads(merged.stdout)["merged"]["records"] == len(records)
    shown = netcut("tune", "--status", "--database", str(tmp_path / "other"))
    assert f"{len(records)}" in shown.stdout
    assert "TVM 0.27" in shown.stdout


def test_an_empty_database_is_said_to_be_empty(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    done = netcut("tune", "--status", "--database", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}: no tuning records\n")


def test_misuse_is_one_line(tmp_path: Path) -> None:
    assert refused("tune") == ("error: name a network to tune, or give --status or --merge; see netcut tune --help")
    assert refused("tune", "--status", "--merge", str(tmp_path)) == (
        "error: --status changes nothing and --merge does; give one of them"
    )
