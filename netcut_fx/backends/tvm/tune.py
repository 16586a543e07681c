"""Search for schedules: drives the worker process, outlives its crashes, keeps to its budget, shows progress."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from netcut_fx.atomic_files import report_storage_errors
from netcut_fx.backends.base import Progress, TuneReport
from netcut_fx.backends.tvm.database import describe, mark_used, tuning_lock, writer_lock
from netcut_fx.backends.tvm.lower import LoweredModule
from netcut_fx.backends.tvm.records import records_folder
from netcut_fx.backends.tvm.remote_device import DeviceAddress
from netcut_fx.backends.tvm.seeds import plant_seeds
from netcut_fx.backends.tvm.toolchain import import_tvm, tvm_target
from netcut_fx.backends.tvm.trial_log import Trial, TrialLog
from netcut_fx.errors import BackendError, DeviceLost
from netcut_fx.target import Target

#: A worker that says nothing for so long hangs in a candidate; one that is over its time is waited for less long.
_SILENCE_S, _OVERTIME_S = 180.0, 20.0
#: A kernel that crashed the worker so often is left with the records it has.
_CRASHES_PER_KERNEL = 2


def tune(
    lowered: LoweredModule,
    target: Target,
    *,
    trials: int,
    database: Path,
    seed: int = 0,
    progress: Progress | None = None,
    minutes: float | None = None,
    seeds: bool = True,
    device: DeviceAddress | None = None,
) -> TuneReport:
    """Give each kernel of `lowered` up to `trials` candidates, for `minutes` at most; records that are there count.

    Candidates are timed on `device`, here by default.

    Raises
    ------
    BackendError
        If the worker dies before its first trial.
    DeviceLost
        If no device is there any more.
    NetcutError
        If a record cannot be written; those before it are intact.
    """
    folder = records_folder(database, target)
    end_s = None if minutes is None else time.monotonic() + 60 * minutes
    run = _Run(folder, end_s, progress)
    doing = f"write tuning records to {folder}"
    with report_storage_errors(doing, safe="the records before it are intact and will be used"), tuning_lock(folder):
        run.notes.extend(describe(folder, target))
        mark_used(folder)
        if seeds and (taken := plant_seeds(database, target)):
            run.notes.append(f"{taken} tuning records that ship with netcut fit this machine and are used")
        config: dict[str, Any] = {
            "module": serialised(lowered, target),
            "records": str(folder),
            "target": target.to_json(),
            "trials": trials,
            "seed": seed,
            "skip": [],
            "end_s": end_s,
            "device": None if device is None else asdict(device),
        }
        crashes: Counter[str] = Counter()
        while (crash := run.worker(config)) is not None:
            if not crash.kernel:
                raise BackendError(f"the tuning process died before its first kernel: {crash.reason}")
            crashes[crash.kernel] += 1
            run.failed += 1
            run.trials += 1
            run.searched.add(crash.kernel)
            if crash.trial is not None:
                # The next worker goes on behind the schedule that this one died of.
                with writer_lock(folder):
                    TrialLog(folder, repair=True).add(crash.trial)
            if crashes[crash.kernel] >= _CRASHES_PER_KERNEL:
                config["skip"].append(crash.kernel)
                run.notes.append(f"{crash.kernel} crashed the tuning process and keeps the records it has")
            config["seed"] += 1000  # other candidates than the one that crashed
    return run.report()


@dataclass(frozen=True)
class _Crash:
    kernel: str
    trial: Trial | None
    reason: str


@dataclass
class _Run:
    """What the workers of one call of `tune` have told so far."""

    folder: Path
    end_s: float | None
    progress: Progress | None
    started_s: float = field(default_factory=time.monotonic)
    first_trial_s: float | None = None
    kernels: int = 0
    trials: int = 0
    failed: int = 0
    left: int = 0
    searched: set[str] = field(default_factory=set[str])
    notes: list[str] = field(default_factory=list[str])

    def report(self) -> TuneReport:
        seconds = time.monotonic() - self.started_s
        return TuneReport(
            self.kernels, len(self.searched), self.trials, self.failed, seconds, self.left, tuple(self.notes)
        )

    def worker(self, config: dict[str, Any]) -> _Crash | None:
        """Run one worker to its end, or to the end of the time; what it died of, if it died."""
        environment = {**os.environ, "TVM_NUM_THREADS": str(config["target"]["threads"])}
        with tempfile.TemporaryFile("w+") as errors:
            # -P: a random.py in the folder of whoever tunes is none of the worker's modules.
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", "netcut_fx.backends.tvm.tune_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
            assert worker.stdin is not None
            assert worker.stdout is not None
            inbox: queue.Queue[str | None] = queue.Queue()
            reader = threading.Thread(target=_read, args=(worker.stdout, inbox), daemon=True)
            reader.start()
            kernel, pending, ended = "", None, False
            try:
                try:
                    json.dump(config, worker.stdin)
                    worker.stdin.close()
                except BrokenPipeError:
                    pass  # it died already: its last words are in `errors`
                for event in self._events(inbox):
                    kind = event.pop("event")
                    if kind == "storage":
                        raise OSError(event["errno"], event["message"])
                    if kind == "lost":
                        raise DeviceLost(event["message"])
                    if kind == "start":
                        self._start(**event)
                    elif kind == "search":
                        kernel, pending = event["kernel"], None
                    elif kind == "try":
                        pending = Trial.from_json(event["trial"])
                    elif kind == "trial":
                        pending = None
                        self._trial(**event)
                    elif kind == "end":
                        self.left, ended = event["left"], True
            finally:
                if not ended:
                    worker.kill()
                worker.wait()
                reader.join()
                worker.stdout.close()
            if ended or (self.end_s is not None and time.monotonic() >= self.end_s):
                return None
            errors.seek(0)
            lines = [line for line in errors.read().splitlines() if line.strip()]
            return _Crash(kernel, pending, lines[-1] if lines else f"exit status {worker.returncode}")

    def _start(self, kernels: int, corrupt: int) -> None:
        self.kernels = kernels
        if corrupt:
            self.notes.append(
                f"{corrupt} damaged lines of tuning records were set aside in {self.folder}/*.corrupt; the rest is used"
            )

    def _trial(self, kernel: str, failed: bool, best_s: float | None, network_s: float | None, left: int) -> None:
        now_s = time.monotonic()
        self.first_trial_s = self.first_trial_s or now_s
        self.trials += 1
        self.failed += failed
        self.left = left
        self.searched.add(kernel)
        if self.progress is not None:
            words = [time_left(now_s - self.first_trial_s, self.trials - 1, left, self.end_s, now_s)]
            if network_s is not None:
                words.append(f"sum {network_s * 1e3:.3f} ms")
            if best_s is not None:
                words.append(f"{kernel} {best_s * 1e3:.3f} ms")
            self.progress(self.trials, self.trials + left, ", ".join(word for word in words if word))

    def _events(self, inbox: queue.Queue[str | None]) -> Iterator[dict[str, Any]]:
        """Events of the worker until it ends or falls silent."""
        while True:
            patience = _SILENCE_S
            if self.end_s is not None:
                patience = min(patience, max(0.0, self.end_s - time.monotonic()) + _OVERTIME_S)
            try:
                line = inbox.get(timeout=patience)
            except queue.Empty:
                return
            if line is None:
                return
            try:
                yield json.loads(line)
            except ValueError:
                return  # killed in the middle of a line


def time_left(spent_s: float, made: int, left: int, end_s: float | None, now_s: float) -> str:
    """How long tuning may still take, from the `made` trials so far; empty where nothing is known.

    It is a bound: kernels for which trials bring nothing any more end before.
    """
    known = [spent_s / made * left] if made else []
    if end_s is not None:
        known.append(max(0.0, end_s - now_s))
    if not known:
        return ""
    seconds = min(known)
    return f"at most {seconds:.0f} s left" if seconds < 100 else f"at most {seconds / 60:.0f} min left"


def _read(source: IO[str], inbox: queue.Queue[str | None]) -> None:
    for line in source:
        inbox.put(line)
    inbox.put(None)


def serialised(lowered: LoweredModule, target: Target) -> str:
    """The network as the worker reads it."""
    return import_tvm().ir.save_json(tunable(lowered, target))


def tunable(lowered: LoweredModule, target: Target) -> Any:
    """`lowered` as workloads are read from it: constant arguments of kernels are marked."""
    import_tvm()
    from tvm.relax import transform

    with tvm_target(target):
        return transform.AttachAttrLayoutFreeBuffers()(lowered.module)
