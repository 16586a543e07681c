"""The main job: from a pretrained network and labelled images to a bundle that answers before the deadline.

Each stage stores its result under a key made of everything that decides it, so a job that was killed goes on where it
was, and a job with other options reuses what still holds.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from cost_models import Calibration, Kernel, LatencyEstimate
from netcut_fx.backends.base import Backend, CompiledModule, Progress
from netcut_fx.data import Dataset
from netcut_fx.decision import Decision, Validated, choose, rank_retrained
from netcut_fx.errors import DeadlineUnmet, NetcutError, TraceError
from netcut_fx.features import pooled_features
from netcut_fx.frontier import deepest_frontier, require_frontiers
from netcut_fx.graph import Frontier, TracedModule, state_hash
from netcut_fx.job_options import RunOptions
from netcut_fx.latency import LatencyModel, kernels_of_cuts
from netcut_fx.measure import Measurement, Stopwatch
from netcut_fx.passes.cut import cut_nodes
from netcut_fx.passes.head import HeadPass
from netcut_fx.profiling import profile_network
from netcut_fx.quick import QuickResult, quick_heads
from netcut_fx.retraining import TrainedCandidate, retrain
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from netcut_fx.workspace import Workspace

#: Raise when the meaning of a stored stage changes.
_STAGES_VERSION = 1


class Reporter(Protocol):
    """Hears what the job is doing."""

    def stage(self, name: str) -> None:
        """A stage begins."""
        ...

    def progress(self, done: int, total: int, what: str) -> None:
        """Within the stage."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


@dataclass(frozen=True)
class StageRecord:
    """How long a stage took and whether its result was there already."""

    name: str
    seconds: float
    reused: bool


@dataclass
class Finished:
    """Everything a finished job knows; `netcut_fx.result` turns it into JSON."""

    options: RunOptions
    traced: TracedModule
    dataset: Dataset
    backend: Backend
    frontiers: tuple[Frontier, ...]
    uncut: Frontier
    uncut_kernels: tuple[Kernel, ...]
    uncut_measured: Measurement
    uncut_trained: TrainedCandidate
    calibration: Calibration
    estimates: dict[str, LatencyEstimate]
    quick: dict[str, QuickResult]
    deadline_ms: float
    decision: Decision
    measured: dict[str, Measurement]
    refused: dict[str, str]
    trained: dict[str, TrainedCandidate]
    chosen: str
    chosen_kernels: tuple[Kernel, ...]
    compiled: CompiledModule
    stages: list[StageRecord]


