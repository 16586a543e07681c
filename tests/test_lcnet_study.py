"""The parts of LC-Net's study: exits, answers that are kept, what rows come to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.lcnet_networks import CifarResNet
from benchmarks.lcnet_peers import Exits, early_exits
from benchmarks.lcnet_plot import plot
from benchmarks.lcnet_summary import summary
from benchmarks.lcnet_training import Images, Recipe, Teacher, train
from netcut_fx.backends.eager import EagerBackend
from netcut_fx.graph import TracedModule
from netcut_fx.tracing import trace
from tests.test_retrain import coloured

PLACES = ("layer1.0", "layer2.0")
RECIPE = Recipe(epochs=1, batch_size=16)


def network() -> TracedModule:
    torch.manual_seed(0)
    return trace(CifarResNet(1, classes=3), torch.zeros(1, 3, 32, 32), name="tiny")


def test_exits_leave_the_network_as_it_is_and_their_ways_answer_as_they_do() -> None:
    static = network()
    exits = Exits(static, PLACES, 3).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        answers = exits(images)
        assert torch.equal(answers[-1], static.graph_module(images))
        ways = exits.ways()
        assert len(ways) == len(answers) == 3
        for way, answer in zip(ways, answers, strict=True):
            assert torch.allclose(way.graph_module(images), answer, atol=1e-5)


def test_an_image_leaves_where_the_answer_is_sure(tmp_path: Path) -> None:
    data = coloured()
    exits = Exits(network(), PLACES, 3)
    before = exits.heads[0][0].weight.clone()
    train(exits, data, RECIPE, tmp_path / "exits.pt")
    assert not torch.equal(exits.heads[0][0].weight, before)
    (all_of_it, whole_ms, whole), (early, ms, spent) = early_exits(exits, data, EagerBackend(), [1.0, 0.1])
    assert whole_ms == 1.0
    assert spent < whole
    assert ms > 0
    assert all_of_it.total == early.total == len(data.splits["test"])


def test_an_epoch_shows_the_same_crops_whoever_learns_and_wherever_its_stage_begins() -> None:
    data = coloured()
    one, other = Images(data, replace(RECIPE, first=2)), Images(data, RECIPE)
    rows = np.arange(8)
    one.turn(1)
    other.turn(3)
    assert torch.equal(one.batch(rows)[0], other.batch(rows)[0])
    assert (one.order == other.order).all()
    other.turn(4)
    assert not torch.equal(one.batch(rows)[0], other.batch(rows)[0])


class Counted(nn.Module):
    """Answers with the mean of each colour, and counts the images."""

    seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return x.mean((2, 3))


def test_a_teacher_answers_an_epoch_once(tmp_path: Path) -> None:
    images, asked = Images(coloured(), RECIPE), Counted()
    teacher = Teacher(asked, tmp_path / "answers")
    images.turn(0)
    first = teacher.answers(images, 0)
    assert torch.allclose(first, images.batch(np.arange(len(images)))[0].mean((2, 3)), atol=1e-6)
    assert torch.equal(teacher.answers(images, 0), first)
    assert asked.seen == len(images)
    images.turn(1)
    assert not torch.equal(teacher.answers(images, 1), first)
    assert asked.seen == 2 * len(images)


def row(method: str, accuracy: float, flops: float, ms: float, **facts: Any) -> dict[str, Any]:
    own = {"network": "a", "method": method, "rate": 0.5, "seed": 0, "epochs": [4, 8], "images": 100, "correct": 90}
    return own | {"accuracy": accuracy, "mean_flops": flops, "mean_ms": ms} | facts


def test_what_rows_come_to() -> None:
    gates = {"static_ms": 2.0, "gate_overhead_pct": 10.0}
    rows = [
        row("static", 0.90, 100.0, 1.9),
        row("lc-net", 0.897, 40.0, 1.0, **gates),
        row("lc-net", 0.88, 20.0, 0.5, **gates | {"rate": 0.3}),  # loses two points
        row("random", 0.87, 30.0, 0.8),
        row("deadline", 0.9, 40.0, 1.0, violations=3, **gates),
        row("lc-net", 0.80, 10.0, 0.2, **gates | {"epochs": [1, 1]}),  # of another training, without its static network
    ]
    found = summary(rows)
    assert found["flops_ratio_at_half_point"] == 2.5
    assert found["measured_speedup_at_half_point"] == 2.0
    assert found["time_saved_over_flops_saved"] == pytest.approx(0.5 / 0.6)
    assert found["budget_violations"] == 3
    # Half way between 0.88 and 0.897.
    assert found["gain_over_points"] == {"a, 4 + 8 epochs": {"random": pytest.approx(1.85)}}
    picture = plot(rows)
    assert picture.count("<polyline") == 2 * 4
    assert "a, 4 + 8 epochs" in picture
