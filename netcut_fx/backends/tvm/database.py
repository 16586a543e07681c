"""A tuning database: one records folder a target, its locks, and what it takes over from other databases."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from netcut_fx.atomic_files import atomic_write, report_storage_errors
from netcut_fx.backends.tvm.records import (
    RECORDS,
    WORKLOADS,
    append_line,
    folder_name,
    identity,
    read_lines,
    set_aside_corrupt_lines,
)
from netcut_fx.backends.tvm.trial_log import TRIALS, trial_lines
from netcut_fx.errors import SpecError, TargetMismatch
from netcut_fx.target import Target

#: What a records folder is for, in words that its name only hashes; touched whenever the folder is tuned or compiled.
TARGET = "target.json"
#: Held by whoever writes into a records folder. The tuning process takes it besides the lock of the process that
#: started it: a killed parent lets go of its own while that process still ends its trial.
WRITER_LOCK = "writer.lock"
#: Two records of one thread count mix if these are equal; folders of several thread counts may be merged at once.
_SAME = ("kind", "arch", "cpu_model", "tvm", "llvm")


@dataclass(frozen=True)
class MergeReport:
    """What a database took over.

    Parameters
    ----------
    workloads, records, trials : int
        Lines that were new.
    duplicates : int
        Records that were there already.
    left_out : tuple of str
        What of the source does not fit this machine or compiler.
    """

    workloads: int
    records: int
    trials: int
    duplicates: int
    left_out: tuple[str, ...] = ()


@contextmanager
def tuning_lock(folder: Path) -> Iterator[None]:
    """Keep other processes from tuning with `folder`; they wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder / "lock")):
        yield


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Be the only one who writes into `folder`."""
    with FileLock(str(folder / WRITER_LOCK)):
        yield


def describe(folder: Path, target: Target) -> tuple[str, ...]:
    """Say in `folder` what it is for; names records of the same CPU beside it that a new folder cannot use."""
    own = identity(target)
    fresh = not (folder / RECORDS).exists()
    if not (folder / TARGET).exists():
        atomic_write(folder / TARGET, (json.dumps(own, indent=1) + "\n").encode())
    if not fresh:
        return ()
    others = [stored_identity(other) for other in target_folders(folder.parent) if other != folder]
    return tuple(
        f"records of {in_words(other)} in {folder.parent} are not used: this is {in_words(own)}"
        for other in others
        if other is not None and other["threads"] == own["threads"]
    )


def mark_used(folder: Path) -> None:
    """Note that the records of `folder` were used now; a database that cannot be written is used all the same."""
    with suppress(OSError):
        os.utime(folder / TARGET)


def stored_identity(folder: Path) -> dict[str, Any] | None:
    """What `folder` is for; None where it does not say."""
    try:
        value = json.loads((folder / TARGET).read_text(encoding="utf-8"))
        return value if folder_name(value) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def in_words(of: Mapping[str, Any]) -> str:
    """An `identity` for people."""
    threads = f"{of['threads']} thread{'' if of['threads'] == 1 else 's'}"
    return f"{of['cpu_model']} ({of['mcpu'] or 'any'}), {threads}, TVM {of['tvm']}, LLVM {of['llvm']}"


def target_folders(database: Path) -> list[Path]:
    """Records folders in `database`, or itself if it is one."""
    if (database / WORKLOADS).exists():
        return [database]
    return sorted(path.parent for path in database.glob(f"*/{WORKLOADS}"))


def merge(source: Path, database: Path, target: Target) -> MergeReport:
    """Take the records of another database over into `database`, as far as they are of this CPU and compiler.

    Parameters
    ----------
    source : Path
        A database, or one folder of it.
    database : Path
        Where they go.
    target : Target
        This machine and compiler; records of other thread counts are taken over as well.

    Raises
    ------
    SpecError
        If there are no records in `source`.
    TargetMismatch
        If all of them are of another CPU or compiler.
    """
    folders = target_folders(source)
    if not folders:
        raise SpecError(f"there are no tuning records in {source}; give the --database folder of another run")
    own, fitting, foreign = identity(target), list[tuple[Path, str]](), list[str]()
    for folder in folders:
        found = stored_identity(folder)
        if found is None:
            # Written by a version that left no description: the name says whether it is of this very target.
            known = own if folder.name == folder_name(own) else None
        else:
            known = found if all(found.get(name) == own[name] for name in _SAME) else None
        if known is None:
            foreign.append(in_words(found) if found else folder.name)
        else:
            fitting.append((folder, folder_name(known)))
    if not fitting:
        raise TargetMismatch(
            f"{source} holds records of {'; '.join(foreign)}, but this is {in_words(own)}: what was best there "
            "says nothing here; merge them on such a machine, or tune here"
        )
    reports: list[MergeReport] = []
    for folder, name in fitting:
        destination = database / name
        if destination.resolve() == folder.resolve():
            raise SpecError(f"{folder} cannot be merged into itself; give another database than {database}")
        with report_storage_errors(f"write tuning records to {destination}", safe="records that were there are intact"):
            with tuning_lock(destination), writer_lock(destination):
                reports.append(merge_folder(folder, destination))
    return MergeReport(
        sum(r.workloads for r in reports),
        sum(r.records for r in reports),
        sum(r.trials for r in reports),
        sum(r.duplicates for r in reports),
        tuple(foreign),
    )


def merge_folder(source: Path, destination: Path) -> MergeReport:
    """Append what `destination` lacks of the records folder `source`; its locks are held by the caller.

    Workloads go first: whatever of it a full disk leaves undone, no record points to nothing.
    """
    set_aside_corrupt_lines(destination)
    their_workloads, _, their_records, _ = read_lines(source)
    our_workloads, _, our_records, _ = read_lines(destination)
    places = {_name(line): place for place, line in enumerate(our_workloads)}
    new_workloads = [line for line in their_workloads if _name(line) not in places]
    for line in new_workloads:
        places[_name(line)] = len(places)
    seen = {_place_and_body(line) for line in our_records}
    new_records: list[str] = []
    for line in their_records:
        place, body = _place_and_body(line)
        moved = (places[_name(their_workloads[place])], body)
        if moved not in seen:
            seen.add(moved)
            new_records.append(f"[{moved[0]},{body}")
    known = set(trial_lines(destination))
    new_trials = [line for line in dict.fromkeys(trial_lines(source)) if line not in known]
    for name, lines in ((WORKLOADS, new_workloads), (RECORDS, new_records), (TRIALS, new_trials)):
        if lines:
            append_line(destination / name, "".join(lines).removesuffix("\n"))
    if not (destination / TARGET).exists() and (source / TARGET).exists():
        atomic_write(destination / TARGET, (source / TARGET).read_bytes())
    return MergeReport(len(new_workloads), len(new_records), len(new_trials), len(their_records) - len(new_records))


def _name(workload_line: str) -> str:
    return str(json.loads(workload_line)[0])


def _place_and_body(record_line: str) -> tuple[int, str]:
    """The line number of the workload of a record, and the rest of its line as it stands."""
    place, _, body = record_line.partition(",")
    return int(place.lstrip("[")), body
