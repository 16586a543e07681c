"""How well is the latency of trimmed networks predicted? NetCut's 148 TRNs, each tuned, compiled and measured.

    python -m benchmarks.latency_estimation [--only NAME ...] [--trials 32] [--cuts N] [--calibration FILE] [--summary]

For each network the uncut one is tuned, measured and profiled first; then every block frontier is cut, given NetCut's
head, tuned with the same records, compiled and measured end to end with one thread, in turn with a reference network
whose drift is taken out. Everything measured goes into ``build/latency_estimation/evidence.json`` as it comes: a run
that was stopped goes on where it was (hours on two cores), and ``--summary`` scores what is there (minutes). At the
end some of them are measured again for the noise floor. ``--calibration`` adds the kernels of ``netcut calibrate``.
Weights are random: latency does not depend on them.

Writes ``benchmarks/results/latency_estimation.json`` and a plot beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.latency_plot import plot
from benchmarks.latency_scores import EVIDENCE_SOURCE, PROFILE_SOURCE, scores
from benchmarks.machine import machine
from benchmarks.networks import Network, netcut_networks
from cost_models import Calibration, NetworkSample
from netcut_fx.atomic_files import atomic_write
from netcut_fx.backends.base import Backend, CompiledModule
from netcut_fx.calibrating import corrected, profile_until_known
from netcut_fx.cutting import cut
from netcut_fx.evidence import network_sample
from netcut_fx.frontier import deepest_frontier, frontiers
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.latency import samples_of_profile
from netcut_fx.machine_facts import machine_of
from netcut_fx.measure import Stopwatch
from netcut_fx.passes.head import HeadPass
from netcut_fx.tracing import trace
from netcut_fx.verbs import tvm_backend

HERE = Path(__file__).parent
OUT = HERE / "results" / "latency_estimation.json"
BUILD = HERE.parent / "build" / "latency_estimation"
#: Wider than any frontier of these networks.
ANY_WIDTH = 10_000
CLASSES = 10
#: Of how many TRNs one is measured again at the end.
AGAIN_EACH = 8
REFERENCE = "MobileNetV1 x0.25"
UNCUT = "uncut"
AGAIN_SOURCE = "again"


class Measuring:
    """Tunes, compiles and measures networks in turn with the reference; keeps what was measured."""

    def __init__(self, build: Path, trials: int, rounds: int) -> None:
        self.backend: Backend = tvm_backend(threads=1)
        self.build, self.trials, self.rounds = build, trials, rounds
        self.path, self.database = build / "evidence.json", build / "tuning"
        target = self.backend.target
        self.found = (
            Calibration.load(self.path, fingerprint=target.fingerprint())
            if self.path.exists()
            else Calibration(target.fingerprint(), (), machine=machine_of(target), target=target.to_json())
        )
        self._reference: CompiledModule | None = None

    def has(self, group: str, name: str, source: str) -> bool:
        """Whether that measurement is there already."""
        return any((n.group, n.name, n.source) == (group, name, source) for n in self.found.networks)

    def add(self, group: str, name: str, network: TracedModule, source: str) -> NetworkSample:
        """Measure `network`, profile it too if it is the uncut one, and keep the result."""
        started = time.monotonic()
        compiled = self._compile(network)
        compiled.run(_random_input(network))
        own, reference = Stopwatch(repeat=self.rounds).measure_interleaved([compiled.timer(), self.reference.timer()])
        usual = float(self.found.target.get("reference_ms", 0.0)) or reference.ms
        drift = reference.ms / usual
        listed = kernels(network)
        if source == PROFILE_SOURCE:
            samples = samples_of_profile(listed, profile_until_known(compiled), group, drift=drift)
            self.found = self.found.with_samples(samples)
        sample = network_sample(name, group, listed, corrected(own, drift), source)
        minutes = self.found.minutes + (time.monotonic() - started) / 60 * (source == PROFILE_SOURCE)
        target = {**self.found.target, "reference_ms": usual}
        self.found = replace(self.found.with_networks([sample]), minutes=minutes, target=target)
        self.found.save(self.path)
        print(f"{group:18s} {name:40s} {source:8s} {sample.ms:8.3f} ms, drift {drift:.3f}", flush=True)
        return sample

    @property
    def reference(self) -> CompiledModule:
        """The network that says how fast the machine is just now."""
        if self._reference is None:
            network = next(n for n in netcut_networks() if n.name == REFERENCE)
            self._reference = self._compile(trace(settled(network), network.image(), name=network.name))
        return self._reference

    def _compile(self, network: TracedModule) -> CompiledModule:
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


def trimmed(network: Network, cuts: int | None) -> Iterator[tuple[str, TracedModule]]:
    """The uncut network with its new head, then every TRN (`cuts` of them, spread evenly)."""
    traced, head = trace(settled(network), network.image(), name=network.name), HeadPass(CLASSES)
    found = frontiers(traced, granularity="block", max_width=ANY_WIDTH)
    yield UNCUT, cut(traced, deepest_frontier(traced), head=head)
    for frontier in spread(found, cuts):
        yield frontier.name, cut(traced, frontier, head=head)


def spread(found: tuple[Frontier, ...], count: int | None) -> list[Frontier]:
    """`count` of `found`, evenly; all without a count."""
    if count is None or count >= len(found):
        return list(found)
    return [found[round(i)] for i in np.linspace(0, len(found) - 1, count)]


def _random_input(network: TracedModule) -> np.ndarray:
    (spec,) = network.input_specs
    return np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)


def measure_all(given: argparse.Namespace) -> None:
    """Measure what is missing, then some of it again."""
    session = Measuring(given.build, given.trials, given.rounds)
    wanted = [n for n in netcut_networks() if not given.only or n.name in given.only]
    for again in (False, True):
        for network in wanted:
            for i, (name, trn) in enumerate(trimmed(network, given.cuts)):
                source = PROFILE_SOURCE if name == UNCUT else EVIDENCE_SOURCE
                if again:
                    source = AGAIN_SOURCE
                if (again and i % AGAIN_EACH != 1) or session.has(network.name, name, source):
                    continue
                session.add(network.name, name, trn, source)
            gc.collect()


def report(given: argparse.Namespace) -> dict[str, Any] | None:
    """Score what is there and write the result."""
    path = given.build / "evidence.json"
    if not path.exists():
        return None
    found = Calibration.load(path)
    extra = None if given.calibration is None else Calibration.load(given.calibration, fingerprint=found.fingerprint)
    result = {"machine": machine(), "trials": given.trials, **scores(found, extra, AGAIN_SOURCE)}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(given.out, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    atomic_write(given.out.with_suffix(".svg"), plot(result["rows"]).encode())
    return result["summary"]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [n.name for n in netcut_networks()]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--trials", type=int, default=32, help="schedules tried for each kernel")
    parser.add_argument("--rounds", type=int, default=21, help="of each measurement")
    parser.add_argument("--cuts", type=int, help="so many cuts of each network, spread evenly; all by default")
    parser.add_argument("--calibration", type=Path, help="what netcut calibrate wrote on this machine")
    parser.add_argument("--summary", action="store_true", help="measure nothing, score what is there")
    parser.add_argument("--build", type=Path, default=BUILD)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(words)
    if not given.summary:
        measure_all(given)
    found = report(given)
    if found is None:
        print(f"nothing was measured yet in {given.build}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
