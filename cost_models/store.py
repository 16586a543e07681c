"""Measured kernels on disk: one versioned JSON per target, written atomically."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cost_models.sample import KernelSample

SCHEMA_VERSION = 1


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
    """

    fingerprint: str
    samples: tuple[KernelSample, ...]
    overhead_ms_per_kernel: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Read what `to_json` wrote; see `load` for errors."""
        try:
            if data["schema_version"] != SCHEMA_VERSION:
                raise CalibrationError(
                    f"schema version {data['schema_version']}, this version reads {SCHEMA_VERSION}; calibrate again"
                )
            return cls(
                str(data["fingerprint"]),
                tuple(KernelSample(**sample) for sample in data["samples"]),
                float(data["overhead_ms_per_kernel"]),
            )
        except CalibrationError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise CalibrationError(f"not a calibration ({error!r}); delete it and calibrate again") from error

    def save(self, path: Path) -> None:
        """Write to `path`; readers see the old file or the new one, never half of it."""
        text = json.dumps(self.to_json(), indent=1)
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
            If the file is damaged, of a newer schema, or belongs to another target than `fingerprint`.
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
        return found
