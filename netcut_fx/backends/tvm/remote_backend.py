"""TVM for a device that is reached through its RPC tracker: compiled here, tuned and measured there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netcut_fx.backends.base import TuneReport
from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.backends.tvm.database import mark_used
from netcut_fx.backends.tvm.module import build_lowered
from netcut_fx.backends.tvm.records import records_folder
from netcut_fx.backends.tvm.remote_device import DeviceAddress, RemoteDevice
from netcut_fx.backends.tvm.remote_module import RemoteModule
from netcut_fx.backends.tvm.toolchain import require_linker, resolve_remote_target
from netcut_fx.graph import TracedModule


class RemoteBackend(TvmBackend):
    """Compiles here, tunes and measures on the devices behind a tracker.

    Parameters
    ----------
    target : str
        SPEC of the device's CPU: ``llvm -mcpu=NAME``, or ``native`` where it is that of this machine.
    threads : int
        Threads that the artefact uses there.
    address : DeviceAddress
        Where the devices are asked for.
    wait_s : float
        How long one is waited for.
    """

    def __init__(self, target: str, threads: int, address: DeviceAddress, *, wait_s: float = 60.0) -> None:
        require_linker()
        super().__init__(resolve_remote_target(target, threads, address.key))
        self.address = address
        self.device = RemoteDevice(address, threads, wait_s)

    def tune(self, traced: TracedModule, **options: Any) -> TuneReport:
        """Search for schedules on a device; see `TvmBackend.tune`."""
        # The process that tunes asks for a device of its own, and there may be one only.
        self.device.release()
        return super().tune(traced, **options)

    def compile(self, traced: TracedModule, *, database: Path | None = None) -> RemoteModule:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compile `traced` with the best records of `database`, for the device."""
        records = None if database is None else records_folder(database, self.target)
        if records is not None:
            mark_used(records)
        (spec,) = traced.input_specs
        built = build_lowered(self._lower(traced), self.target, records)
        return RemoteModule(built, spec.shape, self.target, self.device)
