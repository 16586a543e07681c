"""Tuning records on disk: where they live, and how they survive a killed writer and a full disk."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from netcut_fx.backends.tvm.toolchain import import_tvm
from netcut_fx.canonical_json import canonical_sha256
from netcut_fx.target import Target

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"


def identity(target: Target) -> dict[str, Any]:
    """What two targets must share for the records of one to say anything about the other."""
    versions = dict(target.toolchain)
    return {
        "kind": target.kind,
        "mcpu": target.mcpu,
        "arch": target.arch,
        "cpu_model": target.cpu_model,
        "threads": target.threads,
        "tvm": versions.get("apache-tvm", "unknown"),
        "llvm": versions.get("llvm", "unknown"),
    }


def records_folder(database: Path, target: Target) -> Path:
    """Folder below `database` for records of `target`'s CPU, thread count and compiler.

    Records of another CPU, thread count or TVM never mix: a schedule that was best there says nothing here.
    """
    return database / folder_name(identity(target))


def folder_name(of: Mapping[str, Any]) -> str:
    """Name of the records folder of an `identity`."""
    return f"{of['kind']}-{of['mcpu'] or 'any'}-{of['threads']}t-{canonical_sha256(dict(of))}"


def open_records(folder: Path, kernels: Iterable[Any] | None = None) -> Any:
    """A MetaSchedule database with the whole records of `folder`, or of `kernels` there; nothing is written there.

    TVM takes tens of milliseconds for each workload that it reads, and a folder may hold those of a hundred networks.
    Another process may be tuning: what it has written half is left out, and left alone.

    Parameters
    ----------
    folder : Path
        Where the records are.
    kernels : iterable of tvm.tirx.PrimFunc or tvm.IRModule, optional
        What will be looked up; anything by default.
    """
    workloads, _, records, _ = read_lines(folder)
    if kernels is not None:
        as_workload = import_tvm().get_global_func("tvm.s_tir.meta_schedule.normalize_mod")
        asked = {workload_hash(as_workload(kernel)) for kernel in kernels}
        places = [place for place, line in enumerate(workloads) if json.loads(line)[0] in asked]
        new = {place: i for i, place in enumerate(places)}
        workloads = [workloads[place] for place in places]
        found = ((new.get(place), record) for place, record in map(json.loads, records))
        records = [json.dumps([place, record]) + "\n" for place, record in found if place is not None]
    with tempfile.TemporaryDirectory() as copy:
        (Path(copy) / WORKLOADS).write_text("".join(workloads), encoding="utf-8")
        (Path(copy) / RECORDS).write_text("".join(records), encoding="utf-8")
        return _database(Path(copy))


class RecordWriter:
    """The MetaSchedule database in `folder`, which only the holder of its locks may open.

    TVM does not notice that a disk is full: the record is in memory and half of it in the file. So the files are looked
    at after each write, and cut back to what they were.

    Parameters
    ----------
    folder : Path
        Where the records are; its half-written lines are set aside already.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stored = {str(json.loads(line)[0]) for line in read_lines(folder)[0]}
        self.database = _database(folder)

    def workload(self, module: Any) -> Any:
        """The workload of `module`, written if it is new."""
        name = workload_hash(module)
        found = self._write(WORKLOADS, name not in self._stored, lambda: self.database.commit_workload(module))
        self._stored.add(name)
        return found

    def add(self, record: Any) -> None:
        """Write one record."""
        self._write(RECORDS, True, lambda: self.database.commit_tuning_record(record))

    def _write(self, name: str, grows: bool, commit: Callable[[], Any]) -> Any:
        path = self._folder / name
        before = path.stat().st_size
        try:
            result = commit()
        finally:
            whole = path.stat().st_size > before or not grows
            with path.open("rb") as file:
                if path.stat().st_size:
                    file.seek(-1, os.SEEK_END)
                    whole = whole and file.read(1) == b"\n"
            if not whole:
                os.truncate(path, before)
        if not whole:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return result


def append_line(path: Path, line: str) -> None:
    """Append `line` as a whole or not at all.

    Raises
    ------
    OSError
        As the system reports it; the file is then as it was.
    """
    with path.open("ab", buffering=0) as sink:
        before = os.fstat(sink.fileno()).st_size
        data = (line + "\n").encode()
        try:
            if sink.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            os.truncate(path, before)
            raise


def workload_hash(module: Any) -> str:
    """Name of a workload: TVM's structural hash, which its database writes as well."""
    from tvm_ffi import structural_hash

    return str(structural_hash(module))


def set_aside_corrupt_lines(folder: Path) -> int:
    """Move lines that a killed writer left incomplete to ``*.corrupt`` and say how many there were.

    Only the holder of the folder's locks may do that: a line that is being written looks the same.
    """
    workloads, bad_workloads, records, bad_records = read_lines(folder)
    for name, good, bad in ((WORKLOADS, workloads, bad_workloads), (RECORDS, records, bad_records)):
        set_aside(folder / name, good, bad)
    return len(bad_workloads) + len(bad_records)


def set_aside(path: Path, good: list[str], bad: list[str]) -> None:
    """Leave the lines `good` in `path` and append `bad` to ``<path>.corrupt``."""
    if not bad:
        return
    with path.with_name(f"{path.name}.corrupt").open("a", encoding="utf-8") as sink:
        sink.writelines(line.rstrip("\n") + "\n" for line in bad)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text("".join(good), encoding="utf-8")
    temporary.replace(path)


def read_lines(folder: Path) -> tuple[list[str], list[str], list[str], list[str]]:
    """Lines of the workload file that are whole, those that are not, and the same of the record file.

    Records name their workload by line number, so the workload file ends at its first bad line and records that point
    behind it count as bad.
    """
    workloads, bad_workloads = split_lines(folder / WORKLOADS, _is_workload, stop_at_bad=True)
    count = len(workloads)

    def usable(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and 0 <= value[0] < count

    records, bad_records = split_lines(folder / RECORDS, usable, stop_at_bad=False)
    return workloads, bad_workloads, records, bad_records


def _is_workload(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def split_lines(path: Path, valid: Callable[[Any], bool], *, stop_at_bad: bool) -> tuple[list[str], list[str]]:
    """Lines of `path` that are whole JSON values and `valid`, and the others."""
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


def _database(folder: Path) -> Any:
    import_tvm()
    from tvm.s_tir import meta_schedule as ms

    return ms.database.JSONDatabase(path_workload=str(folder / WORKLOADS), path_tuning_record=str(folder / RECORDS))
