from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from netcut_fx.atomic_files import PARTIAL_PREFIX, atomic_write, put_folder_in_place
from netcut_fx.canonical_json import canonical_json
from netcut_fx.errors import Busy, NetcutError, SpecError
from netcut_fx.workspace import Stage, Workspace

KEY = {"model": "m?x=1", "seed": 0, "tools": {"tvm": "0.27"}, "lr": 0.1}

HOLD = """
import sys, time
from netcut_fx.workspace import Workspace
with Workspace(sys.argv[1]) as workspace:
    workspace.stage("first", {"a": 1}).save({"done": True})
    stage = workspace.stage("second", {"a": 1})
    def endless(folder):
        (folder / "half").write_text("half")
        print("in the middle", flush=True)
        time.sleep(600)
    stage.save_folder(endless)
"""

# Killed when all bytes are written but the file does not have its name yet.
KILLED = """
import os, signal, sys
from pathlib import Path
from netcut_fx.workspace import Workspace
workspace = Workspace(sys.argv[2])
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "checkpoint":
    import torch
    from netcut_fx.checkpoint import Checkpoint, checkpoint_path, save_checkpoint
    path = checkpoint_path(workspace.training, "k" * 64)
    save_checkpoint(path, Checkpoint("k" * 64, {}, {"weight": torch.zeros(3)}))
else:
    from netcut_fx.report import write_report
    write_report({}, workspace.folder / "report.html")
"""


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def workspace(tmp_path: Path, lines: list[str]):
    with Workspace(tmp_path / "w", warn=lines.append) as opened:
        yield opened