class Job:
    """One run in one folder."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        dataset: Dataset,
        options: RunOptions,
        backend: Backend,
        workspace: Workspace,
        reporter: Reporter,
    ) -> None:
        self.dataset = dataset
        self.options = options
        self.backend = backend
        self.workspace = workspace
        self.reporter = reporter
        self.stages: list[StageRecord] = []
        self._reused = False
        before = state_hash(model)
        with self._stage("trace"):
            height, width = dataset.preprocess.size
            self.traced = trace(model, torch.zeros(1, 3, height, width), name=name)
            self.uncut = deepest_frontier(self.traced)
            found = require_frontiers(self.traced, granularity=options.granularity, max_width=options.max_width)
            self.frontiers = (*(f for f in found if f.nodes != self.uncut.nodes), self.uncut)
        if state_hash(model) != before:
            raise TraceError(f"tracing changed the weights of {name}; report this with the model")
        self.head = HeadPass(dataset.class_count, options.head, options.hidden, options.seed)
        self.network_key = {
            "version": _STAGES_VERSION,
            "graph": to_text(self.traced),
            "weights": self.traced.state_hash(),
            "data": dataset.digest,
            "seed": options.seed,
            "frontiers": [list(f.nodes) for f in self.frontiers],
        }
        self.target_key = {
            **self.network_key,
            "target": backend.target.fingerprint(),
            "trials": options.trials,
            "head": [options.head, *options.hidden],
        }

    @property
    def database(self) -> Path:
        """Tuning records: one database for all cuts of all networks of this folder."""
        return self.workspace.folder / "tuning"

    def run(self) -> Finished:
        """Do what is left to do."""
        features, quick = self._features()
        uncut_trn = self.trn(self.uncut)
        calibration, uncut_measured = self._profile(uncut_trn)
        deadline_ms = self.options.deadline_ms or uncut_measured.ms * (self.options.deadline_fraction or 1.0)
        with self._stage("estimate"):
            model = LatencyModel.of_calibration(calibration)
            networks = kernels_of_cuts(self.traced, self.frontiers, self.head)
            estimates = {name: model.price(network) for name, network in networks.items()}
            decision = choose(
                estimates,
                {name: result.accuracy for name, result in quick.items()},
                deadline_ms,
                shortlist=self.options.shortlist,
            )
        measured, refused = self._measure_shortlist(decision, deadline_ms, uncut_measured)
        trained = {name: self._retrain(self._by_name(name), features[name]) for name in measured if name not in refused}
        uncut_trained = trained.get(self.uncut.name) or self._retrain(self.uncut, features[self.uncut.name])
        chosen, compiled = self._deploy(trained, uncut_trained, measured, refused, deadline_ms)
        return Finished(
            options=self.options,
            traced=self.traced,
            dataset=self.dataset,
            backend=self.backend,
            frontiers=self.frontiers,
            uncut=self.uncut,
            uncut_kernels=networks[self.uncut.name],
            uncut_measured=measured.get(self.uncut.name, uncut_measured),
            uncut_trained=uncut_trained,
            calibration=calibration,
            estimates=estimates,
            quick=quick,
            deadline_ms=deadline_ms,
            decision=decision,
            measured=measured,
            refused=refused,
            trained=trained,
            chosen=chosen,
            chosen_kernels=networks[chosen],
            compiled=compiled,
            stages=self.stages,
        )

    def trn(self, frontier: Frontier) -> TracedModule:
        """The trimmed network with its fresh head."""
        trn = self.head(cut_nodes(self.traced, frontier.nodes))
        return replace(trn, name=f"{self.traced.name}@{frontier.name}")

    def _by_name(self, name: str) -> Frontier:
        return next(f for f in self.frontiers if f.name == name)

    def _features(self) -> tuple[dict[str, np.ndarray], dict[str, QuickResult]]:
        """Pooled features of every frontier from one pass, and what quick heads make of them."""
        with self._stage("features"):
            stage = self.workspace.stage("features", self.network_key)
            features = stage.load_arrays()
            self._reused = features is not None
            if features is None:
                features = pooled_features(
                    self.traced,
                    self.frontiers,
                    self.dataset,
                    progress=lambda done, total: self.reporter.progress(done, total, "images"),
                )
                stage.save_arrays(features)
        with self._stage("quick heads"):
            quick = quick_heads(features, self.dataset.labels, self.dataset.splits, seed=self.options.seed)
        return features, quick

    def _profile(self, uncut_trn: TracedModule) -> tuple[Calibration, Measurement]:
        """Tune the uncut network once, time its kernels and the whole."""
        stage = self.workspace.stage("profile", self.target_key)
        stored: dict[str, Any] | None = stage.load()
        if stored is None:
            self._tune("tune", uncut_trn)
        with self._stage("profile"):
            self._reused = stored is not None
            if stored is None:
                profile = profile_network(self.backend, uncut_trn, self.database)
                self._warn_untuned(profile.untuned)
                stored = {"calibration": profile.calibration.to_json(), "measured": profile.measured.to_json()}
                stage.save(stored)
        return Calibration.from_json(stored["calibration"]), Measurement.from_json(stored["measured"])

    def _tune(self, stage: str, trn: TracedModule) -> None:
        if self.options.trials == 0:
            return
        with self._stage(stage):
            report = self.backend.tune(
                trn, trials=self.options.trials, database=self.database, progress=_forward(self.reporter)
            )
            self._reused = report.searched == 0
            if report.failed_trials:
                self.reporter.note(f"{report.failed_trials} of {report.trials} schedules failed to build or run")

    def _warn_untuned(self, naive: Sequence[str]) -> None:
        if naive:
            self.reporter.note(
                f"{len(naive)} kernels have no tuning record and run as naive loops: {', '.join(naive[:5])}"
            )

    def _measure_shortlist(
        self, decision: Decision, deadline_ms: float, uncut_measured: Measurement
    ) -> tuple[dict[str, Measurement], dict[str, str]]:
        """Compile and time candidates, best first, until enough of them really meet the deadline."""
        measured: dict[str, Measurement] = {}
        refused: dict[str, str] = {}
        for name in (*decision.shortlist, *decision.reserve):
            if len(measured) - len(refused) >= self.options.shortlist:
                break
            measured[name] = uncut_measured if name == self.uncut.name else self._measure(self._by_name(name))
            if measured[name].ms > deadline_ms:
                refused[name] = (
                    f"measured {measured[name].ms:.3f} ms, which breaks the deadline of {deadline_ms:.3f} ms"
                )
                self.reporter.note(f"{name}: {refused[name]}; the next candidate is taken")
        if len(refused) == len(measured):
            fastest = min(measured, key=lambda name: measured[name].ms)
            raise DeadlineUnmet(
                f"every feasible candidate broke the deadline of {deadline_ms:.3f} ms when measured; the fastest, cut "
                f"at {fastest}, took {measured[fastest].ms:.3f} ms: allow at least that, or tune with more --trials"
            )
        return measured, refused

    def _measure(self, frontier: Frontier) -> Measurement:
        trn = self.trn(frontier)
        stage = self.workspace.stage("measured", {**self.target_key, "at": list(frontier.nodes)})
        stored: dict[str, Any] | None = stage.load()
        if stored is None:
            self._tune(f"tune {frontier.name}", trn)
        with self._stage(f"measure {frontier.name}"):
            self._reused = stored is not None
            if stored is None:
                compiled = self.backend.compile(trn, database=self.database)
                self._warn_untuned([k.name for k in compiled.kernels if not k.tuned])
                stored = Stopwatch().measure_timer(compiled.timer()).to_json()
                stage.save(stored)
        return Measurement.from_json(stored)

    def _retrain(self, frontier: Frontier, features: np.ndarray) -> TrainedCandidate:
        with self._stage(f"retrain {frontier.name}"):
            trained = retrain(
                self.trn(frontier),
                self.dataset,
                options=self.options.retrain,
                checkpoint_dir=self.workspace.folder / "training",
                features=features,
                progress=lambda record: self.reporter.progress(
                    int(record.get("epoch", 0)), self.options.retrain.epochs, _training_line(record)
                ),
            )
            self._reused = trained.resumed
        return trained

    def _deploy(
        self,
        trained: dict[str, TrainedCandidate],
        uncut_trained: TrainedCandidate,
        measured: dict[str, Measurement],
        refused: dict[str, str],
        deadline_ms: float,
    ) -> tuple[str, CompiledModule]:
        """Compile the winners, best on validation first, until one's final measurement meets the deadline.

        Winner and uncut network are timed in turn in one process, so that drift of the clock hits both alike.
        """
        ranked = rank_retrained(
            {name: Validated(t.validation, t.validation_loss, measured[name].ms) for name, t in trained.items()}
        )
        with self._stage("compile"):
            reference = self.backend.compile(uncut_trained.traced, database=self.database)
            for name in ranked:
                compiled = (
                    reference
                    if name == self.uncut.name
                    else self.backend.compile(trained[name].traced, database=self.database)
                )
                pair = [compiled.timer(), reference.timer()]
                final, whole = Stopwatch(repeat=21).measure_interleaved(pair)
                measured[name] = final
                measured[self.uncut.name] = whole
                if final.ms <= deadline_ms:
                    return name, compiled
                refused[name] = f"its final measurement, {final.ms:.3f} ms, breaks the deadline of {deadline_ms:.3f} ms"
                self.reporter.note(f"{name}: {refused[name]}; the next candidate is taken")
        raise DeadlineUnmet(
            f"every retrained candidate broke the deadline of {deadline_ms:.3f} ms in its final measurement "
            f"({', '.join(f'{n} {measured[n].ms:.3f} ms' for n in ranked)}); allow more, or run on a quiet machine"
        )

    @contextmanager
    def _stage(self, name: str) -> Generator[None]:
        self.reporter.stage(name)
        self._reused = False
        start = time.monotonic()
        try:
            yield
        except OSError as error:
            raise NetcutError(
                f"stage {name!r} failed: {error.strerror or error} ({error.filename or self.workspace.folder}); "
                "finished stages are safe, free some space and run the same command again"
            ) from error
        self.stages.append(StageRecord(name, time.monotonic() - start, self._reused))


def _forward(reporter: Reporter) -> Progress:
    def forward(done: int, total: int, what: str) -> None:
        reporter.progress(done, total, what)

    return forward


def _training_line(record: Any) -> str:
    accuracy = record.get("validation_accuracy", record.get("accuracy"))
    shown = f", validation {accuracy:.1%}" if isinstance(accuracy, float) else ""
    return f"{record.get('stage', 'train')}{shown}"
