"""The process that searches: builds and times candidates of one network's kernels, each where most time can be won.

It is a process of its own because a bad schedule can crash the compiler or the kernel: the trial is lost, not the run.
Within it candidates are built and timed in place, which is what makes a trial cost a fraction of a second:
MetaSchedule's own builder starts fresh Python workers every round.

Reads one JSON object from standard input, writes one JSON event per line to standard output. The time when it must
end is one of `time.monotonic`, which all processes of a machine share.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from netcut_fx.backends.tvm.database import writer_lock
from netcut_fx.backends.tvm.gpu import place_of
from netcut_fx.backends.tvm.kernel_search import KernelSearch, Workshop, extracted_tasks
from netcut_fx.backends.tvm.records import RecordWriter, set_aside_corrupt_lines
from netcut_fx.backends.tvm.remote_device import DeviceAddress, RemoteDevice, there
from netcut_fx.backends.tvm.roofline import measured_peak
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.toolchain import import_tvm, limit_threads, tvm_target
from netcut_fx.backends.tvm.trial_log import TrialLog
from netcut_fx.backends.tvm.tune_plan import network_seconds, next_kernel, set_bounds
from netcut_fx.errors import DeviceLost
from netcut_fx.target import Target


def main() -> None:
    """Entry point: ``python -m netcut_fx.backends.tvm.tune_worker``."""
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the compiler prints goes to standard error, events stay clean
    config = json.load(sys.stdin)

    def emit(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    try:
        with writer_lock(Path(config["records"])):
            _tune(config, emit)
    except DeviceLost as error:
        emit(event="lost", message=str(error))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            return  # nobody listens any more
        emit(event="storage", errno=error.errno, message=str(error))


def _tune(config: dict[str, Any], emit: Any) -> None:
    folder, target, end_s = Path(config["records"]), Target.from_json(config["target"]), config["end_s"]
    tvm = import_tvm()
    from tvm.s_tir import meta_schedule as ms

    limit_threads(target.threads)
    device = config["device"] and RemoteDevice(DeviceAddress(**config["device"]), target.threads)
    tasks = extracted_tasks(tvm.ir.load_json(config["module"]), target)
    corrupt = set_aside_corrupt_lines(folder)
    log = TrialLog(folder, repair=True)
    shop = Workshop(
        tvm_target(target),
        Machine.for_schedules(target),
        RecordWriter(folder),
        log,
        cache(lambda: ms.cost_model.XGBModel(num_tuning_cores=1)),
        lambda trial: emit(event="try", trial=trial.to_json()),
        place_of(target) if device is None else there(device),
    )
    searches = [KernelSearch(task, shop, config["trials"], config["seed"] + i) for i, task in enumerate(tasks)]
    by_name = {search.progress.name: search for search in searches}
    kernels = [search.progress for search in searches]
    for name in config["skip"]:
        by_name[name].progress.exhausted = True
    emit(event="start", kernels=len(kernels), corrupt=corrupt + log.corrupt)
    # What a GPU or a remote device can do at most is not known: trials go where most time is spent.
    asked = device is None and target.kind == "llvm" and any(kernel.left for kernel in kernels)
    peak = measured_peak(folder, target) if asked else None
    while True:
        if peak is not None:
            set_bounds(kernels, peak)
        kernel = next_kernel(kernels)
        if kernel is None or (end_s is not None and time.monotonic() >= end_s):
            break
        emit(event="search", kernel=kernel.name)
        trial = by_name[kernel.name].step()
        if trial is not None:
            emit(
                event="trial",
                kernel=kernel.name,
                failed=trial.seconds is None,
                best_s=kernel.best_s if math.isfinite(kernel.best_s) else None,
                network_s=network_seconds(kernels),
                left=sum(k.left for k in kernels),
            )
    emit(event="end", left=sum(kernel.left for kernel in kernels))


if __name__ == "__main__":
    main()