def held(folder: Path) -> subprocess.Popen[str]:
    """A process that holds the folder, has finished one stage and is in the middle of the next."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in the middle\n"
    return process


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_values_come_back_under_the_same_key(workspace: Workspace):
    stage = workspace.stage("measure", KEY)
    assert stage.load() is None
    value = {"ms": 1.25, "names": ["a", "ü"], "nested": {"x": [1, None, True]}}
    stage.save(value)
    assert stage.load() == value
    assert workspace.stage("measure", dict(reversed(KEY.items()))).load() == value
    stage.save([])
    assert stage.load() == []


@pytest.mark.parametrize("change", [{"seed": 1}, {"tools": {"tvm": "0.28"}}, {"seed": "0"}, {"more": None}])
def test_any_difference_in_the_key_is_another_result(workspace: Workspace, change: dict):
    workspace.stage("measure", KEY).save(1)
    assert workspace.stage("measure", {**KEY, **change}).load() is None
    assert workspace.stage("other", KEY).load() is None


def test_the_key_is_stored_in_full_and_named_by_its_whole_hash(workspace: Workspace):
    stage = workspace.stage("measure", KEY)
    stage.save(1)
    (path,) = (workspace.folder / "stages").glob("*.json")
    assert json.loads(path.read_text())["key"] == KEY
    assert path.stem.startswith("measure-")
    assert len(path.stem) == len("measure-") + 64


def test_a_result_under_a_name_that_its_key_does_not_have_is_not_believed(workspace: Workspace, lines: list[str]):
    mine, other = workspace.stage("measure", KEY), workspace.stage("measure", {**KEY, "seed": 1})
    other.save("of the other")
    shutil.copy(f"{other.path}.json", f"{mine.path}.json")
    assert mine.load() is None
    assert "it was stored under another key" in lines[0]


def test_the_caller_may_change_its_key_later(workspace: Workspace):
    key = {"list": [1]}
    stage = workspace.stage("measure", key)
    path = stage.path
    key["list"].append(2)
    assert stage.path == path


def test_arrays_come_back_bit_for_bit(workspace: Workspace):
    arrays = {
        "features.3": np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32),
        "labels": np.arange(5),
        "flags": np.array([True, False]),
        "none": np.empty((0, 3), np.float32),
        "scalar": np.array(2.5),
        "half": np.arange(6, dtype=np.float16).reshape(2, 3).T,
        "text": np.array(["a", "bc"]),
    }
    stage = workspace.stage("features", KEY)
    assert stage.load_arrays() is None
    stage.save_arrays(arrays)
    loaded = stage.load_arrays()
    assert loaded is not None
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_any_name_of_an_array_comes_back(workspace: Workspace):
    names = ["file", "self", "args", "allow_pickle", "header", "array1", "array0", "__stage__", "", "a/b", "../c"]
    names += ["x.npy", "with space", "ü\u2028", "a\0b", "\ud800", "n" * 70_000]
    stage = workspace.stage("features", KEY)
    stage.save_arrays({name: np.array([i]) for i, name in enumerate(names)})
    loaded = stage.load_arrays()
    assert loaded is not None
    assert list(loaded) == names
    assert [int(array[0]) for array in loaded.values()] == list(range(len(names)))
    stage.save_arrays({})
    assert stage.load_arrays() == {}


def test_arrays_of_objects_are_refused(workspace: Workspace):
    with pytest.raises(TypeError, match="stage 'features' cannot store array 'x' of type object"):
        workspace.stage("features", KEY).save_arrays({"x": np.array([{}], dtype=object)})
    assert list((workspace.folder / "stages").iterdir()) == []


def test_folders_come_back_whole(workspace: Workspace):
    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.bin").write_bytes(b"\0\1")
        (folder / "b.txt").write_text("b")

    stage = workspace.stage("compile", KEY)
    assert stage.load_folder() is None
    path = stage.save_folder(write)
    assert stage.load_folder() == path
    assert (path / "deep" / "a.bin").read_bytes() == b"\0\1"
    stage.save_folder(lambda folder: (folder / "c").write_text("again"))
    assert sorted(p.name for p in path.iterdir()) == ["c", "stage.json"]
    assert stage.load_folder() == path


def test_a_failure_stores_nothing(workspace: Workspace):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("no")

    stage = workspace.stage("compile", KEY)
    with pytest.raises(RuntimeError, match="no"):
        stage.save_folder(fail)
    with pytest.raises(ValueError, match="stage 'compile' cannot store None"):
        stage.save(None)
    with pytest.raises(ValueError, match="not JSON compliant"):
        stage.save(float("nan"))
    assert stage.load() is stage.load_folder() is None
    assert list((workspace.folder / "stages").iterdir()) == []


def corrupt(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["json", "npz"])
def test_no_flipped_byte_goes_unseen(workspace: Workspace, lines: list[str], kind: str):
    stage = workspace.stage("measure", KEY)
    arrays = {"x": np.arange(6, dtype=np.float32)}
    path = Path(f"{stage.path}.{kind}")
    stage.save({"ms": 12.5})
    stage.save_arrays(arrays)
    whole = path.read_bytes()
    unseen: list[int] = []
    for position in range(len(whole)):
        path.write_bytes(whole)
        corrupt(path, position)
        loaded = stage.load() if kind == "json" else stage.load_arrays()
        if loaded is not None:
            # Padding and time stamps of a zip say nothing: then the result itself must still be the right one.
            same = loaded == {"ms": 12.5} if kind == "json" else np.array_equal(loaded["x"], arrays["x"])
            assert same, position
            unseen.append(position)
    assert len(unseen) + len(lines) == len(whole)
    assert kind == "npz" or len(unseen) <= 1  # the line feed at the end
    assert all("\n" not in line for line in lines)


def test_a_damaged_result_is_set_aside_and_can_be_stored_again(workspace: Workspace, lines: list[str]):
    stage = workspace.stage("measure", KEY)
    for number in (1, 2):
        stage.save({"ms": 1})
        path = Path(f"{stage.path}.json")
        path.write_bytes(path.read_bytes()[:-10])
        assert stage.load() is None
        aside = path.with_name(f"{path.name}.damaged-{number}")
        assert aside.exists()
        assert not path.exists()
        assert lines[-1].startswith(f"stored result {path.name} of 'measure' is damaged (JSONDecodeError: ")
        assert lines[-1].endswith(f"); it is set aside as {aside.name} and computed again")
    stage.save({"ms": 2})
    assert stage.load() == {"ms": 2}


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "unlabelled", "a file"])
def test_a_damaged_folder_is_set_aside(workspace: Workspace, lines: list[str], damage: str):
    stage = workspace.stage("compile", KEY)
    path = stage.save_folder(lambda folder: (folder / "a").write_text("text"))
    if damage == "changed":
        corrupt(path / "a", 0)
    elif damage == "missing":
        (path / "a").unlink()
    elif damage == "added":
        (path / "b").write_text("b")
    elif damage == "unlabelled":
        (path / "stage.json").unlink()
    else:
        shutil.rmtree(path)
        path.write_text("no folder")
    assert stage.load_folder() is None
    assert len(lines) == 1
    assert path.with_name(f"{path.name}.damaged-1").exists()


def test_a_warning_is_logged_by_default(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with Workspace(tmp_path) as workspace:
        stage = workspace.stage("measure", KEY)
        Path(f"{stage.path}.json").write_text("{")
        assert stage.load() is None
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 100])
def test_bad_stage_names(workspace: Workspace, name: str):
    with pytest.raises(SpecError, match="is no name for a stage; use up to 80 letters"):
        workspace.stage(name, KEY)


@pytest.mark.parametrize("value", [float("nan"), Path("x"), np.float32(1), {1, 2}])
def test_keys_hold_json_only(workspace: Workspace, value: object):
    with pytest.raises(SpecError, match="the key of stage 'measure' holds no JSON value: "):
        workspace.stage("measure", {"x": value})


def test_two_runs_in_one_folder(tmp_path: Path):
    process = held(tmp_path)
    try:
        with pytest.raises(Busy) as error:
            Workspace(tmp_path)
        assert str(error.value) == (
            f"the folder {tmp_path} is in use by process {process.pid}; wait for it to end, or choose another folder"
        )
    finally:
        ended(process)


def test_two_workspaces_in_one_process(tmp_path: Path):
    with Workspace(tmp_path), pytest.raises(Busy, match=f"is in use by process {os.getpid()};"):
        Workspace(tmp_path)
    with Workspace(tmp_path) as again:
        assert again.folder == tmp_path


def test_a_workspace_may_be_closed_by_another_thread_and_twice(tmp_path: Path):
    workspace = Workspace(tmp_path)
    closer = threading.Thread(target=workspace.close)
    closer.start()
    closer.join()
    workspace.close()
    Workspace(tmp_path).close()
    assert not (tmp_path / ".holder.json").exists()


def test_a_killed_run_leaves_finished_stages_no_lock_and_no_halves(tmp_path: Path):
    process = held(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    ended(process)
    assert list((tmp_path / "stages").glob(".part-*"))
    with Workspace(tmp_path) as workspace:
        assert workspace.stage("first", {"a": 1}).load() == {"done": True}
        assert workspace.stage("second", {"a": 1}).load_folder() is None
        assert not list((tmp_path / "stages").glob(".part-*"))


@pytest.mark.parametrize("what", ["checkpoint", "report"])
def test_a_run_killed_while_it_writes_leaves_nothing_behind(tmp_path: Path, what: str):
    killed = subprocess.run([sys.executable, "-c", KILLED, what, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / "training" if what == "checkpoint" else tmp_path
    (half,) = folder.glob(".part-*")
    assert half.stat().st_size > 0
    scratch = tmp_path / f"{PARTIAL_PREFIX}scratch"
    (scratch / "deep").mkdir(parents=True)
    kept = [tmp_path / "notes.part", tmp_path / "tmp-of-the-user", folder / "retrain-0.safetensors"]
    for path in kept:
        path.write_text("keep")
    with Workspace(tmp_path):
        assert not half.exists()
        assert not scratch.exists()
        assert [path.read_text() for path in kept] == ["keep"] * 3


def test_a_lock_that_outlives_its_process_says_so(tmp_path: Path):
    with Workspace(tmp_path):
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        (tmp_path / ".holder.json").write_text(json.dumps({"pid": dead.pid}))
        with pytest.raises(Busy, match=f"is held by processes that process {dead.pid} started before it ended"):
            Workspace(tmp_path)
        (tmp_path / ".holder.json").write_text("?")
        with pytest.raises(Busy, match=f"another run is using the folder {tmp_path}; wait"):
            Workspace(tmp_path)


def test_a_file_instead_of_a_folder(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NetcutError) as error:
        Workspace(tmp_path / "file")
    assert str(error.value).startswith(f"cannot use the folder {tmp_path / 'file'}: ")
    assert str(error.value).endswith("Choose a folder that can be written and run it again")


@pytest.fixture
def little_space():
    """No file of this process may grow beyond 100 kB: what a full disk does, at a place the test can choose."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["value", "arrays", "folder"])
