"""The main job: from a pretrained network and labelled images to a bundle that answers before the deadline.

Each stage stores its result under a key made of everything that decides it, so a job that was killed goes on where it
was, and a job with other options reuses what still holds.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cost_models import Calibration
from netcut_fx.backends.base import Backend, CompiledModule
from netcut_fx.calm import CalmWatch
from netcut_fx.cutting import cut
from netcut_fx.data import Dataset
from netcut_fx.decision import Validated, choose, rank_retrained
from netcut_fx.errors import DeadlineUnmet, NetcutError, TraceError
from netcut_fx.evidence import CALIBRATION, add_evidence, network_sample
from netcut_fx.features import pooled_features
from netcut_fx.frontier import deepest_frontier, require_frontiers
from netcut_fx.graph import Frontier, TracedModule, state_hash
from netcut_fx.job_keys import network_key, target_key
from netcut_fx.job_messages import all_broken, progress_of, training_line
from netcut_fx.job_options import RunOptions
from netcut_fx.job_values import Finished, Reporter, StageRecord
from netcut_fx.latency import LatencyModel, kernels_of_cuts
from netcut_fx.measure import Measurement, Stopwatch
from netcut_fx.passes.head import HeadPass
from netcut_fx.profiling import profile_network
from netcut_fx.quick import QuickResult, quick_heads
from netcut_fx.retraining import TrainedCandidate, retrain
from netcut_fx.tracing import trace
from netcut_fx.workspace import Workspace


class Job:
    """One run in one folder; its stages can also be asked for one by one."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        dataset: Dataset,
        options: RunOptions,
        backend: Backend,
        workspace: Workspace,
        reporter: Reporter,
        database: Path | None = None,
    ) -> None:
        self.dataset = dataset
        self.options = options
        self.backend = backend
        self.workspace = workspace
        self.reporter = reporter
        #: Tuning records: one database for all cuts of all networks.
        self.database = workspace.folder / "tuning" if database is None else database
        #: Whoever shares the machine for long has one; else what is timed is timed for a second.
        self.watch: CalmWatch | None = None
        self.stages: list[StageRecord] = []
        self._reused = False
        before = state_hash(model)
        with self._stage("trace"):
            height, width = dataset.preprocess.size
            image = torch.zeros(1, 3, height, width)
            self.traced = trace(model, image, name=name, leaf_modules=options.leaf_modules, via=options.via)
            self.uncut = deepest_frontier(self.traced)
            wanted, most = options.granularity, options.max_width
            found = require_frontiers(self.traced, granularity=wanted, max_width=most, ignored=options.ignored)
            self.frontiers = (*(f for f in found if f.nodes != self.uncut.nodes), self.uncut)
        if state_hash(model) != before:
            raise TraceError(f"tracing changed the weights of {name}; report this with the model")
        self.head = HeadPass(dataset.class_count, options.head, options.hidden, options.seed, options.pool)
        self.network_key = network_key(self.traced, self.frontiers, dataset.digest, options)
        self.target_key = target_key(self.network_key, backend.target.fingerprint(), options)

    def run(self) -> Finished:
        """Do what is left to do."""
        features, quick = self.features()
        uncut_trn = self.trn(self.uncut)
        calibration, uncut_measured = self.profile(uncut_trn)
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
        measured: dict[str, Measurement] = {}
        refused: dict[str, str] = {}
        trained: dict[str, TrainedCandidate] = {}
        uncut_trained = self.retrain(self.uncut, features[self.uncut.name])
        waiting = [*decision.shortlist, *decision.reserve]
        winner: tuple[str, CompiledModule] | None = None
        while winner is None:
            met = self._measure_until_met(waiting, deadline_ms, uncut_measured, measured, refused)
            if not met:
                raise DeadlineUnmet(all_broken(measured, deadline_ms))
            for name in met:
                uncut = name == self.uncut.name
                trained[name] = uncut_trained if uncut else self.retrain(self.by_name(name), features[name])
            winner = self._deploy({n: trained[n] for n in met}, uncut_trained, measured, refused, deadline_ms)
        chosen, compiled = winner
        group = self.traced.name
        source = f"netcut run, {self.options.trials} trials a kernel"
        add_evidence(
            self.workspace.folder / CALIBRATION,
            calibration,
            [network_sample(name, group, networks[name], found, source) for name, found in measured.items()],
        )
        return Finished(
            options=self.options,
            traced=self.traced,
            dataset=self.dataset,
            backend=self.backend,
            frontiers=self.frontiers,
            uncut=self.uncut,
            uncut_kernels=networks[self.uncut.name],
            uncut_measured=measured[self.uncut.name],
            deadline_reference_ms=uncut_measured.ms,
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
        return cut(self.traced, frontier, head=self.head)

    def by_name(self, name: str) -> Frontier:
        """The frontier of that name."""
        return next(f for f in self.frontiers if f.name == name)

    def features(self) -> tuple[dict[str, np.ndarray], dict[str, QuickResult]]:
        """Pooled features of every frontier from one pass, and what quick heads make of them."""
        features = self.pooled()
        with self._stage("quick heads"):
            quick = quick_heads(features, self.dataset.labels, self.dataset.splits, seed=self.options.seed)
        return features, quick

    def pooled(self) -> dict[str, np.ndarray]:
        """Pooled features of every frontier from one pass over all images."""
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
                    pool=self.options.pool,
                )
                stage.save_arrays(features)
        return features

    def profile(self, uncut_trn: TracedModule) -> tuple[Calibration, Measurement]:
        """Tune the uncut network once, time its kernels and the whole."""
        stage = self.workspace.stage("profile", self.target_key)
        stored: dict[str, Any] | None = stage.load()
        if stored is None:
            self._tune("tune", uncut_trn)
        with self._stage("profile"):
            self._reused = stored is not None
            if stored is None:
                profile = profile_network(self.backend, uncut_trn, self.database, self.watch)
                self._warn_untuned(profile.untuned)
                stored = {"calibration": profile.calibration.to_json(), "measured": profile.measured.to_json()}
                stage.save(stored)
        return Calibration.from_json(stored["calibration"]), Measurement.from_json(stored["measured"])

    def _tune(self, stage: str, trn: TracedModule) -> None:
        if self.options.trials == 0:
            return
        with self._stage(stage):
            report = self.backend.tune(
                trn,
                trials=self.options.trials,
                database=self.database,
                seed=self.options.seed,
                progress=progress_of(self.reporter),
            )
            self._reused = report.searched == 0
            for note in report.notes:
                self.reporter.note(note)
            if report.failed_trials:
                self.reporter.note(f"{report.failed_trials} of {report.trials} schedules failed to build or run")

    def _warn_untuned(self, naive: Sequence[str]) -> None:
        if naive:
            self.reporter.note(f"{len(naive)} kernels have no tuning record and run untuned: {', '.join(naive[:5])}")

    def _measure_until_met(
        self,
        waiting: list[str],
        deadline_ms: float,
        uncut_measured: Measurement,
        measured: dict[str, Measurement],
        refused: dict[str, str],
    ) -> list[str]:
        """Compile and time the candidates of `waiting`, best first, until enough of them really meet the deadline."""
        met: list[str] = []
        while waiting and len(met) < self.options.shortlist:
            name = waiting.pop(0)
            measured[name] = uncut_measured if name == self.uncut.name else self.measure(self.by_name(name))
            if measured[name].ms <= deadline_ms:
                met.append(name)
            else:
                self._refuse(name, f"measured {measured[name].ms:.3f} ms", deadline_ms, refused)
        return met

    def _refuse(self, name: str, what: str, deadline_ms: float, refused: dict[str, str]) -> None:
        refused[name] = f"{what}, which breaks the deadline of {deadline_ms:.3f} ms"
        self.reporter.note(f"{name}: {refused[name]}; the next candidate is taken")

    def measure(self, frontier: Frontier) -> Measurement:
        """Tune what the cut at `frontier` adds, compile it and time it."""
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
                measure = Stopwatch().measure_timer if self.watch is None else self.watch.measure
                stored = measure(compiled.timer()).to_json()
                stage.save(stored)
        return Measurement.from_json(stored)

    def retrain(self, frontier: Frontier, features: np.ndarray, dataset: Dataset | None = None) -> TrainedCandidate:
        """Retrain the cut at `frontier`; `features` are its own for all images. `dataset` may bring other labels."""
        with self._stage(f"retrain {frontier.name}"):
            trained = retrain(
                self.trn(frontier),
                self.dataset if dataset is None else dataset,
                options=replace(self.options.retrain, seed=self.options.seed),
                checkpoint_dir=self.workspace.training,
                features=features,
                progress=lambda record: self.reporter.progress(
                    int(record.get("epoch", 0)), self.options.retrain.epochs, training_line(record)
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
    ) -> tuple[str, CompiledModule] | None:
        """Compile the retrained, best on validation first, until one's final measurement meets the deadline.

        Candidate and uncut network are timed in turn in one process, so that drift of the clock hits both alike. None
        if all of them break the deadline.
        """
        ranked = rank_retrained(
            {name: Validated(t.validation, t.validation_loss, measured[name].ms) for name, t in trained.items()}
        )
        with self._stage("compile"):
            reference = self.backend.compile(uncut_trained.traced, database=self.database)
            for name in ranked:
                own = name != self.uncut.name
                compiled = self.backend.compile(trained[name].traced, database=self.database) if own else reference
                timers = [reference.timer(), *([compiled.timer()] if own else [])]
                timings = Stopwatch(repeat=21).measure_interleaved(timers)
                measured[self.uncut.name], measured[name] = timings[0], timings[-1]
                if measured[name].ms <= deadline_ms:
                    self._warn_untuned([k.name for k in compiled.kernels if not k.tuned])
                    return name, compiled
                self._refuse(name, f"finally measured {measured[name].ms:.3f} ms", deadline_ms, refused)
        return None

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
