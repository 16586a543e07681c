"""Tuning records on disk: where they live, and how they survive a killed writer."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from netcut_fx.backends.tvm.toolchain import import_tvm
from netcut_fx.canonical_json import canonical_sha256
from netcut_fx.target import Target

_WORKLOADS = "database_workload.json"
_RECORDS = "database_tuning_record.json"


def records_folder(database: Path, target: Target) -> Path:
    """Folder below `database` for records of `target`'s CPU, thread count and compiler.

    Records of another CPU, thread count or TVM never mix: a schedule that was best there says nothing here.
    """
    versions = dict(target.toolchain)
    identity = {
        "kind": target.kind,
        "mcpu": target.mcpu,
        "arch": target.arch,
        "cpu_model": target.cpu_model,
        "threads": target.threads,
        "tvm": versions.get("apache-tvm", "unknown"),
        "llvm": versions.get("llvm", "unknown"),
    }
    return database / f"{target.kind}-{target.mcpu or 'any'}-{target.threads}t-{canonical_sha256(identity)}"


def open_records(folder: Path) -> Any:
    """The MetaSchedule database in `folder`, created if there is none; half-written lines are set aside first."""
    import_tvm()
    from tvm.s_tir import meta_schedule as ms

    folder.mkdir(parents=True, exist_ok=True)
    set_aside_corrupt_lines(folder)
    return ms.database.JSONDatabase(path_workload=str(folder / _WORKLOADS), path_tuning_record=str(folder / _RECORDS))


class FailedAttempts:
    """How many candidates of each workload failed: they count as trials, but are no records.

    A failed candidate written as a record with an absurd time would be applied where all of a workload's failed.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "failed_attempts.jsonl"
        self._counts: Counter[str] = Counter()
        lines, _ = _split(self._path, lambda value: isinstance(value, list) and len(value) == 2, stop_at_bad=False)
        for line in lines:
            workload, count = json.loads(line)
            self._counts[str(workload)] += int(count)

    def of(self, module: Any) -> int:
        """Failed candidates of the workload `module` so far."""
        return self._counts[_workload_hash(module)]

    def add(self, module: Any, count: int) -> None:
        """Remember `count` more."""
        if count:
            self._counts[_workload_hash(module)] += count
            with self._path.open("a", encoding="utf-8") as sink:
                sink.write(json.dumps([_workload_hash(module), count]) + "\n")


def _workload_hash(module: Any) -> str:
    from tvm_ffi import structural_hash

    return str(structural_hash(module))


def set_aside_corrupt_lines(folder: Path) -> int:
    """Move lines that a killed writer left incomplete to ``*.corrupt`` and say how many there were.

    Records name their workload by line number, so the workload file is cut at its first bad line and records that
    point behind the cut go with it.
    """
    dropped = 0
    workloads, bad_workloads = _split(folder / _WORKLOADS, lambda value: isinstance(value, list), stop_at_bad=True)
    count = len(workloads)

    def usable(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and value[0] < count  # pyright: ignore

    records, bad_records = _split(folder / _RECORDS, usable, stop_at_bad=False)
    for name, good, bad in ((_WORKLOADS, workloads, bad_workloads), (_RECORDS, records, bad_records)):
        if not bad:
            continue
        dropped += len(bad)
        with (folder / f"{name}.corrupt").open("a", encoding="utf-8") as sink:
            sink.writelines(line.rstrip("\n") + "\n" for line in bad)
        temporary = folder / f"{name}.tmp"
        temporary.write_text("".join(good), encoding="utf-8")
        temporary.replace(folder / name)
    return dropped


def _split(path: Path, valid: Any, *, stop_at_bad: bool) -> tuple[list[str], list[str]]:
    """Lines of `path` that are whole and `valid`, and the others."""
    good: list[str] = []
    bad: list[str] = []
    if not path.exists():
        return good, bad
    with path.open(encoding="utf-8", errors="replace") as source:
        for line in source:
            if bad and stop_at_bad:
                bad.append(line)
                continue
            try:
                whole = line.endswith("\n") and valid(json.loads(line))
            except ValueError:
                whole = False
            (good if whole else bad).append(line)
    return good, bad
