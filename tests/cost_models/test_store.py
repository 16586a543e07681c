"""Calibrations on disk: whole or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cost_models import Calibration, CalibrationError, Kernel, KernelSample

KERNEL = Kernel("conv2d", ("conv2d",), ((1, 3, 8, 8),), ((1, 8, 8, 8),), "float32", 100, 200)


def calibration() -> Calibration:
    return Calibration("f" * 64, (KernelSample.of(KERNEL, [1.0, 2.0, 3.0]),), 0.001)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "host.json"
    calibration().save(path)
    assert Calibration.load(path, fingerprint="f" * 64) == calibration()
    assert [p.name for p in path.parent.iterdir()] == ["host.json"]


def test_a_foreign_calibration_is_refused(tmp_path: Path) -> None:
    calibration().save(tmp_path / "c.json")
    with pytest.raises(
        CalibrationError, match=r"made for another target or toolchain .*; calibrate again on this machine"
    ):
        Calibration.load(tmp_path / "c.json", fingerprint="e" * 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a calibration"),
        ("[]", "not a calibration"),
        ('{"schema_version": 99}', "schema version 99, this version reads 1; calibrate again"),
        ('{"schema_version": 1, "fingerprint": "f"}', "not a calibration"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=message):
        Calibration.load(path)


def test_a_zero_time_in_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    calibration().save(path)
    data = json.loads(path.read_text())
    data["samples"][0]["ms"] = 0.0
    path.write_text(json.dumps(data))
    with pytest.raises(CalibrationError, match="positive and finite"):
        Calibration.load(path)


def test_cost_models_imports_no_framework() -> None:
    code = "import sys, cost_models; print([m for m in ('torch', 'tvm', 'networkx', 'netcut_fx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
