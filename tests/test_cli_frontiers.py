"""``netcut frontiers``: table, JSON, picture and text; options that choose; one line for what cannot be done."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch

from cost_models import Estimator, FirstKnown
from netcut_fx.cli.networks import example_inputs
from netcut_fx.errors import SpecError
from netcut_fx.frontier import frontiers
from netcut_fx.frontier_facts import facts_of, latencies_of
from netcut_fx.job_options import RunOptions
from netcut_fx.latency import LatencyModel
from netcut_fx.passes.head import HeadPass
from netcut_fx.stored_profiles import find_profile
from netcut_fx.tracing import trace
from tests.command_line import netcut, refused, run_refused
from tests.small_run import MODEL, SIZE, finish, residual

LISTED = ("frontiers", MODEL, "--input-size", SIZE)

TWO_INPUTS = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.mix = torch.nn.Embedding(9, 8), torch.nn.Linear(8, 8)
        self.out = torch.nn.Linear(8, 4)
    def forward(self, image, ids):
        return self.out(torch.relu(self.mix(self.table(ids)).mean(1) + image.mean((2, 3))))
"""


def listed(*arguments: str) -> list[dict[str, Any]]:
    done = netcut(*LISTED, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["frontiers"]


def test_json_says_everything_about_every_frontier() -> None:
    done = netcut(*LISTED, "--json", "--max-width", "2")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    rows = answer["frontiers"]
    assert answer["schema_version"] == 1
    assert (answer["traced_by"], answer["calibration"]) == ("fx", None)
    assert len(rows) >= 2
    assert [r["kept_flops"] for r in rows] == sorted(r["kept_flops"] for r in rows)
    for row in rows:
        assert row["kept_params"] + row["removed_params"] == answer["params"]
        assert row["kept_params_share"] == pytest.approx(row["kept_params"] / answer["params"])
        assert row["kept_flops_share"] == pytest.approx(row["kept_flops"] / answer["flops"])
        assert len(row["tensors"]) == len(row["shape"]) == row["width"]
        assert {t["pool"] for t in row["tensors"]} == {"channels-first"}
        assert (row["predicted_ms"], row["low_ms"], row["high_ms"], row["missing"]) == (None, None, None, [])
        assert not row["kept_flops_is_lower_bound"]
    first = rows[0]
    assert (first["name"], first["module"], first["module_class"]) == ("layer1.0", "layer1.0", "ResidualBlock")


def test_no_name_is_cut_in_a_narrow_terminal_or_a_pipe() -> None:
    names = [row["name"] for row in listed("--granularity", "node", "--max-width", "2")]
    assert max(map(len, names)) > 30
    arguments = (*LISTED, "--granularity", "node", "--max-width", "2")
    for shown in (netcut(*arguments, columns=40).stdout, netcut(*arguments).stdout):
        assert all(name in shown for name in names)
        assert "ms: unknown, no kernels of this network were measured" in shown
    assert "┃" in netcut(*LISTED, columns=200).stdout


def test_picture_and_text_are_written_beside_the_table(tmp_path: Path) -> None:
    svg, text = tmp_path / "new" / "net.svg", tmp_path / "net.txt"
    done = netcut(*LISTED, "--svg", str(svg), "--text", str(text))
    assert done.returncode == 0, done.stderr
    assert "layer2.0" in done.stdout
    assert ET.parse(svg).getroot().tag.endswith("svg")
    assert netcut(*LISTED, "--text", "-").stdout == text.read_text()
    assert "--- frontier layer1.0 width=1 float32[1, 8, 16, 16] kept +" in text.read_text()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["net.svg", "net.txt"]


def test_ignored_places_are_left_out() -> None:
    assert [r["name"] for r in listed("--ignore-name", "layer1.1", "--ignore-module", "layer2*")] == ["layer1.0"]
    kinds = [r["name"] for r in listed("--granularity", "node", "--ignore-op", "ReLU", "--ignore-op", "Conv2d")]
    assert kinds
    assert not any("relu" in name or "conv" in name for name in kinds)
    every = ("--ignore-module", "layer*")
    assert refused(*LISTED, *every).endswith("all 4 of them are ignored; ignore less")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ignore-name", "layer1.9"), "ignored name 'layer1.9' is no node or frontier of"),
        (("--ignore-module", "layr1"), "ignored modules 'layr1' match no module of"),
        (("--ignore-op", "Relu"), "did you mean 'ReLU'?"),
        (("--leaf-module", "NoSuch"), "no module has the path or class 'NoSuch'"),
        (("--via", "onnx"), "--via is auto, fx or export, got 'onnx'"),
        (("--granularity", "layer"), "unknown granularity 'layer'"),
        (("--max-width", "-1"), "max_width is -1"),
        (("--text", "-", "--json"), "would both go to standard output; give --text a file"),
        (("--svg", "-"), "--svg needs a file"),
        (("--svg", "tests"), "--svg tests is a folder; give the name of a file in it"),
        (("--svg", "same", "--text", "same"), "would both be written to same"),
        (("--svg", "/proc/no.svg"), "cannot write /proc/no.svg: "),
        (("--calibration", "nowhere.json"), "there is no calibration nowhere.json"),
        (("--input", "1x3x32x32"), "--input-size is for one image; give either that or --input"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: tuple[str, ...], message: str) -> None:
    assert message in refused(*LISTED, *words)


def test_networks_with_several_inputs(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(TWO_INPUTS)
    spec = f"{tmp_path}/net.py:Net"
    by_place = ("--input", "1x8x4x4", "--input", "1x5:int64")
    by_name = ("--input", "ids=1x5:int64", "--input", "image=1x8x4x4:float32")
    answers = [netcut("frontiers", spec, *words, "--granularity", "node", "--json") for words in (by_place, by_name)]
    assert [a.returncode for a in answers] == [0, 0], answers[1].stderr
    rows, named = (json.loads(a.stdout)["frontiers"] for a in answers)
    assert [r["name"] for r in rows] == [r["name"] for r in named]
    assert "relu" in {r["name"] for r in rows}
    done = netcut("cut", spec, *by_place, "--at", "relu", "--classes", "3", "--pool", "mean")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"network {spec}@relu(image: float32[1, 8, 4, 4], ids: int64[1, 5]) -> float32[1, 3]")
    done = netcut("opt", spec, *by_name, "--passes", "dead-code")
    assert done.returncode == 0, done.stderr


def test_inputs_are_read() -> None:
    (image,) = example_inputs(["2x3x4"])
    assert isinstance(image, torch.Tensor)
    assert (image.shape, image.dtype) == ((2, 3, 4), torch.float32)
    named = example_inputs(["ids=1x5:int64", "mask=1x5:bool"])
    assert isinstance(named, dict)
    assert {name: t.dtype for name, t in named.items()} == {"ids": torch.int64, "mask": torch.bool}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["1x-3x4"], "with sizes above 0, as in 1x3x224x224, got '1x-3x4'"),
        (["1x0"], "with sizes above 0, as in 1x3x224x224, got '1x0'"),
        (["image"], "as in 1x3x224x224, got 'image'"),
        (["1x3:float31"], "there is no type 'float31'; use one of float32, float64"),
        (["99999x99999x99999"], "give the shape of one example"),
        (["a=1x2", "1x2"], "give each --input a name of its own"),
        (["a=1x2", "a=1x2"], "give each --input a name of its own"),
    ],
)
def test_inputs_that_cannot_be_read(texts: list[str], message: str) -> None:
    with pytest.raises(SpecError) as refusal:
        example_inputs(texts)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("layers", "seen", "run"),
    [
        # The flattened image itself could be kept: a cut, but none where a block ends.
        (
            "Flatten(), n.Linear(3072, 4)",
            "has no block frontier of width up to 1; use --granularity node (granularity='node')",
            "has no block frontier of width up to 1; use --granularity node (granularity='node')",
        ),
        (
            "Conv2d(3, 4, 32), n.Flatten()",
            "has no block frontier of width up to 1; the network has no point where a trunk could end",
            "has no frontier where one tensor crosses; look at wider ones with max_width, or restructure its forward "
            "so that one tensor carries the features",
        ),
    ],
)
def test_model_without_a_valid_frontier(tmp_path: Path, layers: str, seen: str, run: str) -> None:
    (tmp_path / "net.py").write_text(f"import torch.nn as n\ndef net():\n    return n.Sequential(n.{layers})\n")
    spec = f"{tmp_path}/net.py:net"
    svg = tmp_path / "none.svg"
    assert refused("frontiers", spec, "--input-size", SIZE, "--svg", str(svg)) == f"error: {spec} {seen}"
    assert not svg.exists()
    assert run_refused(tmp_path, model=spec) == f"error: {spec} {run}"


