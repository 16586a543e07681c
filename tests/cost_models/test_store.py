"""Calibrations on disk: whole or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cost_models import Calibration, CalibrationError, KernelSample, Machine, NetworkSample, hold
from tests.cost_models.made_up import elementwise

KERNEL = elementwise(8, 8)
NETWORK = NetworkSample("net at a", "net", (KERNEL, KERNEL), 4.0, 3.9, 4.1, "netcut run")


def calibration() -> Calibration:
    samples = (KernelSample.of(KERNEL, [1.0, 2.0, 3.0], "net"),)
    return Calibration(
        "f" * 64, samples, 0.001, Machine(16, (1, 2)), (NETWORK,), {"kind": "llvm"}, 2.5, {"flops": {"mape": 9.0}}
    )


def changed(path: Path, change: Any) -> Path:
    """A stored calibration with something else in it."""
    calibration().save(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


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
        ('{"schema_version": 99}', "schema version 99, this version reads 2; calibrate again"),
        ('{"schema_version": 1}', "schema version 1, this version reads 2; calibrate again"),
        ('{"schema_version": 2, "fingerprint": "f"}', "not a calibration"),
        ('{"schema_version": 2, "kernels": []}', "not a calibration"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=message) as error:
        Calibration.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_empty_calibration_is_refused(tmp_path: Path) -> None:
    replace(calibration(), samples=()).save(tmp_path / "c.json")
    with pytest.raises(CalibrationError, match=r"c\.json: holds no measured kernels; calibrate again$"):
        Calibration.load(tmp_path / "c.json")


@pytest.mark.parametrize("ms", [0.0, float("nan"), -1.0])
def test_an_impossible_time_in_the_file_is_refused(tmp_path: Path, ms: float) -> None:
    for part, message in (("samples", "positive and finite"), ("networks", "0 < low <= ms <= high < inf")):
        path = changed(tmp_path / "c.json", lambda data, part=part: data[part][0].update(ms=ms))
        with pytest.raises(CalibrationError, match=message):
            Calibration.load(path)


def test_a_kernel_that_does_not_fit_its_key_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path / "c.json", lambda data: data["kernels"][KERNEL.key].update(dtype="int8"))
    with pytest.raises(CalibrationError, match="does not fit its key"):
        Calibration.load(path)


def test_new_evidence_takes_the_place_of_old() -> None:
    again = replace(NETWORK, ms=4.05)
    assert calibration().with_networks([again]).networks == (again,)
    other = replace(NETWORK, source="bench")
    assert calibration().with_networks([other]).networks == (NETWORK, other)
    slower, elsewhere = KernelSample.of(KERNEL, [9.0], "net"), KernelSample.of(KERNEL, [9.0], "other")
    assert calibration().with_samples([slower]).samples == (slower,)
    # In another network the same workload may take another time; what was measured last comes last.
    first, *_ = calibration().samples
    assert calibration().with_samples([elsewhere]).samples == (first, elsewhere)
    assert calibration().with_samples([elsewhere]).with_samples([slower]).samples == (elsewhere, slower)


def test_a_measured_network_needs_kernels() -> None:
    with pytest.raises(ValueError, match="network x: a measured network needs its kernels, got none"):
        NetworkSample("x", "x", (), 1.0, 1.0, 1.0)


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    code = "import sys; from pathlib import Path; from cost_models import hold\nwith hold(Path(sys.argv[1])): pass"
    with hold(path):
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
        assert f"CalibrationError: {path}: another calibration is writing it; wait for it to end" in done.stderr
    with hold(path):
        pass


def test_cost_models_imports_no_framework() -> None:
    code = "import sys, cost_models; print([m for m in ('torch', 'tvm', 'networkx', 'netcut_fx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
