"""Commands that compile: estimates, bundles, and what the runtime refuses."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netcut_fx.bundle import LIBRARY_FILE, PARAMS_FILE, RUNTIME_FILE, read_bundle, write_bundle
from netcut_fx.manifest import MANIFEST_FILE
from tests.command_line import netcut, refused, run_refused
from tests.small_run import MODEL, SIZE


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A calibration that `estimate` wrote, and its estimates."""
    pytest.importorskip("tvm")
    folder = tmp_path_factory.mktemp("estimate")
    file = folder / "calibration.json"
    done = netcut(*estimate_words(file), "--trials", "1", "--database", str(folder / "tuning"), "--json")
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("tuning/*/database_tuning_record.json"))) == 1
    return file, json.loads(done.stdout)["estimates"]


def estimate_words(calibration: Path) -> list[str]:
    return ["estimate", MODEL, "--input-size", SIZE, "--classes", "7", "--calibration", str(calibration)]


def test_estimate_lists_every_cut_with_its_interval(calibrated: tuple[Path, list[dict[str, Any]]]) -> None:
    _, rows = calibrated
    listed = json.loads(netcut("frontiers", MODEL, "--input-size", SIZE, "--json").stdout)["frontiers"]
    names = [row["name"] for row in rows]
    assert names[:3] == [row["name"] for row in listed][:3]
    assert len(set(names)) == len(names)
    for row in rows:
        assert 0 < row["low_ms"] <= row["predicted_ms"] <= row["high_ms"]
        assert row["missing"] == []
        assert sum(row["provenance"].values()) == pytest.approx(row["predicted_ms"])
    assert rows[0]["predicted_ms"] < rows[-1]["predicted_ms"]


def test_estimate_reads_the_calibration_that_it_wrote(calibrated: tuple[Path, list[dict[str, Any]]]) -> None:
    file, rows = calibrated
    before = file.read_bytes()
    done = netcut(*estimate_words(file), "--json")
    assert done.returncode == 0, done.stderr
    assert "profile" not in done.stderr
    assert json.loads(done.stdout)["estimates"] == rows
    assert file.read_bytes() == before


