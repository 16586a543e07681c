"""Where steps run: worker processes that die, and a Ray cluster."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from netcut_fx.errors import SpecError
from netcut_fx.exploration.executors import Executor, Inline, RayCluster
from netcut_fx.exploration.processes import Processes
from netcut_fx.exploration.tasks import Answer, Task
from netcut_fx.retraining_options import RetrainOptions
from tests.small_exploration import PLAIN, RESIDUAL, survey_task


def answers_of(executor: Executor, *tasks: Task) -> dict[str, Answer]:
    found: dict[str, Answer] = {}

    def done(task: Task, answer: Answer) -> None:
        assert str(task) not in found, "done twice"
        found[str(task)] = answer

    try:
        executor.run(tasks, done)
    finally:
        executor.close()
    return found


def test_processes_answer_as_this_process_does(tmp_path: Path) -> None:
    tasks = [survey_task(n, tmp_path / "a") for n in (PLAIN, RESIDUAL, "tests/zoo.py:No,name=no")]
    here = answers_of(
        Inline(), *(survey_task(t.network.model + f",name={t.network.name}", tmp_path / "b") for t in tasks)
    )
    there = answers_of(Processes(2), *tasks)
    assert there.keys() == here.keys()
    assert there["survey no"].error == here["survey no"].error != ""
    for name in ("survey plain", "survey residual"):
        ours, theirs = here[name].value, there[name].value
        assert ours is not None
        assert theirs is not None
        assert ours["cuts"] == theirs["cuts"]


def test_a_worker_that_dies_once_loses_nothing(tmp_path: Path) -> None:
    flag = tmp_path / "died"
    found = answers_of(
        Processes(1),
        survey_task(f"tests/deadly_networks.py:dies_once?flag={flag},name=frail", tmp_path),
        survey_task(PLAIN, tmp_path),
    )
    assert flag.exists()
    assert all(answer.value is not None for answer in found.values())


def test_a_network_that_kills_every_worker_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    deadly = survey_task("tests/deadly_networks.py:dies,name=deadly", tmp_path)
    found = answers_of(Processes(1), deadly, survey_task(PLAIN, tmp_path))
    assert found["survey deadly"] == Answer(None, "its process died 3 times (exit status -9); it may need more memory")
    assert found["survey plain"].value is not None


def test_a_worker_killed_in_the_middle_of_training_costs_no_finished_epoch(tmp_path: Path) -> None:
    """The next worker goes on from the checkpoint, and ends with the same numbers as one left in peace."""
    recipe = RetrainOptions(epochs=12, head_epochs=3, patience=12)

    def task(folder: Path) -> Task:
        return replace(survey_task(RESIDUAL, folder, retrain=recipe), kind="train", cut="layer2.1")

    def kill() -> None:
        wait_for(lambda: bool(list(tmp_path.glob("a/networks/*/training/*.safetensors"))))
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    disturbed = answers_of(Processes(1), task(tmp_path / "a"))
    killer.join()
    peaceful = answers_of(Inline(), task(tmp_path / "b"))
    (first,), (second,) = disturbed.values(), peaceful.values()
    assert first.value is not None
    assert second.value is not None
    assert first.value["epochs"] == second.value["epochs"]
    for name in ("validation", "validation_loss", "test", "angular_similarity"):
        assert first.value[name] == second.value[name]


def test_without_ray_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(SpecError, match=r"--ray needs the package ray; pip install 'netcut-fx\[ray\]'"):
        RayCluster("auto")


def test_two_processes_of_a_ray_cluster_and_one_that_dies(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    flag = tmp_path / "died"
    found = answers_of(
        RayCluster("local", 2),
        survey_task(PLAIN, tmp_path),
        survey_task(f"tests/deadly_networks.py:dies_once?flag={flag},name=frail", tmp_path),
        survey_task("tests/zoo.py:No,name=no", tmp_path),
    )
    assert flag.exists()
    assert found["survey plain"].value is not None
    assert found["survey frail"].value is not None
    assert found["survey no"].error.startswith("there is no 'No'")


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.002)
