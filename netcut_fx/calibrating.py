"""Calibrate the cost models on this machine: measure given networks and drawn probes until the minutes are over.

The evidence is written after each network, so a calibration that was stopped goes on where it was. A reference network
is timed in turn with every other one: rounds in which it was slower than at its best do not count, and where there are
no others, all times of that network are corrected by as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cost_models import ESTIMATORS, Calibration, accuracy_of, fit_estimator, hold
from cost_models.design import errors_by_kind, novelty
from netcut_fx.backends.base import Backend, CompiledModule
from netcut_fx.calm import CalmWatch
from netcut_fx.errors import DeviceLost, NetcutError, SpecError
from netcut_fx.evidence import network_sample
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.latency import samples_of_profile
from netcut_fx.machine_facts import machine_of
from netcut_fx.probe_networks import random_probe, reference_network
from netcut_fx.profiling import profile_until_known

#: Probes drawn for each that is measured: the one that teaches most.
_DRAWN = 12
#: A network is watched for a share of the whole budget, and so long at most.
_WATCHED_SHARE, _WATCHED_S = 0.02, 15.0
#: Estimators whose errors are found and stored: the others are for comparison only, and fitting takes time.
_CHECKED = ("analytical", "flops")
#: Fewer measured networks than this say nothing about errors.
_ENOUGH_NETWORKS = 4

#: Called with (minutes spent, minutes in all, what) while it runs.
Clock = Callable[[float, float, str], None]


@dataclass(frozen=True)
class Calibrated:
    """What a calibration did.

    Parameters
    ----------
    calibration : Calibration
        All evidence.
    measured : int
        Networks measured now.
    failed : tuple of str
        Networks that could not be compiled or measured, with the reason.
    """

    calibration: Calibration
    measured: int
    failed: tuple[str, ...]


def calibrate(
    backend: Backend,
    path: Path,
    *,
    minutes: float,
    database: Path,
    trials: int = 8,
    networks: Sequence[TracedModule] = (),
    seed: int = 0,
    clock: Clock | None = None,
) -> Calibrated:
    """Add to the calibration `path` for `minutes`.

    Parameters
    ----------
    backend : Backend
        Compiles for the target and measures on it.
    path : Path
        Read if it is there, rewritten after each network.
    minutes : float
        Stops before the first network that begins later; at least one is measured.
    database : Path
        Tuning records.
    trials : int
        Schedules tried for each kernel.
    networks : sequence of TracedModule
        Measured first, each once; then probes are drawn.
    seed : int
        Of the probes.
    clock : callable, optional
        Hears how far it is.

    Raises
    ------
    CalibrationError
        If another calibration is writing `path`, or it is damaged or another target's.
    DeviceLost
        If the device that measures is gone; what it has measured stays.
    NetcutError
        If nothing could be measured.
    """
    if not minutes > 0:
        raise SpecError(f"a calibration needs a positive number of minutes, got {minutes:g}; give --budget-minutes")
    with hold(path):
        found = _begin(backend, path)
        watched_s = min(_WATCHED_S, 60 * minutes * _WATCHED_SHARE)
        session = _Session(backend, database, trials, watched_s, _usual_reference(found))
        started, before, failed, measured = time.monotonic(), found.minutes, list[str](), 0
        waiting = [n for n in networks if n.name not in {s.group for s in found.samples}]
        generator = np.random.default_rng([seed, len(found.samples)])

        def spent() -> float:
            return (time.monotonic() - started) / 60

        while waiting or measured == 0 or spent() < minutes:
            network = waiting.pop(0) if waiting else next_probe(found, generator)
            if clock is not None:
                clock(min(spent(), minutes), minutes, f"{len(found.samples)} kernels, {network.name}")
            try:
                found = replace(session.add(found, network), minutes=before + spent())
                found.save(path)
                measured += 1
            except DeviceLost:
                # Everything measured so far is in the file.
                raise
            except (NetcutError, ValueError) as error:
                failed.append(f"{network.name}: {error}")
                if measured == 0 and len(failed) >= 3:
                    raise NetcutError(f"nothing could be measured; the last reason was: {failed[-1]}") from error
            if spent() >= minutes and measured:
                break
        found = replace(found, errors=held_out_accuracy(found, _CHECKED), minutes=before + spent())
        found.save(path)
    return Calibrated(found, measured, tuple(failed))


def _begin(backend: Backend, path: Path) -> Calibration:
    fingerprint = backend.target.fingerprint()
    if path.exists():
        return Calibration.load(path, fingerprint=fingerprint)
    return Calibration(fingerprint, (), machine=machine_of(backend.target), target=backend.target.to_json())


def next_probe(found: Calibration, generator: np.random.Generator) -> TracedModule:
    """Of some drawn probes the one whose kernels teach most."""
    errors = errors_by_kind(found.samples, found.machine)
    names = {s.group for s in found.samples}
    number = next(i for i in range(len(names) + 1) if f"probe{i}" not in names)
    drawn = [random_probe(generator, f"probe{number}") for _ in range(_DRAWN)]
    return max(drawn, key=lambda probe: novelty(kernels(probe), found.samples, errors))


class _Session:
    """Measures networks in turn with the reference."""

    def __init__(self, backend: Backend, database: Path, trials: int, watched_s: float, best_ms: float | None) -> None:
        self.backend = backend
        self.database = database
        self.trials = trials
        reference = self._compile(reference_network())
        self.watch = CalmWatch(reference.timer(), best_ms, longest_s=watched_s)

    def add(self, found: Calibration, network: TracedModule) -> Calibration:
        """`found` with the kernels of `network` and the whole."""
        compiled = self._compile(network)
        own = self.watch.measure(compiled.timer())
        listed = kernels(network)
        profile = profile_until_known(compiled, own.ms)
        samples = samples_of_profile(listed, profile, network.name)
        sample = network_sample(network.name, network.name, listed, own, "calibration")
        target = {**found.target, "reference_ms": self.watch.best()}
        return replace(found.with_samples(samples).with_networks([sample]), target=target)

    def _compile(self, network: TracedModule) -> CompiledModule:
        if self.trials:
            self.backend.tune(network, trials=self.trials, database=self.database)
        return self.backend.compile(network, database=self.database)


def _usual_reference(found: Calibration) -> float | None:
    """What the reference took at its best when the calibration was last added to."""
    stored = found.target.get("reference_ms")
    return float(stored) if isinstance(stored, (int, float)) and stored > 0 else None


def held_out_accuracy(found: Calibration, names: Sequence[str] = ESTIMATORS[1:]) -> dict[str, dict[str, float | int]]:
    """Accuracy of each estimator on the measured networks, each predicted without the evidence of its own group.

    Empty for fewer than four networks. ``profiled`` without its own kernels would be ``analytical``: it is left out.
    """
    groups = sorted({n.group for n in found.networks})
    if len(groups) < _ENOUGH_NETWORKS:
        return {}
    result: dict[str, dict[str, float | int]] = {}
    for name in names:
        pairs = [
            (estimator.estimate(n.kernels), n.ms)
            for held in (set(groups[i::_ENOUGH_NETWORKS]) for i in range(_ENOUGH_NETWORKS))
            for estimator in [fit_estimator(name, without(found, held))]
            for n in found.networks
            if n.group in held
        ]
        result[name] = accuracy_of([e for e, _ in pairs], [ms for _, ms in pairs])
    return result


def without(found: Calibration, groups: set[str]) -> Calibration:
    """The evidence that does not come from `groups`."""
    return replace(
        found,
        samples=tuple(s for s in found.samples if s.group not in groups),
        networks=tuple(n for n in found.networks if n.group not in groups),
    )
