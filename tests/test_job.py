"""The main job above the compiler: choices, fall-backs, resuming."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import netcut_fx.job
from netcut_fx.backends.eager import EagerBackend
from netcut_fx.errors import DeadlineUnmet, InvalidFrontier, SpecError
from netcut_fx.graph import state_hash
from netcut_fx.job import Job
from netcut_fx.measure import Measurement, Stopwatch, Timer
from netcut_fx.workspace import Workspace
from tests.small_run import Listener, digits, finish, options, residual


def test_a_job_ends_with_a_retrained_candidate_that_met_the_deadline(tmp_path: Path) -> None:
    done = finish(tmp_path)
    assert done.chosen in {f.name for f in done.frontiers}
    assert done.measured[done.chosen].ms <= done.deadline_ms
    assert done.trained[done.chosen].test.total == len(digits().splits["test"])
    assert set(done.estimates) == {f.name for f in done.frontiers} == set(done.quick)
    assert all(e.is_known for e in done.estimates.values())


def test_the_deepest_frontier_is_the_uncut_network(tmp_path: Path) -> None:
    done = finish(tmp_path)
    assert done.frontiers[-1] is done.uncut
    assert max(f.kept_flops for f in done.frontiers) == done.uncut.kept_flops
    shallow = done.estimates[done.frontiers[0].name].ms
    assert shallow < done.estimates[done.uncut.name].ms


def test_the_source_is_left_as_it_was(tmp_path: Path) -> None:
    model = residual().train()
    before, buffers = state_hash(model), {n: b.clone() for n, b in model.named_buffers()}
    with Workspace(tmp_path) as space:
        Job(model, "residual", digits(), options(), EagerBackend(), space, Listener()).run()
    assert state_hash(model) == before
    assert model.training
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())


def test_a_second_run_reuses_every_stage_and_decides_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the final measurement is replaced: it is taken anew in each run, and may differ."""

    class Steady(Stopwatch):
        def measure_interleaved(self, timers: Sequence[Timer]) -> list[Measurement]:
            return [Measurement.of([1e-3]) for _ in timers]

    monkeypatch.setattr(netcut_fx.job, "Stopwatch", Steady)
    first = finish(tmp_path)
    second = finish(tmp_path)
    reused = {stage.name: stage.reused for stage in second.stages}
    finished = {"features", "profile", f"measure {first.chosen}", f"retrain {first.chosen}"}
    assert {name for name, used in reused.items() if used} >= finished - {f"measure {first.uncut.name}"}
    assert second.estimates == first.estimates
    assert second.calibration == first.calibration
    assert second.trained[first.chosen].traced.state_hash() == first.trained[first.chosen].traced.state_hash()


def test_other_options_reuse_what_still_holds(tmp_path: Path) -> None:
    finish(tmp_path)
    changed = finish(tmp_path, head="linear")
    reused = {stage.name: stage.reused for stage in changed.stages}
    assert reused["features"]
    assert not reused["profile"]


def test_where_a_measurement_breaks_the_deadline_the_next_candidate_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is replaced, not the job: what is measured after the profile takes three times as long at first."""
    undisturbed = finish(tmp_path / "a", shortlist=1)
    bound = undisturbed.deadline_ms * 2
    slow = [True]

    class Disturbed(Stopwatch):
        def measure_timer(self, timer: Timer) -> Measurement:
            factor = 3.0 * bound if slow.pop() else 0.1 * bound
            slow.append(False)
            return Measurement.of([factor])

        def measure_interleaved(self, timers: Sequence[Timer]) -> list[Measurement]:
            return [Measurement.of([0.1 * bound]) for _ in timers]

    with Workspace(tmp_path / "b") as space:
        listener = Listener()
        job = Job(
            residual(), "residual", digits(), options(deadline_ms=bound, shortlist=1), EagerBackend(), space, listener
        )
        monkeypatch.setattr(netcut_fx.job, "Stopwatch", Disturbed)
        done = job.run()
    (name,) = done.refused
    assert "which breaks the deadline" in done.refused[name]
    assert done.chosen != name
    assert any(note.startswith(f"{name}: measured") for note in listener.notes)


def test_where_only_the_final_measurement_breaks_the_deadline_the_reserve_is_retrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is replaced: the first candidate is fast when it is measured first, and slow when it is deployed."""
    bound = finish(tmp_path / "a", shortlist=1).deadline_ms * 2
    finals = [3.0 * bound, 0.1 * bound]

    class Late(Stopwatch):
        def measure_timer(self, timer: Timer) -> Measurement:
            return Measurement.of([0.1 * bound])

        def measure_interleaved(self, timers: Sequence[Timer]) -> list[Measurement]:
            return [Measurement.of([0.5 * bound]) for _ in timers[1:]] + [Measurement.of([finals.pop(0)])]

    with Workspace(tmp_path / "b") as space:
        chosen = options(deadline_ms=bound, shortlist=1)
        job = Job(residual(), "residual", digits(), chosen, EagerBackend(), space, Listener())
        monkeypatch.setattr(netcut_fx.job, "Stopwatch", Late)
        done = job.run()
    (name,) = done.refused
    assert "finally measured" in done.refused[name]
    assert set(done.trained) == {name, done.chosen}
    assert done.measured[done.chosen].ms <= done.deadline_ms < done.measured[name].ms


def test_every_candidate_breaking_the_deadline_is_an_error_that_names_the_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finish(tmp_path, shortlist=1)
    for stored in (tmp_path / "stages").glob("measured-*"):
        stored.unlink()
    smallest, uncut = first.estimates[first.frontiers[0].name].ms, first.estimates[first.uncut.name].ms
    bound = (smallest + uncut) / 2  # the profile is reused, so the estimates are the same: the uncut network is out

    class Slow(Stopwatch):
        def measure_timer(self, timer: Timer) -> Measurement:
            return Measurement.of([3.0 * bound])

    with Workspace(tmp_path) as space:
        chosen = options(deadline_ms=bound, shortlist=1)
        job = Job(residual(), "residual", digits(), chosen, EagerBackend(), space, Listener())
        monkeypatch.setattr(netcut_fx.job, "Stopwatch", Slow)
        with pytest.raises(
            DeadlineUnmet, match=r"every feasible candidate broke the deadline of .* the fastest, cut at"
        ):
            job.run()


def test_a_deadline_below_the_smallest_candidate_says_what_is_reachable(tmp_path: Path) -> None:
    with pytest.raises(
        DeadlineUnmet, match=r"no trimmed network meets 1e-09 ms: the smallest, cut at .*, is predicted"
    ):
        finish(tmp_path, deadline_ms=1e-9)


def test_a_network_without_a_valid_cut_is_refused(tmp_path: Path) -> None:
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    with Workspace(tmp_path) as space, pytest.raises(InvalidFrontier, match="frontier"):
        Job(flat, "flat", digits(), options(granularity="block"), EagerBackend(), space, Listener()).run()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"deadline_ms": 0.0}, "positive number of milliseconds"),
        ({"deadline_ms": float("nan")}, "positive number of milliseconds"),
        ({"deadline_ms": -1.0}, "positive number of milliseconds"),
        ({"deadline_ms": 1.0, "deadline_fraction": 0.5}, "give the deadline either in ms"),
        ({"deadline_fraction": 1.5}, "above 0 and at most 1"),
        ({"granularity": "layer"}, "granularity is block, kernel or node, got 'layer'"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"head": "mlp"}, "head is netcut or linear, got 'mlp'"),
    ],
)
def test_senseless_options_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        options(**fields)
