"""Explorations from end to end, on torch eager."""

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
import torch

from netcut_fx.errors import DataError, DeadlineUnmet, NetcutError
from netcut_fx.exploration.explore import explore
from tests.command_line import ROOT
from tests.small_exploration import PLAIN, RESIDUAL, SIZE, explored, options
from tests.small_run import Listener

ALL = ("ranked", "netcut", "exhaustive")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("exploration")
    return folder, explored(folder, strategies=ALL)


def _cuts(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [cut for network in result["networks"] for cut in network["cuts"]]


def test_three_strategies_are_compared_in_one_run(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, result = compared
    assert json.loads((folder / "result.json").read_text()) == result
    for deadline in result["deadlines"]:
        for strategy in ("ranked", "exhaustive"):
            chosen = deadline["strategies"][strategy]
            assert chosen["winner"] is None or chosen["winner"]["measured_ms"] <= deadline["deadline_ms"]
            assert chosen["meets"] in (None, True)
        assert deadline["strategies"]["ranked"]["retrained"] <= 1
        assert deadline["strategies"]["netcut"]["retrained"] <= 2
        assert deadline["strategies"]["exhaustive"]["retrained"] == len(_cuts(result))
        shelf = deadline["off_the_shelf"]
        assert shelf is None or (shelf["uncut"] and shelf["measured_ms"] <= deadline["deadline_ms"])
    last = result["deadlines"][-1]["strategies"]
    assert last["ranked"]["winner"] is not None
    assert last["ranked"]["speedup"] > last["exhaustive"]["speedup"] == 1.0
    assert last["exhaustive"]["regret_points"] == 0.0


def test_every_candidate_was_trained_with_its_numbers(compared: tuple[Path, dict[str, Any]]) -> None:
    _, result = compared
    for cut in _cuts(result):
        assert 0 <= cut["test_low"] <= cut["test_accuracy"] <= cut["test_high"] <= 1
        assert 0 < cut["angular_similarity"] < 1
        assert cut["train_cpu_seconds"] > 0
    assert sum(cut["uncut"] for cut in _cuts(result)) == 2
    assert result["bill"]["retrained"] == result["bill"]["candidates"] == len(_cuts(result))


def test_a_second_exploration_reuses_every_step(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, result = compared
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("stages/*")}
    assert explored(folder, strategies=ALL) == result
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("stages/*")} == files


def test_a_network_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    torch.save({"other.weight": torch.zeros(2)}, tmp_path / "w.pt")
    listener = Listener()
    result = explored(
        tmp_path / "out",
        PLAIN,
        "tests/zoo.py:NoSuch,name=missing",
        f"tests/zoo.py:Residual,name=misfit,weights={tmp_path / 'w.pt'}",
        reporter=listener,
        off_the_shelf=False,
    )
    failed = {n["name"]: n["failed"] for n in result["networks"] if n["failed"]}
    assert set(failed) == {"missing", "misfit"}
    assert failed["missing"].startswith("survey: there is no 'NoSuch' in")
    assert failed["misfit"].startswith(f"survey: weights {tmp_path / 'w.pt'} do not fit Residual: missing ")
    assert any(note.startswith("survey missing failed, the others go on: there is no") for note in listener.notes)
    assert result["deadlines"][-1]["strategies"]["ranked"]["winner"]["network"] == "plain"
    page = Path(result["report"]).read_text()
    assert "misfit" in page
    assert "do not fit Residual" in page


def test_all_networks_failing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        NetcutError, match="all 2 networks failed in step 'survey' or before; the first, x: there is no"
    ):
        explored(tmp_path, "tests/zoo.py:X,name=x", "tests/zoo.py:Y,name=y")


def test_no_network_meeting_the_deadline_is_an_error_that_says_what_is_reachable(tmp_path: Path) -> None:
    with pytest.raises(
        DeadlineUnmet, match=r"no network meets 1e-06 ms: the fastest, plain cut at \S+, is predicted to"
    ):
        explored(tmp_path, PLAIN, deadlines_ms=(1e-7, 1e-6))


def test_data_whose_test_group_leaks_into_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "leaks.npz"
    images = np.zeros((60, 8, 8), np.uint8)
    split = np.array(["train"] * 40 + ["test"] * 20)
    np.savez(path, x=images, y=np.arange(60) % 2, group=np.arange(60) % 50, split=split)
    with pytest.raises(DataError, match="10 groups have images in both 'train' and 'test'"):
        explore([PLAIN], str(path), out=tmp_path / "out", options=options(), input_size=SIZE, backend="eager")


def test_few_labels_and_a_teacher(tmp_path: Path) -> None:
    result = explored(tmp_path, train_per_class=5, distillation=0.5)
    assert result["taught_by"] in ("plain", "residual")
    assert result["train_per_class"] == 5
    assert result["deadlines"][-1]["strategies"]["ranked"]["winner"] is not None
    with pytest.raises(DataError, match="training images, fewer than the 500 asked for"):
        explored(tmp_path, train_per_class=500)


_ALONE = """
import sys
from pathlib import Path
from tests.small_exploration import explored
if __name__ == "__main__":
    explored(Path(sys.argv[1]), jobs=1, strategies=("exhaustive",))
"""


def test_an_exploration_killed_in_the_middle_goes_on_where_it_was(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(_ALONE)
    folder = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([sys.executable, str(script), str(folder)], cwd=ROOT, env=environment)
    while running.poll() is None and not list(folder.glob("networks/*/stages/trained-*")):
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("networks/*/stages/*.json")}
    assert kept
    assert not (folder / "result.json").exists()
    result = explored(folder, strategies=("exhaustive",))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert all(cut["test_accuracy"] is not None for cut in _cuts(result))
    undisturbed = explored(tmp_path / "other", PLAIN, RESIDUAL, strategies=("exhaustive",))
    assert [c["test_accuracy"] for c in _cuts(result)] == [c["test_accuracy"] for c in _cuts(undisturbed)]
