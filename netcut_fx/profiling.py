"""Measure what a network really takes on the target: each kernel while the network runs, and the whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cost_models import Calibration
from netcut_fx.backends.base import Backend
from netcut_fx.calm import calm_rounds
from netcut_fx.evidence import network_sample
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.latency import samples_of_profile
from netcut_fx.machine_facts import machine_of
from netcut_fx.measure import Measurement, Stopwatch


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


def profile_network(backend: Backend, network: TracedModule, database: Path | None) -> NetworkProfile:
    """Compile `network` with the records of `database`, time it, and time each of its kernels."""
    listed = kernels(network)
    # Cuts of one network are one group: "name@cut".
    group = network.name.partition("@")[0]
    compiled = backend.compile(network, database=database)
    measured = Stopwatch().measure_timer(compiled.timer())
    profile = calm_rounds([compiled.profile()])
    calibration = Calibration(
        backend.target.fingerprint(),
        samples_of_profile(listed, profile, group),
        profile.overhead_ms / max(1, len(listed)),
        machine_of(backend.target),
        (network_sample(network.name, group, listed, measured, "profile"),),
        backend.target.to_json(),
    )
    return NetworkProfile(calibration, measured, tuple(k.name for k in compiled.kernels if not k.tuned))