def test_options_of_a_run_are_checked() -> None:
    with pytest.raises(SpecError, match="pool is auto, mean, class-token, got 'max'"):
        RunOptions(deadline_ms=1.0, pool="max")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SpecError, match="via is auto, fx, export, got 'onnx'"):
        RunOptions(deadline_ms=1.0, via="onnx")  # pyright: ignore[reportArgumentType]


def test_the_profile_of_a_run_is_found_and_prices_its_frontiers(tmp_path: Path) -> None:
    """Only for the same network with the same weights, and only on the same target."""
    done = finish(tmp_path)
    traced = trace(residual(), torch.zeros(1, 3, 32, 32), name="residual")
    own = done.backend.target.fingerprint()
    stored = find_profile(tmp_path, traced, lambda: own)
    assert stored is not None
    assert stored[0] == done.calibration
    assert stored[1].parent == tmp_path / "stages"
    found = frontiers(traced)
    head = HeadPass(done.dataset.class_count)
    facts = facts_of(traced, found, latencies_of(traced, found, head, LatencyModel.of_calibration(stored[0])))
    assert {f.frontier.name: f.latency for f in facts if f.frontier.name in done.estimates} == {
        name: e for name, e in done.estimates.items() if name in {f.name for f in found}
    }
    assert find_profile(tmp_path, traced, lambda: "another") is None
    with torch.no_grad():
        next(traced.graph_module.parameters()).add_(1)
    assert find_profile(tmp_path, traced, lambda: own) is None
    assert find_profile(tmp_path / "nowhere", traced, lambda: own) is None


def test_a_cut_that_no_head_fits_has_an_unknown_latency() -> None:
    traced = trace(residual(), torch.zeros(1, 3, 32, 32), name="residual")
    found = frontiers(traced)
    estimates = latencies_of(
        traced, found, HeadPass(3, pool="class-token"), LatencyModel(Estimator("nothing", FirstKnown(())))
    )
    assert set(estimates) == {f.name for f in found}
    for estimate in estimates.values():
        assert not estimate.is_known
        assert "class token" in estimate.missing[0] or "class-token" in estimate.missing[0]
