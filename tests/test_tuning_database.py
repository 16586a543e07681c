"""The files of a tuning database: merged, planted, damaged, cut off by a full disk. Without the compiler."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from netcut_fx.backends.tvm.database import describe, merge, stored_identity
from netcut_fx.backends.tvm.records import RECORDS, WORKLOADS, append_line, records_folder
from netcut_fx.backends.tvm.seeds import pack_seeds, plant_seeds
from netcut_fx.backends.tvm.trial_log import Trial, TrialLog, Workload
from netcut_fx.backends.tvm.tune_status import database_status
from netcut_fx.errors import SpecError, TargetMismatch
from netcut_fx.target import Target

TARGET = Target(
    "llvm", "znver4", "x86_64", "EPYC", ("avx2",), 1, (("apache-tvm", "0.27"), ("llvm", "22"))
)  # fmt: skip
OLD_TVM = replace(TARGET, toolchain=(("apache-tvm", "0.26"), ("llvm", "20")))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Every write beyond `size` bytes fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def database(root: Path, times: dict[str, list[float]], target: Target = TARGET) -> Path:
    """A database with records of the workloads and seconds in `times`, in TVM's form."""
    folder = records_folder(root, target)
    folder.mkdir(parents=True)
    describe(folder, target)
    log = TrialLog(folder)
    for place, (name, seconds) in enumerate(times.items()):
        append_line(folder / WORKLOADS, json.dumps([name, f"code of {name}"]))
        for i, value in enumerate(seconds):
            append_line(folder / RECORDS, f'[{place},[[["Split",[{i}]],[]],[{value}],{{"kind":"llvm"}},[]]]')
            log.add(Trial(Workload(name, "dense", {"rows": 7}), f"plan {i}", value))
    return root


def records(root: Path, target: Target = TARGET) -> dict[str, list[float]]:
    folder = records_folder(root, target)
    names = [json.loads(line)[0] for line in (folder / WORKLOADS).read_text().splitlines()]
    found: dict[str, list[float]] = {}
    for line in (folder / RECORDS).read_text().splitlines():
        place, record = json.loads(line)
        found.setdefault(names[place], []).extend(record[1])
    return found


def test_merging_takes_over_what_is_new_and_finds_its_workload_again(tmp_path: Path) -> None:
    ours = database(tmp_path / "ours", {"a": [1.0], "b": [2.0]})
    theirs = database(tmp_path / "theirs", {"c": [5.0], "b": [2.0, 3.0]})
    report = merge(theirs, ours, TARGET)
    assert (report.workloads, report.records, report.duplicates, report.left_out) == (1, 2, 1, ())
    assert records(ours) == {"a": [1.0], "b": [2.0, 3.0], "c": [5.0]}
    assert [t.seconds for t in TrialLog(records_folder(ours, TARGET)).of("b")] == [2.0, 3.0]
    again = merge(theirs, ours, TARGET)
    assert (again.workloads, again.records, again.trials, again.duplicates) == (0, 0, 0, 3)
    assert records(theirs) == {"c": [5.0], "b": [2.0, 3.0]}


def test_merging_into_nothing_brings_other_thread_counts_along(tmp_path: Path) -> None:
    two = replace(TARGET, threads=2)
    theirs = database(database(tmp_path / "theirs", {"a": [1.0]}), {"b": [2.0]}, two)
    merge(theirs, tmp_path / "ours", TARGET)
    assert records(tmp_path / "ours") == {"a": [1.0]}
    assert records(tmp_path / "ours", two) == {"b": [2.0]}
    assert stored_identity(records_folder(tmp_path / "ours", two)) == stored_identity(records_folder(theirs, two))


def test_a_folder_of_a_database_can_be_merged_alone_and_without_its_description(tmp_path: Path) -> None:
    folder = records_folder(database(tmp_path / "theirs", {"a": [1.0]}), TARGET)
    (folder / "target.json").unlink()
    merge(folder, tmp_path / "ours", TARGET)
    assert records(tmp_path / "ours") == {"a": [1.0]}


def test_records_of_another_compiler_or_cpu_are_refused(tmp_path: Path) -> None:
    theirs = database(tmp_path / "theirs", {"a": [1.0]}, OLD_TVM)
    with pytest.raises(TargetMismatch) as caught:
        merge(theirs, tmp_path / "ours", TARGET)
    assert str(caught.value) == (
        f"{theirs} holds records of EPYC (znver4), 1 thread, TVM 0.26, LLVM 20, but this is EPYC (znver4), 1 thread, "
        "TVM 0.27, LLVM 22: what was best there says nothing here; merge them on such a machine, or tune here"
    )
    assert not (tmp_path / "ours").exists()
    database(theirs, {"b": [2.0]})
    report = merge(theirs, tmp_path / "ours", TARGET)
    assert report.left_out == ("EPYC (znver4), 1 thread, TVM 0.26, LLVM 20",)
    with pytest.raises(TargetMismatch, match=r"holds records of EPYC .*, but this is Ryzen "):
        merge(theirs, tmp_path / "ours", replace(TARGET, cpu_model="Ryzen"))


