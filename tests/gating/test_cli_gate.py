"""``netcut gate``."""

from __future__ import annotations

import json
from pathlib import Path

from netcut_fx.runtime import load
from tests.command_line import netcut, refused

MODEL = ("tests/zoo.py:Residual", "--input-size", "32")
CUT = ("--at", "layer2.0", "--classes", "10")


def test_without_data_it_prints_the_graph() -> None:
    done = netcut("gate", *MODEL, "--multiple", "2", "--json")
    assert done.returncode == 0, done.stderr
    text = json.loads(done.stdout)["text"]
    assert "gates = Gates{layers=4, groups=16, scales=True}(stem.2)" in text


def test_from_a_network_to_a_bundle_with_a_deadline(tmp_path: Path) -> None:
    options = (
        "--data",
        "digits?limit=120",
        "--epochs",
        "1",
        "--groups",
        "2",
        "--multiple",
        "4",
        "--hidden",
        "4",
        "--images",
        "8",
    )
    done = netcut(
        "gate", *MODEL, *CUT, *options, "--deadline-ms", "1000", "--database", str(tmp_path / "tuning"),
        "--cost", "flops", "--out", str(tmp_path / "out"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 8
    assert found["p99_ms"] is None
    assert 0 < found["mean_ms"] <= found["worst_ms"]
    assert 0 < found["mandatory_ms"] <= found["estimate"]["worst_ms"]
    assert 0 < found["estimate"]["expected_ms"] <= found["estimate"]["worst_ms"]
    assert all(path["ms"] <= path["bound_ms"] for path in found["paths"])
    with load(found["bundle"]) as network:
        assert network.manifest.output_shape == (1, 10)
    page = Path(found["report"]).read_text()
    assert "<svg" in page
    assert page.count('<img src="data:image/png') >= 8
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_refusals(tmp_path: Path) -> None:
    assert refused("gate", *MODEL, "--target-rate", "1.5") == (
        "error: --target-rate is a share above 0 and at most 1, got 1.5"
    )
    assert refused("gate", *MODEL, "--cost", "joule") == "error: --cost is ms or flops, got 'joule'"
    assert refused("gate", "tests/zoo.py:Functional", "--input-size", "32") == (
        "error: nothing to skip in tests/zoo.py:Functional: no residual region or channel group lies on the path from "
        "input to output (channels of conv1 are read by getattr); gate a network with residual blocks or with plain "
        "convolutions in a row"
    )
