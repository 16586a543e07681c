"""Measure what a network really takes on the target: each kernel while the network runs, and the whole."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cost_models import Calibration
from netcut_fx.backends.base import Backend, CompiledModule, Profile
from netcut_fx.calm import TOLERANCE, CalmWatch, calm_rounds
from netcut_fx.evidence import network_sample
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.latency import samples_of_profile
from netcut_fx.machine_facts import machine_of
from netcut_fx.measure import Measurement, Stopwatch

_ROUNDS = 20
_MOST_ROUNDS = 100
#: And so many where others disturb.
_MOST_DISTURBED_ROUNDS = 300
#: No more rounds are begun after this time.
_PROFILED_S = 60.0
#: Rounds are repeated until the median of the slowest kernels is known this well.
_KNOWN = 0.03


@dataclass(frozen=True)
class NetworkProfile:
    """A profiled network.

    Parameters
    ----------
    calibration : Calibration
        Its kernels' times and the dispatch between them.
    measured : Measurement
        The whole network.
    untuned : tuple of str
        Kernels that ran without a tuning record.
    """

    calibration: Calibration
    measured: Measurement
    untuned: tuple[str, ...]


def profile_network(
    backend: Backend, network: TracedModule, database: Path | None, watch: CalmWatch | None = None
) -> NetworkProfile:
    """Compile `network` with the records of `database`, time it, and time each of its kernels.

    With a `watch` both are timed for as long as it takes on a machine that others disturb.
    """
    listed = kernels(network)
    # Cuts of one network are one group: "name@cut".
    group = network.name.partition("@")[0]
    compiled = backend.compile(network, database=database)
    if watch is None:
        measured = Stopwatch().measure_timer(compiled.timer())
        profile = calm_rounds([compiled.profile()])
    else:
        measured = watch.measure(compiled.timer())
        profile = profile_until_known(compiled, measured.ms)
    calibration = Calibration(
        backend.target.fingerprint(),
        samples_of_profile(listed, profile, group),
        profile.overhead_ms / max(1, len(listed)),
        machine_of(backend.target),
        (network_sample(network.name, group, listed, measured, "profile"),),
        backend.target.to_json(),
    )
    return NetworkProfile(calibration, measured, tuple(k.name for k in compiled.kernels if not k.tuned))


def profile_until_known(compiled: CompiledModule, calm_ms: float | None = None) -> Profile:
    """Profile until there are enough calm rounds, and the kernels that take most of the time have a steady median.

    Parameters
    ----------
    compiled : CompiledModule
        What is profiled.
    calm_ms : float, optional
        What it takes as a whole when nothing disturbs it.
    """
    started = time.monotonic()
    profiles = [compiled.profile(_ROUNDS)]
    while True:
        found = calm_rounds(profiles, calm_ms, _ROUNDS)
        disturbed = calm_ms is not None and bool(found.whole_ms) and max(found.whole_ms) > calm_ms * (1 + TOLERANCE)
        most = _MOST_DISTURBED_ROUNDS if disturbed else _MOST_ROUNDS
        enough = len(profiles) * _ROUNDS >= most or time.monotonic() - started > _PROFILED_S
        if enough or (_steady(found) and not disturbed):
            return found
        profiles.append(compiled.profile(_ROUNDS))


def _steady(profile: Profile) -> bool:
    """Whether the median of the whole is known to 3 %, each kernel counting by its share."""
    medians = [float(np.median(k.samples_ms)) for k in profile.kernels]
    errors = [
        1.25 * float(np.subtract(*np.quantile(k.samples_ms, (0.75, 0.25)))) / 1.35 / len(k.samples_ms) ** 0.5
        for k in profile.kernels
    ]
    return sum(errors) <= _KNOWN * sum(medians)
