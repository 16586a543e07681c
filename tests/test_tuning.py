"""Tuning with the real compiler: budgets, killed processes, a full disk, damaged records, warm start."""

from __future__ import annotations

import importlib
import json
import resource
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from netcut_fx.errors import BackendError, NetcutError
from netcut_fx.graph import TracedModule
from netcut_fx.tracing import trace

pytest.importorskip("tvm")
from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.backends.tvm.module import warm_schedule
from netcut_fx.backends.tvm.records import RECORDS, WORKLOADS, records_folder
from netcut_fx.backends.tvm.schedules.candidates import candidates, scheduled
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.trial_log import Trial, TrialLog
from netcut_fx.backends.tvm.workload_kinds import workload_of

TRIALS = 3


@pytest.fixture(scope="module")
def backend() -> TvmBackend:
    return TvmBackend()


@pytest.fixture(scope="module")
def network() -> TracedModule:
    """Four kernels: two of our own kinds, a pooling, and one that only MetaSchedule knows."""
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    return trace(layers, torch.zeros(1, 3, 16, 16), name="small")


def tried(database: Path, backend: TvmBackend) -> Counter[str]:
    log = TrialLog(records_folder(database, backend.target)).by_workload()
    return Counter({name: len(trials) for name, trials in log.items()})


def test_files_of_the_current_folder_are_not_taken_for_modules(
    backend: TvmBackend, network: TracedModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('not this one')\n")
    monkeypatch.chdir(tmp_path)
    found = backend.tune(network, trials=1, database=tmp_path / "db")
    assert (found.trials_left, found.searched, found.notes) == (0, 4, ())


def tuning_worker() -> psutil.Process:
    """The process that tunes for this one."""
    (worker,) = [
        child
        for child in psutil.Process().children()
        if "netcut_fx.backends.tvm.tune_worker" in " ".join(child.cmdline())
    ]
    return worker


def test_a_budget_in_minutes_ends_and_the_next_run_goes_on(
    backend: TvmBackend, network: TracedModule, tmp_path: Path
) -> None:
    over = backend.tune(network, trials=TRIALS, database=tmp_path, minutes=1e-6)
    assert (over.trials, over.searched) == (0, 0)
    assert over.trials_left > over.kernels == 4
    seen: list[tuple[int, int, str]] = []
    whole = backend.tune(
        network, trials=TRIALS, database=tmp_path, minutes=60, progress=lambda *event: seen.append(event)
    )
    assert (whole.trials_left, whole.searched, whole.notes) == (0, 4, ())
    assert len(seen) == whole.trials <= over.trials_left
    assert [done for done, _, _ in seen] == list(range(1, whole.trials + 1))
    assert all(done <= total for done, total, _ in seen)
    assert "left, sum " in seen[-1][2]
    made = tried(tmp_path, backend)
    assert sum(made.values()) == whole.trials
    assert set(made.values()) <= {1, 2, 3}
    rows = backend.tuning_status(network, trials=TRIALS, database=tmp_path)
    assert all(row.finished and row.left == 0 and row.best_ms for row in rows)
    assert sum(row.share or 0.0 for row in rows) == pytest.approx(1.0)
    again = backend.tune(network, trials=TRIALS, database=tmp_path)
    assert (again.trials, again.trials_left) == (0, 0)
    more = [row for row in backend.tuning_status(network, trials=99, database=tmp_path) if row.left]
    assert more
    assert all(row.finished is None for row in more)


def test_a_worker_that_hangs_past_the_budget_is_ended(
    backend: TvmBackend, network: TracedModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("netcut_fx.backends.tvm.tune"), "_OVERTIME_S", 1.0)
    hung: list[psutil.Process] = []

    def hang_once(_done: int, _total: int, _what: str) -> None:
        if not hung:
            hung.append(tuning_worker())
            hung[0].suspend()

    report = backend.tune(network, trials=TRIALS, database=tmp_path, minutes=0.5, progress=hang_once)
    assert not hung[0].is_running()
    assert 0 < report.trials < report.trials + report.trials_left
    assert backend.tune(network, trials=TRIALS, database=tmp_path).trials_left == 0


def test_a_killed_worker_loses_its_trial_and_not_the_run(
    backend: TvmBackend, network: TracedModule, tmp_path: Path
) -> None:
    """As when the system is out of memory."""
    killed: list[int] = []

    def kill_once(_done: int, _total: int, _what: str) -> None:
        if not killed:
            worker = tuning_worker()
            worker.kill()
            killed.append(worker.pid)

    report = backend.tune(network, trials=2, database=tmp_path, progress=kill_once)
    assert killed
    assert (report.failed_trials, report.searched, report.trials_left) == (1, 4, 0)
    assert all(count <= 2 for count in tried(tmp_path, backend).values())
    assert all(kernel.tuned for kernel in backend.compile(network, database=tmp_path).kernels)


def test_a_full_disk_is_one_error_and_leaves_the_records_before_it(
    backend: TvmBackend, network: TracedModule, tmp_path: Path
) -> None:
    folder = records_folder(tmp_path, backend.target)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # One workload fits, the second is cut off in the middle of its line.
    resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, before[1]))
    try:
        with pytest.raises(NetcutError) as caught:
            backend.tune(network, trials=1, database=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value) == (
        f"cannot write tuning records to {folder}: no space left on the device; the records before it are intact and "
        "will be used. Free space and run it again"
    )
    left = (folder / RECORDS).read_text().splitlines(keepends=True)
    assert left
    assert all(
        line.endswith("\n") for name in (WORKLOADS, RECORDS) for line in (folder / name).read_text().splitlines(True)
    )
    report = backend.tune(network, trials=1, database=tmp_path)
    assert report.searched == 4 - len(left)
    assert (folder / RECORDS).read_text().splitlines(keepends=True)[: len(left)] == left