def test_frontiers_are_priced_with_a_calibration(calibrated: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """The same figures as `estimate` gives for the same head, in JSON, table and picture."""
    file, rows = calibrated
    words = ["frontiers", *estimate_words(file)[1:], "--svg", str(tmp_path / "net.svg")]
    done = netcut(*words, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["calibration"] == str(file)
    keys = ("predicted_ms", "low_ms", "high_ms", "provenance", "missing")
    priced = {row["name"]: {key: row[key] for key in keys} for row in answer["frontiers"]}
    wanted = {row["name"]: {key: row[key] for key in keys} for row in rows}
    assert {name: wanted[name] for name in priced if name in wanted} == {n: p for n, p in priced.items() if n in wanted}
    assert len(priced) >= 3
    shown = netcut(*words).stdout
    assert "ms with a new head" in shown
    assert all(f"{row['predicted_ms']:.3f} [" in shown for row in priced.values())
    assert "ms with a new head" in (tmp_path / "net.svg").read_text()


def test_frontiers_refuses_a_calibration_of_another_target(
    calibrated: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    other, svg = tmp_path / "other.json", tmp_path / "net.svg"
    other.write_text(json.dumps({**json.loads(calibrated[0].read_text()), "fingerprint": "0" * 64}))
    line = refused("frontiers", MODEL, "--input-size", SIZE, "--calibration", str(other), "--svg", str(svg))
    assert line.startswith(f"error: {other}: made for another target or toolchain (000000000000, this is ")
    assert not svg.exists()


def test_estimate_explains_what_it_rests_on(calibrated: tuple[Path, list[dict[str, Any]]]) -> None:
    file, rows = calibrated
    done = netcut(*estimate_words(file), "--explain")
    assert done.returncode == 0, done.stderr
    assert "rests on" in done.stdout
    for row in rows:
        assert row["name"] in done.stdout
        assert f"{row['predicted_ms']:.3f}" in done.stdout
    assert "measured" in done.stdout
    assert "rests on" not in netcut(*estimate_words(file)).stdout


def test_estimate_refuses_a_calibration_that_is_not_its_own(
    calibrated: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    stored = json.loads(calibrated[0].read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**stored, "fingerprint": "0" * 64}))
    line = refused(*estimate_words(other))
    assert line.startswith(f"error: {other}: made for another target or toolchain (000000000000, this is ")
    assert line.endswith("); calibrate again on this machine")
    other.write_bytes(calibrated[0].read_bytes()[:100])
    assert refused(*estimate_words(other)).startswith(f"error: {other}: not a calibration (")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `compile` makes of the first cut of the residual network with a head for 7 classes."""
    pytest.importorskip("tvm")
    folder = tmp_path_factory.mktemp("compile")
    words = ["compile", MODEL, "--input-size", SIZE, "--at", "layer1.0", "--classes", "7", "--trials", "1"]
    done = netcut(*words, "--database", str(folder / "tuning"), "--out", str(folder / "bundle"), "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["bundle"] == str(folder / "bundle")
    assert answer["untuned_kernels"] == []
    assert answer["measured"]["ms"] > 0
    return folder / "bundle"


def test_compile_writes_a_bundle_that_says_what_it_is(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert (manifest.frontier, manifest.input_shape, manifest.output_shape) == ("layer1.0", (1, 3, 32, 32), (1, 7))
    assert len(manifest.labels) == 7


def test_bench_times_the_bundle(bundle: Path) -> None:
    done = netcut("bench", str(bundle), "--repeat", "7", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["measured"]["rounds"] == 7
    assert 0 < answer["measured"]["low_ms"] <= answer["measured"]["ms"] <= answer["measured"]["high_ms"]
    assert answer["measured_when_built_ms"] == read_bundle(bundle).manifest.measurement["ms"]
    assert answer["deadline_ms"] is None
    assert answer["meets_deadline"] is None
    text = netcut("bench", str(bundle)).stdout
    assert "(21 rounds of" in text
    assert "when it was built:" in text


def test_bench_of_a_bundle_with_a_flipped_byte(bundle: Path, tmp_path: Path) -> None:
    for name in (LIBRARY_FILE, RUNTIME_FILE, PARAMS_FILE):
        copy = tmp_path / name / "bundle"
        shutil.copytree(bundle, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        line = refused("bench", str(copy))
        assert line.startswith(f"error: {name} in the bundle {copy} was changed after it was written: SHA-256 ")
        assert line.endswith("; copy the bundle again")
    shutil.copytree(bundle, tmp_path / "m")
    text = (tmp_path / "m" / MANIFEST_FILE).read_text()
    (tmp_path / "m" / MANIFEST_FILE).write_text(text.replace('"layer1.0"', '"layer1.1"'))
    assert "it was changed after the bundle was written" in refused("bench", str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cpu_model": "A CPU of another kind"}, "A CPU of another kind"),
        ({"features": ("sve2",)}, "sve2"),
        ({"arch": "riscv64"}, "it was compiled for Linux on riscv64, this machine is "),
        ({"kind": "cuda"}, "it was compiled for cuda, this runtime drives CPUs; compile it for llvm"),
    ],
)
def test_bench_of_a_bundle_of_another_target(
    bundle: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    whole = read_bundle(bundle)
    write_bundle(
        tmp_path / "other",
        library=whole.library,
        runtime_library=whole.runtime_library,
        params=whole.params,
        manifest=replace(whole.manifest, target=replace(whole.manifest.target, **changed)),
    )
    line = refused("bench", str(tmp_path / "other"))
    assert line.startswith(f"error: cannot load the bundle {tmp_path}/other: ")
    assert message in line


def test_bench_on_another_cpu_model_works_when_asked_for(bundle: Path, tmp_path: Path) -> None:
    whole = read_bundle(bundle)
    target = replace(whole.manifest.target, cpu_model="A CPU of another kind")
    files = {"library": whole.library, "runtime_library": whole.runtime_library, "params": whole.params}
    write_bundle(tmp_path / "other", manifest=replace(whole.manifest, target=target), **files)
    done = netcut("bench", str(tmp_path / "other"), "--any-cpu", "--repeat", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["measured"]["ms"] > 0


def test_without_a_compiler_to_link_with_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tvm")
    words = ("compile", MODEL, "--input-size", SIZE, "--out", str(tmp_path / "bundle"))
    for name in ("CXX", "CC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    line = "error: a bundle is linked by a C++ compiler, and {}; install g++, or name a compiler in CXX"
    assert refused(*words) == line.format("there is none on PATH")
    monkeypatch.setenv("CXX", "/no/g++")
    assert refused(*words) == line.format("/no/g++, which CXX or CC names, is not there")
    assert list(tmp_path.iterdir()) == []


def test_a_deadline_below_the_smallest_network_says_what_is_reachable(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    line = run_refused(tmp_path, **{"deadline-ms": "0.0001", "trials": "0"})
    found = re.fullmatch(
        r"error: no trimmed network meets 0\.0001 ms: the smallest, cut at layer1\.0, is predicted to take "
        r"(\d+\.\d+) ms; allow at least that, use --granularity kernel for earlier cuts, or start from a "
        r"smaller network",
        line,
    )
    assert found, line
    assert float(found[1]) > 0.0001
