"""Measures trimmed networks one after the other and keeps what was measured: evidence for `latency_scores`."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.latency_scores import AGAIN_SOURCE, EVIDENCE_SOURCE, PROFILE_SOURCE
from benchmarks.networks import Network, netcut_networks
from cost_models import Calibration, NetworkSample
from netcut_fx.atomic_files import atomic_write
from netcut_fx.backends.base import CompiledModule
from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.calm import CalmWatch
from netcut_fx.cutting import cut
from netcut_fx.evidence import network_sample
from netcut_fx.frontier import deepest_frontier, frontiers
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.latency import samples_of_profile
from netcut_fx.machine_facts import machine_of
from netcut_fx.passes.head import HeadPass
from netcut_fx.profiling import profile_until_known
from netcut_fx.spec_text import one_line
from netcut_fx.tracing import trace

#: Wider than any frontier of these networks.
ANY_WIDTH = 10_000
CLASSES = 10
#: Suffers from whatever else happens on the machine: its first layers need the memory, the others the clock.
REFERENCE = "MobileNetV2 x1.0"
UNCUT = "uncut"


@dataclass(frozen=True)
class Task:
    """One measurement that is to be made.

    Parameters
    ----------
    group, name, source : str
        See `cost_models.NetworkSample`.
    network : TracedModule
        What it is cut from.
    frontier : Frontier
        Where.
    work : float
        How long it may take, in any unit.
    """

    group: str
    name: str
    source: str
    network: TracedModule
    frontier: Frontier
    work: float

    @property
    def label(self) -> str:
        """For people, and the name of its failure."""
        return f"{self.group}: {self.name}, {self.source}"


class Measuring:
    """Tunes, compiles and measures networks in turn with the reference; keeps what was measured.

    Parameters
    ----------
    build : Path
        Folder of evidence, failures and tuning records.
    trials : int
        Schedules tried for each kernel.
    evidence : str
        Name of the file of the evidence.
    tuning : str
        Name of the folder of the records.
    """

    def __init__(self, build: Path, trials: int, evidence: str, tuning: str) -> None:
        self.backend = TvmBackend(threads=1)
        self.build, self.trials = build, trials
        self.path, self.database = build / evidence, build / tuning
        target = self.backend.target
        self.found = (
            Calibration.load(self.path, fingerprint=target.fingerprint())
            if self.path.exists()
            else Calibration(target.fingerprint(), (), machine=machine_of(target), target=target.to_json())
        )
        self._watch: CalmWatch | None = None

    def has(self, task: Task) -> bool:
        """Whether that measurement is there already."""
        wanted = (task.group, task.name, task.source)
        return any((n.group, n.name, n.source) == wanted for n in self.found.networks)

    def add(self, task: Task) -> NetworkSample:
        """Make a measurement, profile the network too if it is an uncut one, and keep the result."""
        started = time.monotonic()
        network = cut(task.network, task.frontier, head=HeadPass(CLASSES))
        compiled, listed = self._compile(network), kernels(network)
        own = self.watch.measure(compiled.timer())
        if task.source == PROFILE_SOURCE:
            profile = profile_until_known(compiled, own.ms)
            samples = samples_of_profile(listed, profile, task.group)
            self.found = self.found.with_samples(samples)
        sample = network_sample(task.name, task.group, listed, own, task.source)
        minutes = self.found.minutes + (time.monotonic() - started) / 60 * (task.source == PROFILE_SOURCE)
        target = {**self.found.target, "reference_ms": self.watch.best()}
        self.found = replace(self.found.with_networks([sample]), minutes=minutes, target=target)
        self.found.save(self.path)
        return sample

    @property
    def watch(self) -> CalmWatch:
        """With a network that says how fast the machine is just now."""
        if self._watch is None:
            network = next(n for n in netcut_networks() if n.name == REFERENCE)
            canary = self._compile(trace(settled(network), network.image(), name=network.name))
            self._watch = CalmWatch(canary.timer(), float(self.found.target.get("reference_ms", 0.0)) or None)
        return self._watch

    def _compile(self, network: TracedModule) -> CompiledModule:
        """Tune where something is left to try (to begin takes seconds, asking does not), then compile."""
        if self.trials:
            status = self.backend.tuning_status(network, trials=self.trials, database=self.database)
            if any(kernel.left for kernel in status):
                self.backend.tune(network, trials=self.trials, database=self.database)
        return self.backend.compile(network, database=self.database)


def settled(network: Network) -> nn.Module:
    """The network with statistics that fit its random weights, so that no number becomes denormal, which is slow."""
    module = network.build()
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        module(network.image(2))
    return module.eval()


def tasks_of(network: Network, cuts: int | None, again_each: int) -> tuple[list[Task], list[Task]]:
    """The uncut network with its new head and every TRN (`cuts` of them, spread evenly); some of these again."""
    traced = trace(settled(network), network.image(), name=network.name)
    found = frontiers(traced, granularity="block", max_width=ANY_WIDTH)
    whole = len(traced.nodes)
    place = {node.name: i for i, node in enumerate(traced.nodes)}

    def task(name: str, source: str, frontier: Frontier) -> Task:
        deepest = max(place[n] for n in frontier.nodes)
        return Task(network.name, name, source, traced, frontier, 50 + deepest)

    first = [task(f.name, EVIDENCE_SOURCE, f) for f in spread(found, cuts)]
    again = [replace(t, source=AGAIN_SOURCE) for t in first[again_each // 2 :: again_each]]
    uncut = task(UNCUT, PROFILE_SOURCE, deepest_frontier(traced))
    # Tuning it all takes as long as some hundreds of nodes more.
    return [replace(uncut, work=uncut.work + 5 * whole), *first], again


def spread(found: tuple[Frontier, ...], count: int | None) -> list[Frontier]:
    """`count` of `found`, evenly; all without a count."""
    if count is None or count >= len(found):
        return list(found)
    return [found[round(i)] for i in np.linspace(0, len(found) - 1, count)]


class Failures:
    """Measurements that did not come to their end, with the reason, in a file; the next run tries them again, last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, task: Task, reason: str) -> None:
        """Write down that `task` failed."""
        self._write({**self.reasons, task.label: reason})

    def drop(self, task: Task) -> None:
        """Forget that `task` had failed."""
        if task.label in self.reasons:
            self._write({k: v for k, v in self.reasons.items() if k != task.label})

    def _write(self, reasons: dict[str, str]) -> None:
        self.reasons = reasons
        atomic_write(self.path, (json.dumps(reasons, indent=1) + "\n").encode())


def measure_all(session: Measuring, tasks: Sequence[Task], failures: Failures) -> None:
    """Make the measurements that are missing, in order; one that fails does not stop the others."""
    missing = [task for task in tasks if not session.has(task)]
    missing.sort(key=lambda task: task.label in failures.reasons)
    total, done = sum(task.work for task in missing), 0.0
    started = time.monotonic()
    for i, task in enumerate(missing):
        before = time.monotonic()
        failures.add(task, "the process ended in the middle")
        try:
            outcome = f"{session.add(task).ms:8.3f} ms"
            failures.drop(task)
        except Exception as error:  # whatever went wrong with one network says nothing about the others
            failures.add(task, one_line(error))
            outcome = f"failed: {one_line(error)}"
        done += task.work
        now = time.monotonic()
        left_min = (now - started) / done * (total - done) / 60
        print(
            f"{i + 1}/{len(missing)} {task.label}: {outcome}, {now - before:.0f} s; about {left_min:.0f} min left",
            flush=True,
        )
        if i + 1 < len(missing) and missing[i + 1].group != task.group:
            gc.collect()