def test_damaged_records_are_set_aside_by_tuning_and_said(
    backend: TvmBackend, network: TracedModule, tmp_path: Path
) -> None:
    backend.tune(network, trials=1, database=tmp_path)
    folder = records_folder(tmp_path, backend.target)
    with (folder / RECORDS).open("a") as sink:
        sink.write("[0, [[[")
    damaged = (folder / RECORDS).read_text()
    assert all(kernel.tuned for kernel in backend.compile(network, database=tmp_path).kernels)
    assert (folder / RECORDS).read_text() == damaged, "who only reads must not touch what another may be writing"
    report = backend.tune(network, trials=1, database=tmp_path)
    assert report.notes == (
        f"1 damaged lines of tuning records were set aside in {folder}/*.corrupt; the rest is used",
    )
    assert (folder / f"{RECORDS}.corrupt").read_text() == "[0, [[[\n"


def test_what_was_best_nearby_is_tried_first_and_compiled_where_nothing_was_tried(
    backend: TvmBackend, tmp_path: Path
) -> None:
    from netcut_fx.backends.tvm.kernel_search import extracted_tasks
    from netcut_fx.backends.tvm.tune import tunable

    layers = nn.Sequential(nn.Conv2d(32, 32, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 5))
    network = trace(layers, torch.zeros(1, 32, 8, 8), name="pointwise")
    tasks = extracted_tasks(tunable(backend._lower(network), backend.target), backend.target)
    machine = Machine.of(backend.target)
    (task,) = [t for t in tasks if len(candidates(t.dispatched[0]["main"], machine)) > 4]
    names = [c.name for c in candidates(task.dispatched[0]["main"], machine)]
    own = workload_of(task.dispatched[0])
    assert (own.kind, own.extents) == (
        "dense",
        {"rows": 64, "width": 8, "channels": 32, "depth": 32, "window": 1},
    )
    folder = records_folder(tmp_path, backend.target)
    folder.mkdir(parents=True)
    log = TrialLog(folder)
    neighbour = type(own)("neighbour", own.kind, {**own.extents, "depth": 64})
    for place, name in enumerate(names[:5]):
        log.add(Trial(neighbour, name, 1.0 - place / 10))
    module = task.dispatched[0]
    (best,) = [c for c in candidates(module["main"], machine) if c.name == names[4]]
    compiled = warm_schedule(module["main"], machine, log.by_workload())
    assert str(compiled.trace) == str(scheduled(module["main"], best).trace)
    backend.tune(network, trials=1, database=tmp_path)
    (first,) = TrialLog(folder).of(own.name)
    assert first.plan == names[4]


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_without_time_is_refused(
    backend: TvmBackend, network: TracedModule, tmp_path: Path, minutes: float
) -> None:
    with pytest.raises(BackendError, match=r"^minutes must be above 0, got "):
        backend.tune(network, trials=1, database=tmp_path, minutes=minutes)


def test_records_say_what_they_are_for(backend: TvmBackend, network: TracedModule, tmp_path: Path) -> None:
    backend.tune(network, trials=1, database=tmp_path, minutes=1e-6)
    described = json.loads((records_folder(tmp_path, backend.target) / "target.json").read_text())
    assert (described["threads"], described["cpu_model"]) == (1, backend.target.cpu_model)
