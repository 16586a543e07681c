"""Measured kernels of a network that an earlier run left in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cost_models import Calibration, CalibrationError
from netcut_fx.canonical_json import canonical_sha256
from netcut_fx.graph import TracedModule
from netcut_fx.job_keys import network_facts, timing_facts


def find_profile(folder: Path, traced: TracedModule, fingerprint: Callable[[], str]) -> tuple[Calibration, Path] | None:
    """The newest profile of `traced` in the folder of a run, and its file; None if there is none.

    Only reads, whoever else is at work there; what is damaged or belongs to another network, target or code is passed
    over.

    Parameters
    ----------
    folder : Path
        What ``netcut run --out`` was given.
    traced : TracedModule
        With the weights that the run used.
    fingerprint : callable
        Identity of the target; asked for only if there is a profile of this network, since the answer takes a compiler.
    """
    files = sorted(folder.glob("stages/profile-*.json"), key=lambda path: (path.stat().st_mtime, path.name))
    if not files:
        return None
    network = network_facts(traced)
    clock: dict[str, Any] = {}
    for path in reversed(files):
        try:
            stored: dict[str, Any] = json.loads(path.read_bytes())
            key, value = stored["key"], stored["value"]
            if any(key[name] != fact for name, fact in network.items()) or canonical_sha256(value) != stored["sha256"]:
                continue
            clock = clock or timing_facts(fingerprint())
            if all(key[name] == fact for name, fact in clock.items()):
                return Calibration.from_json(value["calibration"]), path
        except (OSError, ValueError, KeyError, TypeError, CalibrationError):
            continue
    return None
