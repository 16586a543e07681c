"""Training for the study: the same crops for all, answers that are kept, exits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.lcnet_networks import CifarResNet
from benchmarks.lcnet_peers import Exits, early_exits
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
