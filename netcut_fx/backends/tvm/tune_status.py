"""What a tuning database holds, and what of one network is tuned."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from netcut_fx.backends.tvm.database import TARGET, in_words, stored_identity, target_folders
from netcut_fx.backends.tvm.kernel_search import KernelSearch, Workshop, extracted_tasks
from netcut_fx.backends.tvm.lower import LoweredModule
from netcut_fx.backends.tvm.records import open_records, read_lines, records_folder
from netcut_fx.backends.tvm.roofline import stored_peak
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.toolchain import tvm_target
from netcut_fx.backends.tvm.trial_log import TrialLog
from netcut_fx.backends.tvm.tune import tunable
from netcut_fx.backends.tvm.tune_plan import KernelProgress, set_bounds
from netcut_fx.target import Target


@dataclass(frozen=True)
class FolderStatus:
    """One records folder.

    Parameters
    ----------
    folder : str
        Where it is.
    target : str
        CPU, threads and compiler, as far as the folder says.
    workloads, records : int
        Distinct kernels, and schedules measured for them.
    failed : int
        Schedules that failed.
    set_aside : int
        Damaged lines, those set aside before and those that the next tuning will set aside.
    bytes : int
        Of all its files.
    last_use : str or None
        When something was tuned or compiled with it, ISO 8601.
    best_ms : dict of str to float
        Fastest schedule of each workload, by TVM's structural hash.
    """

    folder: str
    target: str
    workloads: int
    records: int
    failed: int
    set_aside: int
    bytes: int
    last_use: str | None
    best_ms: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class KernelStatus:
    """How far tuning of one kernel of a network is.

    Parameters
    ----------
    name : str
        The compiler's.
    calls : int
        How often the network runs it.
    trials : int
        Schedules tried.
    best_ms : float or None
        One call with the fastest of them; None if it has no record.
    share : float or None
        Of the summed times of all kernels that have one.
    peak_share : float or None
        The least time that the machine needs for it, over `best_ms`.
    finished : str or None
        Why no further trial would be made; None if one would.
    left : int
        Trials that it may still have.
    """

    name: str
    calls: int
    trials: int
    best_ms: float | None
    share: float | None
    peak_share: float | None
    finished: str | None
    left: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def database_status(database: Path) -> tuple[FolderStatus, ...]:
    """Every records folder of `database`, read without the compiler and without changing anything."""
    return tuple(_folder_status(folder) for folder in target_folders(database))


def _folder_status(folder: Path) -> FolderStatus:
    workloads, bad_workloads, records, bad_records = read_lines(folder)
    best: defaultdict[str, float] = defaultdict(lambda: math.inf)
    for line in records:
        place, record = json.loads(line)
        name = str(json.loads(workloads[place])[0])
        best[name] = min(best[name], *(float(s) for s in record[1]))
    log = TrialLog(folder)
    corrupt = sum(path.read_bytes().count(b"\n") for path in folder.glob("*.corrupt"))
    known, description = stored_identity(folder), folder / TARGET
    used = datetime.fromtimestamp(description.stat().st_mtime, UTC) if description.exists() else None
    return FolderStatus(
        str(folder),
        folder.name if known is None else in_words(known),
        len(workloads),
        len(records),
        sum(trial.seconds is None for trials in log.by_workload().values() for trial in trials),
        corrupt + len(bad_workloads) + len(bad_records) + log.corrupt,
        sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        None if used is None else used.isoformat(timespec="seconds"),
        {name: seconds * 1e3 for name, seconds in best.items()},
    )


def network_status(lowered: LoweredModule, target: Target, *, trials: int, database: Path) -> tuple[KernelStatus, ...]:
    """Each distinct kernel of a network, those first that take most of its time, unknown ones before them."""
    folder = records_folder(database, target)
    machine = Machine.for_schedules(target)
    tasks = extracted_tasks(tunable(lowered, target), target)
    reader = _Reader(folder, [task.dispatched[0] for task in tasks])
    shop = Workshop(tvm_target(target), machine, reader, TrialLog(folder), lambda: None, lambda _: None)
    kernels = [KernelSearch(task, shop, trials, 0).progress for task in tasks]
    peak = stored_peak(folder)
    if peak is not None:
        set_bounds(kernels, peak)
    total = sum(k.calls * k.best_s for k in kernels if math.isfinite(k.best_s))
    rows = [_kernel_status(kernel, total) for kernel in kernels]
    return tuple(sorted(rows, key=lambda row: (row.share is not None, -(row.share or 0.0), row.name)))


def _kernel_status(kernel: KernelProgress, total: float) -> KernelStatus:
    known = math.isfinite(kernel.best_s)
    return KernelStatus(
        kernel.name,
        kernel.calls,
        len(kernel.tried),
        kernel.best_s * 1e3 if known else None,
        kernel.calls * kernel.best_s / total if known else None,
        kernel.least_s / kernel.best_s if known and kernel.least_s else None,
        kernel.finished,
        kernel.left,
    )


class _Reader:
    """Looks workloads up as a `RecordWriter` does, in a copy."""

    def __init__(self, folder: Path, kernels: Sequence[Any]) -> None:
        self.database = open_records(folder, kernels)

    def workload(self, module: Any) -> Any:
        return self.database.commit_workload(module)
