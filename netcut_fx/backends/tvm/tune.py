"""Search for schedules: drives the worker process, outlives its crashes, shows progress."""

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
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from netcut_fx.backends.base import Progress, TuneReport
from netcut_fx.backends.tvm.lower import LoweredModule
from netcut_fx.backends.tvm.records import records_folder
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.toolchain import import_tvm, tvm_target
from netcut_fx.errors import BackendError
from netcut_fx.target import Target

#: A worker that says nothing for so long hangs in a candidate.
_SILENCE_S = 180.0
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
) -> TuneReport:
    """Bring every kernel of `lowered` to `trials` measured candidates; records that are there count."""
    folder = records_folder(database, target)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    totals: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch, FileLock(str(folder / "lock")):
        module_file = Path(scratch) / "module.json"
        module_file.write_text(_serialised(lowered, target), encoding="utf-8")
        config: dict[str, Any] = {
            "module": str(module_file),
            "records": str(folder),
            "target": _jsonable(dict(tvm_target(target).export())),
            "threads": target.threads,
            "machine": asdict(Machine.of(target)),
            "trials": trials,
            "seed": seed,
            "skip": [],
        }
        crashes: Counter[str] = Counter()
        while True:
            crashed_in = _run_worker(config, totals, progress)
            if crashed_in is None:
                break
            crashes[crashed_in.kernel] += 1
            totals["failed"] += 1
            if not crashed_in.kernel:
                raise BackendError(f"the tuning process died before its first kernel: {crashed_in.reason}")
            if crashes[crashed_in.kernel] >= _CRASHES_PER_KERNEL:
                config["skip"].append(crashed_in.kernel)
            config["seed"] += 1000  # other candidates than the one that crashed
    return TuneReport(
        totals["kernels"], totals["searched"], totals["trials"], totals["failed"], time.monotonic() - started
    )


class _Crash:
    def __init__(self, kernel: str, reason: str) -> None:
        self.kernel = kernel
        self.reason = reason


def _run_worker(config: dict[str, Any], totals: Counter[str], progress: Progress | None) -> _Crash | None:
    environment = {**os.environ, "TVM_NUM_THREADS": str(config["threads"])}
    with tempfile.TemporaryFile("w+") as errors:
        worker = subprocess.Popen(
            [sys.executable, "-m", "netcut_fx.backends.tvm.tune_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        current, ended = "", False
        inbox: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(worker.stdout, inbox), daemon=True)
        reader.start()
        try:
            json.dump(config, worker.stdin)
            worker.stdin.close()
            for event in _events(inbox):
                if event["event"] == "start":
                    totals["kernels"] = event["kernels"]
                elif event["event"] == "search":
                    current = event["kernel"]
                elif event["event"] == "done":
                    totals["searched"] += event["trials"] > 0
                    totals["trials"] += event["trials"]
                    totals["failed"] += event["failed"]
                    if progress is not None:
                        progress(event["index"] + 1, totals["kernels"], event["kernel"])
                elif event["event"] == "end":
                    ended = True
        finally:
            if not ended:
                worker.kill()
            worker.wait()
            reader.join()
            worker.stdout.close()
        if ended:
            return None
        errors.seek(0)
        lines = [line for line in errors.read().splitlines() if line.strip()]
        return _Crash(current, lines[-1] if lines else f"exit status {worker.returncode}")


def _read(source: IO[str], inbox: queue.Queue[str | None]) -> None:
    for line in source:
        inbox.put(line)
    inbox.put(None)


def _events(inbox: queue.Queue[str | None]) -> Iterator[dict[str, Any]]:
    """Events of the worker until it ends or falls silent."""
    while True:
        try:
            line = inbox.get(timeout=_SILENCE_S)
        except queue.Empty:
            return
        if line is None:
            return
        yield json.loads(line)


def _serialised(lowered: LoweredModule, target: Target) -> str:
    tvm = import_tvm()
    from tvm.relax import transform

    with tvm_target(target):
        module = transform.AttachAttrLayoutFreeBuffers()(lowered.module)
    return tvm.ir.save_json(module)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (int, float, bool, str)):
        return value
    return [_jsonable(v) for v in value]
