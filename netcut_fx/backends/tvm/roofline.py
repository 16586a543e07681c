"""The least time that a kernel can take: its operations and bytes over what the machine does at most."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netcut_fx.atomic_files import atomic_write
from netcut_fx.backends.tvm.measuring import argument_infos
from netcut_fx.backends.tvm.schedules.kernel import read_kernel
from netcut_fx.backends.tvm.schedules.winograd_nests import PRODUCTS
from netcut_fx.backends.tvm.toolchain import import_tvm
from netcut_fx.target import Target

PEAK = "peak.json"


@dataclass(frozen=True)
class Work:
    """Operations of a kernel, and bytes of its arguments."""

    flops: float
    bytes: int


@dataclass(frozen=True)
class MachinePeak:
    """Operations and bytes from memory a second, with the threads of a target."""

    flops_per_s: float
    bytes_per_s: float

    def least_s(self, work: Work) -> float:
        """Bound below the seconds of any schedule of a kernel."""
        return max(work.flops / self.flops_per_s, work.bytes / self.bytes_per_s)

    def raised(self, work: Work, seconds: float) -> MachinePeak:
        """The peak as a kernel proves it that took `seconds`.

        Other work on the machine makes a measured peak look lower than it is, and a kernel that is timed again and
        again finds its data in a cache.
        """
        return MachinePeak(max(self.flops_per_s, work.flops / seconds), max(self.bytes_per_s, work.bytes / seconds))


def stored_peak(folder: Path) -> MachinePeak | None:
    """What earlier runs measured; None where none did."""
    try:
        value = json.loads((folder / PEAK).read_text(encoding="utf-8"))
        return MachinePeak(float(value["flops_per_s"]), float(value["bytes_per_s"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def measured_peak(folder: Path, target: Target) -> MachinePeak:
    """Measure, and keep the best that any run has seen: other work on the machine makes a peak look lower."""
    from netcut_fx.backends.tvm.peak import PeakProbe

    probe = PeakProbe(target)
    found, before = MachinePeak(probe.flops_per_s(5), probe.bytes_per_s(3)), stored_peak(folder)
    if before is not None:
        found = MachinePeak(max(found.flops_per_s, before.flops_per_s), max(found.bytes_per_s, before.bytes_per_s))
    if found != before:
        atomic_write(folder / PEAK, json.dumps(asdict(found)).encode())
    return found


def work_of(module: Any) -> Work:
    """Count the operations and bytes of `module`, a kernel that is not scheduled."""
    tvm = import_tvm()
    size = sum(
        math.prod(int(n) for n in info.shape) * np.dtype(str(info.dtype)).itemsize for info in argument_infos(module)
    )
    kernel = read_kernel(module["main"])
    if kernel is not None and kernel.anchor.name == PRODUCTS:
        # The transformations choose among rows when code is made: counting would take all of them.
        return Work(2.0 * kernel.anchor.points, size)
    try:
        return Work(float(tvm.s_tir.analysis.estimate_tir_flops(module)), size)
    except (tvm.error.TVMError, ValueError):  # an operation that it cannot count: bytes alone are a bound too
        return Work(0.0, size)
