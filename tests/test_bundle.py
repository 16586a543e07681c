from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from netcut_fx.bundle import Bundle, parameter_order, read_bundle, write_bundle
from netcut_fx.errors import BadBundle, NetcutError
from netcut_fx.manifest import Manifest
from netcut_fx.preprocess import Preprocess
from netcut_fx.target import Target
from tests.tiny_bundle import tiny_manifest, weights

TARGET = Target("llvm", "znver4", "x86_64", "some CPU", ("avx2",), 1, (("apache-tvm", "0.27"),))
FILES = ("lib.so", "libtvm_runtime.so", "manifest.json", "params.safetensors", "report.html")


@pytest.fixture
def parts(tmp_path: Path) -> dict:
    """Arguments of write_bundle; nothing here is executed, so the libraries may be any bytes."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "library").write_bytes(b"\x7fELF library")
    (source / "runtime").write_bytes(b"\x7fELF runtime" * 1000)
    (source / "page").write_text("<!doctype html>")
    return {
        "library": source / "library",
        "runtime_library": source / "runtime",
        "params": weights(),
        "manifest": tiny_manifest(TARGET),
        "report": source / "page",
    }


@pytest.fixture
def bundle(tmp_path: Path, parts: dict) -> Path:
    return write_bundle(tmp_path / "bundle", **parts)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def seal(path: Path, change: dict) -> None:
    """Write other fields into a manifest, with the seal that belongs to them."""
    data = {**json.loads(path.read_text()), **change, "manifest_sha256": ""}
    data = {k: v for k, v in data.items() if v is not None}
    text = json.dumps(data, sort_keys=True, indent=2) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(text.replace('  "manifest_sha256": ""', f'  "manifest_sha256": "{digest}"'))


def test_a_bundle_holds_everything_and_names_it(bundle: Path, parts: dict):
    assert names(bundle) == list(FILES)
    found = read_bundle(bundle)
    assert found == Bundle(bundle, found.manifest)
    assert replace(found.manifest, files={}) == parts["manifest"]
    assert sorted(found.manifest.files) == [name for name in FILES if name != "manifest.json"]
    assert found.library.read_bytes() == b"\x7fELF library"
    assert found.report == bundle / "report.html"
    assert found.manifest.threads == 1
    for name, array in load_file(found.params).items():
        np.testing.assert_array_equal(array, weights()[name])


def test_the_same_parts_give_the_same_bytes(tmp_path: Path, bundle: Path, parts: dict):
    again = write_bundle(tmp_path / "again", **parts)
    for name in FILES:
        assert (again / name).read_bytes() == (bundle / name).read_bytes()


def test_the_manifest_reads_as_json(bundle: Path):
    data = json.loads((bundle / "manifest.json").read_text())
    assert data["schema_version"] == 1
    assert data["target"] == TARGET.to_json()
    assert data["target_fingerprint"] == TARGET.fingerprint()
    assert data["threads"] == 1
    assert data["labels"] == ["ant", "bee", "cat", "dog", "elk"]
    assert data["estimate"] == {"ms": 0.1, "low_ms": None, "high_ms": None}
    assert data["files"]["lib.so"] == hashlib.sha256(b"\x7fELF library").hexdigest()


def test_labels_of_any_alphabet_come_back(tmp_path: Path, parts: dict):
    labels = ("Käfer", "猫", "\udcff.jpg", 'a"b\\', "x\n")
    parts["manifest"] = replace(parts["manifest"], labels=labels)
    assert read_bundle(write_bundle(tmp_path / "b", **parts)).manifest.labels == labels


def test_params_may_be_a_file_and_the_report_may_be_missing(tmp_path: Path, parts: dict):
    path = tmp_path / "w.safetensors"
    save_file(weights(), path)
    found = read_bundle(write_bundle(tmp_path / "b", **{**parts, "params": path, "report": None}))
    assert found.params.read_bytes() == path.read_bytes()
    assert found.report is None


def test_views_are_stored_as_they_read(tmp_path: Path, parts: dict):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    parts["params"] = {"p0": array.T, "p1": np.broadcast_to(array[:1], (5, 4)), "p2": array[:, ::2]}
    stored = load_file(read_bundle(write_bundle(tmp_path / "b", **parts)).params)
    for name, expected in parts["params"].items():
        np.testing.assert_array_equal(stored[name], expected)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.3, 0.5, 0.99])
def test_a_flipped_byte_is_found_and_its_file_named(bundle: Path, name: str, where: float):
    path = bundle / name
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadBundle, match=name.replace(".", r"\.")) as error:
        read_bundle(bundle)
    assert "\n" not in str(error.value)


def test_no_byte_of_the_manifest_can_change_unseen(bundle: Path):
    whole = (bundle / "manifest.json").read_bytes()
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1
        with pytest.raises(BadBundle, match=r"^manifest\.json"):
            Manifest.from_bytes(bytes(data))
    for other in (whole + b"\n", whole[:-1], whole.replace(b"  ", b"\t"), whole[: len(whole) // 2], b"", b"[]"):
        with pytest.raises(BadBundle, match=r"^manifest\.json"):
            Manifest.from_bytes(other)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle: Path, name: str):
    (bundle / name).unlink()
    with pytest.raises(BadBundle) as error:
        read_bundle(bundle)
    assert str(error.value) in (
        f"{name} is missing in the bundle {bundle}; copy the bundle again",
        f"there is no bundle in {bundle}: manifest.json is missing; give a bundle's folder",
    )


def test_files_that_the_manifest_does_not_name_are_ignored(bundle: Path):
    (bundle / "notes.txt").write_text("mine")
    (bundle / "sub").mkdir()
    assert "notes.txt" not in read_bundle(bundle).manifest.files


def test_a_changed_file_and_its_message(bundle: Path):
    (bundle / "lib.so").write_bytes(b"\x7fELF librarz")
    found = hashlib.sha256(b"\x7fELF librarz").hexdigest()[:12]
    expected = hashlib.sha256(b"\x7fELF library").hexdigest()[:12]
    with pytest.raises(BadBundle) as error:
        read_bundle(bundle)
    assert str(error.value) == (
        f"lib.so in the bundle {bundle} was changed after it was written: SHA-256 {found}..., expected {expected}...; "
        "copy the bundle again"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2, this netcut-fx reads 1; install a newer one"),
        ({"schema_version": 0}, "there is no schema_version 0; write the bundle again"),
        ({"labels": None}, "field 'labels' is missing"),
        ({"labels": ["a", 1]}, "field 'labels' holds 1, expected str"),
        ({"labels": ["a"]}, "1 labels for 5 classes in manifest.json; give one per class"),
        ({"name": 3}, "field 'name' is 3, expected str"),
        ({"threads": 2}, "threads is 2, but the target has 1"),
        ({"target_fingerprint": "0"}, "target_fingerprint does not fit the target"),
        ({"target": {"kind": "llvm"}}, "the target lacks the field 'mcpu'"),
        ({"preprocess": {}}, "preprocess lacks the field 'size'; expected size, mean, std and bgr"),
        (
            {"input_shape": [3, 8, 8]},
            "input_shape (3, 8, 8) is not (batch, channels, height, width) in manifest.json",
        ),
        ({"output_shape": [5]}, "output_shape (5,) is not (1, classes) in manifest.json"),
        ({"input_shape": [2, 3, 8, 8]}, "output_shape (1, 5) is not (2, classes) in manifest.json"),
        (
            {"input_shape": [1, 3, 9, 9]},
            "preprocess makes images of (8, 8), the network reads (9, 9): make both equal in manifest.json",
        ),
        ({"files": {"lib.so": "12"}}, "the hash of file 'lib.so' is '12', expected 64 hexadecimal digits"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "'../../etc/passwd' is no plain file name"),
        ({"mesurement": {}}, "there is no field 'mesurement'; did you mean 'measurement'?"),
    ],
)
def test_manifests_with_wrong_fields(bundle: Path, change: dict, message: str):
    path = bundle / "manifest.json"
    seal(path, change)
    with pytest.raises(BadBundle) as error:
        read_bundle(bundle)
    assert str(error.value) == f"{path}: {message}"


def test_a_manifest_without_a_library(bundle: Path):
    path = bundle / "manifest.json"
    seal(path, {"files": {}})
    with pytest.raises(BadBundle, match=r"lists no file 'lib\.so', without which a bundle cannot run"):
        read_bundle(bundle)


def test_a_manifest_that_json_cannot_hold(tmp_path: Path, parts: dict):
    for value in (float("nan"), np.float32(1)):
        parts["manifest"] = replace(parts["manifest"], measurement={"ms": value})
        with pytest.raises(
            BadBundle, match=r"the manifest cannot be written as JSON .*; write unknown numbers as None"
        ):
            write_bundle(tmp_path / "b", **parts)
    assert names(tmp_path) == ["source"]


def test_a_manifest_that_contradicts_itself(parts: dict):
    with pytest.raises(BadBundle, match=r"preprocess makes images of \(9, 8\), the network reads \(8, 8\)"):
        replace(parts["manifest"], preprocess=Preprocess.named((9, 8)))


@pytest.mark.parametrize("part", ["library", "runtime_library", "report", "params"])
def test_a_part_that_is_not_there(tmp_path: Path, parts: dict, part: str):
    parts[part] = tmp_path / "nowhere"
    with pytest.raises(BadBundle) as error:
        write_bundle(tmp_path / "b", **parts)
    assert str(error.value) == (
        f"cannot write the bundle {tmp_path / 'b'}: there is no file {tmp_path / 'nowhere'}; compile the network first"
    )


def test_params_that_are_no_safetensors(tmp_path: Path, parts: dict):
    parts["params"] = parts["library"]
    with pytest.raises(BadBundle, match=r"library is no safetensors file \(SafetensorError: "):
        write_bundle(tmp_path / "b", **parts)


def test_parameters_are_ordered_by_number():
    assert parameter_order(["p10", "p9", "p8", *(f"p{i}" for i in range(8))]) == [f"p{i}" for i in range(11)]
    assert parameter_order(["p999", "p1000", *(f"p{i:03d}" for i in range(999))])[-2:] == ["p999", "p1000"]
    assert parameter_order([]) == []
    for wrong in (["weight"], ["p"], ["p1x"], ["p0", "p00"], ["p²"]):
        with pytest.raises(BadBundle, match=r"is no parameter name; expected p000, p001, \.\.\. each number once"):
            parameter_order(wrong)
    with pytest.raises(BadBundle, match="parameter 1 of 2 is missing"):
        parameter_order(["p0", "p2"])


def test_a_bundle_is_replaced_in_one_step(tmp_path: Path, bundle: Path, parts: dict):
    parts["manifest"] = replace(parts["manifest"], name="second")
    (bundle / "notes.txt").write_text("of the first")
    write_bundle(bundle, **parts)
    assert read_bundle(bundle).manifest.name == "second"
    assert names(bundle) == list(FILES)
    assert names(tmp_path) == ["bundle", "source"]


def test_an_empty_folder_is_taken_and_any_other_refused(tmp_path: Path, parts: dict):
    (tmp_path / "empty").mkdir()
    assert read_bundle(write_bundle(tmp_path / "empty", **parts)).manifest.name == "tiny"
    assert read_bundle(write_bundle(tmp_path / "new" / "deep", **parts)).manifest.name == "tiny"
    with pytest.raises(NetcutError, match="source: that folder holds other files; choose a new or empty folder"):
        write_bundle(tmp_path / "source", **parts)
    with pytest.raises(NetcutError, match="library: that is no folder; choose another name"):
        write_bundle(parts["library"], **parts)
    assert len(names(tmp_path / "source")) == 3


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_no_half_bundle(tmp_path: Path, parts: dict, there: bool):
    folder = tmp_path / "bundle"
    if there:
        write_bundle(folder, **parts)
    parts["params"] = {"p000": np.zeros(100_000, np.float32)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(NetcutError) as error:
            write_bundle(folder, **parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(error.value) == (
        f"cannot write the bundle {folder}: no space left on the device; nothing half-written is left there. Free "
        "space and run it again"
    )
    assert names(tmp_path) == (["bundle", "source"] if there else ["source"])
    if there:
        assert read_bundle(folder).manifest.name == "tiny"


def test_a_really_full_file_system(tmp_path: Path, parts: dict):
    """The same on a file system of 64 kB, where this machine lets a test mount one."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here")
    code = (
        "import sys; from pathlib import Path; import numpy as np; from netcut_fx.bundle import write_bundle;"
        "from tests.tiny_bundle import tiny_manifest\n"
        "try: write_bundle(sys.argv[1] + '/b', library=Path(sys.argv[2]), runtime_library=Path(sys.argv[2]),"
        " params={'p0': np.zeros(100_000)}, manifest=tiny_manifest())\n"
        "except Exception as e: print(e, list(Path(sys.argv[1]).iterdir()))"
    )
    mount = 'mount -t tmpfs -o size=64k none "$1" || exit 77; exec "$2" -c "$3" "$1" "$4"'
    target = tmp_path / "mnt"
    target.mkdir()
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", str(target), sys.executable, code, str(parts["library"])],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    if run.returncode in (1, 77) and "ermi" in run.stderr:
        pytest.skip(f"no mounting here: {run.stderr.strip()}")
    assert run.stdout.strip() == (
        f"cannot write the bundle {target}/b: no space left on the device; nothing half-written is left there. Free "
        "space and run it again []"
    )


def test_a_folder_that_cannot_be_written(tmp_path: Path, parts: dict):
    (tmp_path / "file").write_text("")
    with pytest.raises(NetcutError) as error:
        write_bundle(tmp_path / "file" / "bundle", **parts)
    assert str(error.value) == (
        f"cannot write the bundle {tmp_path / 'file' / 'bundle'}: File exists; nothing half-written is left there. "
        "Choose a folder that can be written and run it again"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(bundle: Path):
    (bundle / "lib.so").chmod(stat.S_IWUSR)
    with pytest.raises(BadBundle, match=r"cannot read .*lib\.so: Permission denied; copy the bundle again"):
        read_bundle(bundle)


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty folder"])
def test_no_bundle_there(tmp_path: Path, what: str):
    folder = tmp_path / "b"
    if what == "a file":
        folder.write_text("")
    elif what == "an empty folder":
        folder.mkdir()
    with pytest.raises(BadBundle) as error:
        read_bundle(folder)
    assert str(error.value) in (
        f"there is no bundle in {folder}: manifest.json is missing; give a bundle's folder",
        f"cannot read {folder / 'manifest.json'}: Not a directory; give the folder of a bundle you may read",
    )
