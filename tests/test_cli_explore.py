"""``netcut explore`` as users start it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netcut_fx.runtime import load
from tests.command_line import netcut, refused

_NETWORKS = ("--models", "tests/zoo.py:PlainChain,name=plain", "tests/zoo.py:Residual,name=residual")
_DATA = ("--data", "digits?limit=240", "--input-size", "32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (*_NETWORKS, *_DATA),
            "give either deadlines (--deadline-ms, repeatable) or a sweep over all of them (--sweep)",
        ),
        ((*_NETWORKS, *_DATA, "--sweep", "--strategy", "netcut", "best"), "strategy is ranked, netcut, exhaustive"),
        (("--models", "demo", "demo", *_DATA, "--sweep"), "two networks are called 'demo'"),
        (
            (*_NETWORKS, *_DATA, "--deadline-ms", "1", "0"),
            "a deadline must be a positive number of milliseconds, got 0",
        ),
        ((*_NETWORKS, *_DATA, "--sweep", "--jobs", "0"), "--jobs must be at least 1, got 0"),
        ((*_NETWORKS, "--data", "nowhere.npz", "--sweep"), "there is no data 'nowhere.npz'"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("explore", *arguments, "--out", str(tmp_path / "out"))


def test_what_could_not_be_delivered_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    told = refused("explore", *_NETWORKS, *_DATA, "--sweep", "--target", "cuda", "--out", str(tmp_path / "out"))
    assert "bundles are served by CPUs" in told
    assert "or leave the bundles out (--no-bundles)" in told
    assert not (tmp_path / "out").exists()


def test_two_networks_with_the_real_compiler(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    out = tmp_path / "out"
    options = ("--sweep", "--sweep-count", "2", "--trials", "0", "--epochs", "1", "--strategy", "ranked", "netcut")
    done = netcut("explore", *_NETWORKS, *_DATA, *options, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((out / "result.json").read_text())
    assert result["strategies"] == ["ranked", "netcut"]
    last = result["deadlines"][-1]
    assert last["strategies"]["ranked"]["winner"]["measured_ms"] <= last["deadline_ms"]
    assert {n["name"] for n in result["networks"]} == {"plain", "residual"}
    assert (out / "report.html").exists()
    winner = last["best_known"]
    bundle = Path(winner["bundle"])
    assert bundle.parent == out / "bundles"
    assert {d["best_known"]["bundle"] for d in result["deadlines"]} - {None} == {
        str(p) for p in bundle.parent.iterdir() if p.is_dir()
    }
    manifest = load(bundle).manifest
    assert manifest.frontier == winner["winner"]["cut"]
    assert manifest.accuracy["test"]["value"] == winner["winner"]["test_accuracy"]
    assert manifest.measurement["deadline_ms"] <= last["deadline_ms"]
    table = netcut("explore", *_NETWORKS, *_DATA, *options, "--out", str(out))
    assert "2 networks on digits?limit=240" in table.stdout
    assert f"ms on: {bundle}" in table.stdout
    assert f"report {out / 'report.html'}" in table.stdout
