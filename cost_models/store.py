"""Evidence about one target on disk: one versioned JSON, written atomically, by one process at a time."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cost_models.kernel import Kernel
from cost_models.machine import Machine
from cost_models.sample import KernelSample, NetworkSample

SCHEMA_VERSION = 2
_TIMES = ("ms", "low_ms", "high_ms")


class CalibrationError(ValueError):
    """A calibration file cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Calibration:
    """Evidence about one target.

    Parameters
    ----------
    fingerprint : str
        Identity of the target and its toolchain, in full.
    samples : tuple of KernelSample
        Measured kernels.
    overhead_ms_per_kernel : float
        What a network takes beyond its kernels, per call.
    machine : Machine
        What the analytical model has to know of the processor.
    networks : tuple of NetworkSample
        Networks measured end to end.
    target : mapping
        What the fingerprint stands for, for people.
    minutes : float
        Time that went into it.
    errors : mapping
        Held-out error statistics, by estimator; see `accuracy.accuracy_of`.
    """

    fingerprint: str
    samples: tuple[KernelSample, ...]
    overhead_ms_per_kernel: float = 0.0
    machine: Machine = field(default_factory=Machine)
    networks: tuple[NetworkSample, ...] = ()
    target: Mapping[str, Any] = field(default_factory=dict[str, Any])
    minutes: float = 0.0
    errors: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def with_networks(self, networks: Iterable[NetworkSample]) -> Calibration:
        """With further measurements of networks; one of the same name, group and source takes the place of the old."""
        merged = {(n.group, n.name, n.source): n for n in (*self.networks, *networks)}
        return replace(self, networks=tuple(merged.values()))

    def with_samples(self, samples: Iterable[KernelSample]) -> Calibration:
        """With further measured kernels, last; one of the same workload and group takes the place of the old."""
        new = {(s.group, s.key): s for s in samples}
        merged = {(s.group, s.key): s for s in self.samples if (s.group, s.key) not in new} | new
        return replace(self, samples=tuple(merged.values()))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; each kernel stands there once."""
        listed = (*(s.kernel for s in self.samples), *(k for n in self.networks for k in n.kernels))
        return {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "target": dict(self.target),
            "machine": self.machine.to_json(),
            "minutes": self.minutes,
            "errors": dict(self.errors),
            "overhead_ms_per_kernel": self.overhead_ms_per_kernel,
            "kernels": {kernel.key: kernel.to_json() for kernel in listed},
            "samples": [
                {"kernel": s.key, "rounds": s.rounds, "group": s.group, **{t: getattr(s, t) for t in _TIMES}}
                for s in self.samples
            ],
            "networks": [
                {
                    "name": n.name,
                    "group": n.group,
                    "source": n.source,
                    **{t: getattr(n, t) for t in _TIMES},
                    "kernels": [k.key for k in n.kernels],
                }
                for n in self.networks
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Read what `to_json` wrote; see `load` for errors."""
        try:
            if data["schema_version"] != SCHEMA_VERSION:
                raise CalibrationError(
                    f"schema version {data['schema_version']}, this version reads {SCHEMA_VERSION}; calibrate again"
                )
            return cls._read(data)
        except CalibrationError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(f"not a calibration ({error!r}); delete it and calibrate again") from error

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> Calibration:
        kernels: dict[str, Kernel] = {}
        for key, stored in data["kernels"].items():
            kernels[key] = Kernel.from_json(stored)
            if kernels[key].key != key:
                raise ValueError(f"kernel {key} does not fit its key")
        samples = tuple(
            KernelSample(kernels[s["kernel"]], **_times(s), rounds=int(s["rounds"]), group=str(s["group"]))
            for s in data["samples"]
        )
        networks = tuple(
            NetworkSample(
                str(n["name"]),
                str(n["group"]),
                tuple(kernels[key] for key in n["kernels"]),
                **_times(n),
                source=str(n["source"]),
            )
            for n in data["networks"]
        )
        return cls(
            str(data["fingerprint"]),
            samples,
            float(data["overhead_ms_per_kernel"]),
            Machine.from_json(data["machine"]),
            networks,
            dict(data["target"]),
            float(data["minutes"]),
            dict(data["errors"]),
        )

    def save(self, path: Path) -> None:
        """Write to `path`; readers see the old file or the new one, never half of it."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as sink:
                sink.write(text)
                sink.flush()
                os.fsync(sink.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path, *, fingerprint: str | None = None) -> Calibration:
        """Read `path`.

        Raises
        ------
        CalibrationError
            If the file is damaged, empty, of another schema, or belongs to another target than `fingerprint`.
        """
        try:
            found = cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error
        except (OSError, ValueError) as error:
            raise CalibrationError(f"{path}: not a calibration ({error}); delete it and calibrate again") from error
        if fingerprint is not None and found.fingerprint != fingerprint:
            raise CalibrationError(
                f"{path}: made for another target or toolchain ({found.fingerprint[:12]}, this is {fingerprint[:12]}); "
                "calibrate again on this machine"
            )
        if not found.samples:
            raise CalibrationError(f"{path}: holds no measured kernels; calibrate again")
        return found


def _times(stored: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(stored[name]) for name in _TIMES}


@contextmanager
def hold(path: Path, *, timeout_s: float = 0.0) -> Generator[None]:
    """Keep other processes from changing the calibration `path` while the block runs.

    Raises
    ------
    CalibrationError
        If another process holds it for longer than `timeout_s`.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=timeout_s, is_singleton=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise CalibrationError(
            f"{path}: another calibration is writing it; wait for it to end, or choose another file"
        ) from error
    try:
        yield
    finally:
        lock.release()
