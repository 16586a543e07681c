"""TVM as a backend: the only package that imports tvm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from netcut_fx.backends.base import CompiledKernel, Progress, TuneReport
from netcut_fx.backends.tvm.database import mark_used
from netcut_fx.backends.tvm.gpu import gpu_target
from netcut_fx.backends.tvm.lower import LoweredModule, lower
from netcut_fx.backends.tvm.module import TvmModule, compile_lowered
from netcut_fx.backends.tvm.records import records_folder
from netcut_fx.backends.tvm.remote_device import DeviceAddress
from netcut_fx.backends.tvm.toolchain import resolve_target
from netcut_fx.backends.tvm.tune import tune
from netcut_fx.backends.tvm.tune_status import KernelStatus, network_status
from netcut_fx.errors import BackendError
from netcut_fx.graph import TracedModule
from netcut_fx.target import Target, parse_target_spec


class TvmBackend:
    """Compiles, tunes and times networks with Apache TVM.

    Parameters
    ----------
    target : str or Target
        SPEC (``native``, ``llvm``, ``llvm -mcpu=znver4``, ``cuda``) or a resolved target.
    threads : int
        Threads the artefact uses; part of the target.
    """

    name = "tvm"

    def __init__(self, target: str | Target = "native", threads: int = 1) -> None:
        #: Of the device that measures; None for this machine.
        self.address: DeviceAddress | None = None
        self._target = target if isinstance(target, Target) else _resolved(target, threads)
        self._lowered: dict[int, tuple[TracedModule, LoweredModule]] = {}

    @property
    def target(self) -> Target:
        """What it compiles for."""
        return self._target

    def kernels(self, traced: TracedModule) -> Sequence[CompiledKernel]:
        """Kernel calls of `traced` in execution order, none tuned yet."""
        return [CompiledKernel(call.function, call.key, False) for call in self._lower(traced).calls]

    def tune(
        self,
        traced: TracedModule,
        *,
        trials: int,
        database: Path,
        seed: int = 0,
        progress: Progress | None = None,
        minutes: float | None = None,
        seeds: bool = True,
    ) -> TuneReport:
        """Search for schedules of all kernels of `traced`; see `netcut_fx.backends.base.Backend.tune`."""
        if trials < 0:
            raise BackendError(f"trials must be 0 or more, got {trials}")
        if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
            raise BackendError(f"minutes must be above 0, got {minutes}")
        return tune(
            self._lower(traced),
            self.target,
            trials=trials,
            database=database,
            seed=seed,
            progress=progress,
            minutes=minutes,
            seeds=seeds,
            device=self.address,
        )

    def tuning_status(self, traced: TracedModule, *, trials: int, database: Path) -> tuple[KernelStatus, ...]:
        """Which kernels of `traced` are tuned, their share of its time, and what `tune` would still do."""
        return network_status(self._lower(traced), self.target, trials=trials, database=database)

    def compile(self, traced: TracedModule, *, database: Path | None = None) -> TvmModule:
        """Compile `traced` with the best records of `database`."""
        records = None if database is None else records_folder(database, self.target)
        if records is not None:
            mark_used(records)
        shapes = [spec.shape for spec in traced.input_specs]
        return compile_lowered(self._lower(traced), self.target, records, *shapes)

    def _lower(self, traced: TracedModule) -> LoweredModule:
        """Lowering takes seconds and each network is asked for several times: the last few are kept."""
        found = self._lowered.get(id(traced))
        if found is None or found[0] is not traced:
            if len(self._lowered) >= 4:
                self._lowered.pop(next(iter(self._lowered)))
            found = (traced, lower(traced, self.target))
            self._lowered[id(traced)] = found
        return found[1]


def _resolved(spec: str, threads: int) -> Target:
    kind, options = parse_target_spec(spec)
    return gpu_target(options.get("arch", "")) if kind == "cuda" else resolve_target(spec, threads)