def test_a_source_without_records_or_the_database_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        merge(tmp_path / "none", tmp_path / "ours", TARGET)
    assert str(caught.value) == (
        f"there are no tuning records in {tmp_path}/none; give the --database folder of another run"
    )
    ours = database(tmp_path / "ours", {"a": [1.0]})
    with pytest.raises(SpecError, match="cannot be merged into itself; give another database than"):
        merge(ours, ours, TARGET)


def test_damaged_lines_are_not_merged_and_are_set_aside_here(tmp_path: Path) -> None:
    ours = database(tmp_path / "ours", {"a": [1.0]})
    theirs = database(tmp_path / "theirs", {"b": [2.0]})
    for root in (ours, theirs):
        with (records_folder(root, TARGET) / RECORDS).open("a") as sink:
            sink.write("[0,[[[")
    assert merge(theirs, ours, TARGET).records == 1
    assert records(ours) == {"a": [1.0], "b": [2.0]}
    (status,) = database_status(ours)
    assert status.set_aside == 1


def test_a_new_folder_beside_records_of_another_compiler_says_that_they_are_not_used(tmp_path: Path) -> None:
    database(tmp_path, {"a": [1.0]}, OLD_TVM)
    folder = records_folder(tmp_path, TARGET)
    folder.mkdir()
    assert describe(folder, TARGET) == (
        f"records of EPYC (znver4), 1 thread, TVM 0.26, LLVM 20 in {tmp_path} are not used: "
        "this is EPYC (znver4), 1 thread, TVM 0.27, LLVM 22",
    )


def test_seeds_are_planted_where_they_fit_and_stay_as_they_are(tmp_path: Path) -> None:
    source, seeds = database(tmp_path / "source", {"a": [4.0, 1.0, 5.0], "b": [3.0]}), tmp_path / "seeds"
    packed = pack_seeds(source, TARGET, seeds)
    ours = database(tmp_path / "ours", {"b": [2.0]})
    before = {path: path.read_bytes() for path in packed.iterdir()}
    assert plant_seeds(ours, TARGET, seeds) == 2
    assert records(ours) == {"b": [2.0, 3.0], "a": [1.0]}, "of each workload the best record"
    assert [t.seconds for t in TrialLog(records_folder(ours, TARGET)).of("a")] == [4.0, 1.0, 5.0]
    assert plant_seeds(ours, TARGET, seeds) == 0
    assert plant_seeds(ours, OLD_TVM, seeds) == 0
    assert {path: path.read_bytes() for path in packed.iterdir()} == before
    pack_seeds(source, TARGET, seeds)
    assert {path: path.read_bytes() for path in packed.iterdir()} == before


def test_nothing_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^there are no records of .* in .*; tune there first$"):
        pack_seeds(tmp_path, TARGET, tmp_path / "seeds")


def test_status_tells_what_is_there_without_changing_it(tmp_path: Path) -> None:
    database(tmp_path, {"a": [1e-3, 5e-4], "b": [2e-3]})
    folder = records_folder(tmp_path, TARGET)
    TrialLog(folder).add(Trial(Workload("a"), None, None))
    with (folder / RECORDS).open("a") as sink:
        sink.write("[0,")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    (status,) = database_status(tmp_path)
    assert (status.workloads, status.records, status.failed, status.set_aside) == (2, 3, 1, 1)
    assert status.best_ms == {"a": 0.5, "b": 2.0}
    assert status.target == "EPYC (znver4), 1 thread, TVM 0.27, LLVM 22"
    assert status.bytes == sum(len(content) for content in before.values())
    assert status.last_use is not None
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert database_status(tmp_path / "none") == ()


def test_a_line_that_does_not_fit_the_disk_is_not_written_at_all(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "x" * 50)
    with largest_file(80), pytest.raises(OSError, match=r"File too large|No space left"):
        append_line(path, "y" * 50)
    assert path.read_text() == "x" * 50 + "\n"
    append_line(path, "z")
    assert path.read_text().endswith("x\nz\n")


def test_half_a_trial_is_left_out_and_set_aside_by_the_next_writer(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    log.add(Trial(Workload("a"), "p", 1.0))
    with (tmp_path / "trials.jsonl").open("a") as sink:
        sink.write('{"workload": 3}\n{"workload": {"na')
    assert TrialLog(tmp_path).corrupt == 2
    assert TrialLog(tmp_path, repair=True).of("a") == [Trial(Workload("a"), "p", 1.0)]
    assert TrialLog(tmp_path).corrupt == 0
    assert (tmp_path / "trials.jsonl.corrupt").read_text() == '{"workload": 3}\n{"workload": {"na\n'