def test_a_full_disk_says_what_is_safe(workspace: Workspace, little_space: None, kind: str):
    done = workspace.stage("done", KEY)
    done.save({"ms": 1})
    stage: Stage = workspace.stage("big", KEY)
    save = {
        "value": lambda: stage.save("x" * 200_000),
        "arrays": lambda: stage.save_arrays({"x": np.zeros(200_000)}),
        "folder": lambda: stage.save_folder(lambda folder: (folder / "x").write_bytes(bytes(200_000))),
    }[kind]
    with pytest.raises(NetcutError) as error:
        save()
    assert str(error.value) == (
        f"cannot save the result of 'big' in {workspace.folder / 'stages'}: no space left on the device; the steps "
        "finished before it are stored there and will be reused. Free space and run it again"
    )
    assert done.load() == {"ms": 1}
    assert [p.name for p in (workspace.folder / "stages").iterdir()] == [f"{done.path.name}.json"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, little_space: None):
    atomic_write(tmp_path / "f", b"old")
    with pytest.raises(OSError, match="File too large"):
        atomic_write(tmp_path / "f", bytes(200_000))
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_putting_a_folder_in_place_swaps_it_with_the_old_one(tmp_path: Path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "says").write_text(name)
    put_folder_in_place(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "says").read_text() == "new"
    assert (tmp_path / "new" / "says").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_canonical_json_is_one_text_for_one_value():
    assert (
        canonical_json({"b": (1, 2), "a": "ü"})
        == canonical_json({"a": "ü", "b": [1, 2]})
        == '{"a":"\\u00fc","b":[1,2]}'
    )
    assert canonical_json(1) != canonical_json("1") != canonical_json(1.0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("inf"))
