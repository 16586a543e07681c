"""Measurements of whole networks as evidence for the cost models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cost_models import Calibration, CalibrationError, Kernel, NetworkSample, hold
from netcut_fx.measure import Measurement

#: Name of the calibration in the folder of a run.
CALIBRATION = "calibration.json"
_WAIT_S = 60.0


def network_sample(
    name: str, group: str, network: Sequence[Kernel], measured: Measurement, source: str
) -> NetworkSample:
    """`measured` as evidence about a network that runs `network`."""
    return NetworkSample(name, group, tuple(network), measured.ms, measured.low_ms, measured.high_ms, source)


def add_evidence(path: Path, profiled: Calibration, networks: Iterable[NetworkSample]) -> Calibration:
    """Add a profile and measured networks to the calibration `path`, and return what it holds then.

    What is there for another target, or damaged, is replaced: a run measures on this machine.

    Raises
    ------
    CalibrationError
        If another process keeps the file for a minute.
    """
    with hold(path, timeout_s=_WAIT_S):
        found = profiled
        if path.exists():
            try:
                before = Calibration.load(path, fingerprint=profiled.fingerprint)
                found = before.with_samples(profiled.samples).with_networks(profiled.networks)
            except CalibrationError:
                found = profiled
        found = found.with_networks(networks)
        found.save(path)
    return found
