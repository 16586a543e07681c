"""The text form with frontiers marked: golden, stable, and local in what a change of the network changes."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from netcut_fx.frontier import frontiers
from netcut_fx.frontier_text import frontier_text
from netcut_fx.graph import TracedModule
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from tests.zoo import ZOO


def traced_zoo(name: str) -> TracedModule:
    model, inputs = ZOO[name]()
    return trace(model, inputs, name=name)


def marked(traced: TracedModule, max_width: int = 1) -> str:
    return frontier_text(traced, frontiers(traced, granularity="node", max_width=max_width))


def test_golden(golden: Callable[[str, str], None]) -> None:
    traced = traced_zoo("residual")
    golden("frontier_text", frontier_text(traced, frontiers(traced)))
    golden("frontier_text_wide", marked(traced, max_width=2))


@pytest.mark.parametrize("name", ZOO)
def test_without_its_marks_it_is_the_text_form(name: str) -> None:
    traced = traced_zoo(name)
    found = frontiers(traced, granularity="node", max_width=2)
    lines = frontier_text(traced, found).splitlines()
    assert "\n".join(line for line in lines if not line.startswith("---")) + "\n" == to_text(traced)
    names = [line.split(" ")[2] for line in lines if line.startswith("--- frontier ")]
    assert sorted(names) == sorted(f.name for f in found)
    assert marked(traced_zoo(name), max_width=2) == "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ZOO)
def test_a_mark_stands_behind_the_last_node_that_crosses(name: str) -> None:
    traced = traced_zoo(name)
    place = {str(node.meta["qualname"]): i for i, node in enumerate(traced.nodes)}
    by_name = {f.name: f for f in frontiers(traced, granularity="node", max_width=2)}
    before = ""
    for line in marked(traced, max_width=2).splitlines():
        if line.startswith("--- frontier "):
            crossing = [str(traced.by_name[n].meta["qualname"]) for n in by_name[line.split(" ")[2]].nodes]
            assert max(crossing, key=place.__getitem__) == before
            assert by_name[line.split(" ")[2]].width == 1 or all(f"{n}: float32" in line for n in crossing)
        else:
            before = line.strip().partition(" = ")[0]


def test_changing_one_layer_changes_only_lines_about_it() -> None:
    """A wider hidden layer in the middle: the marks far from it stay, those of its own part change."""

    def network(hidden: int) -> TracedModule:
        widths = (8, 8, hidden, 8, 8, 8)
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        return trace(nn.Sequential(*layers), torch.zeros(1, 8), name="net")

    before, after = (marked(network(n)).splitlines() for n in (8, 9))
    added = [d for d in difflib.ndiff(before, after) if d.startswith("+ ")]
    about = [d for d in added if "weights:" not in d and "1.weight" not in d and "1.bias" not in d]
    assert [d.split("(")[0][2:].strip() for d in about] == [
        "1 = Linear{in_features=8, out_features=9, bias=True}",
        "--- frontier 1 width=1 float32[1, 9] kept +81 params",
        "2 = Linear{in_features=9, out_features=8, bias=True}",
        "--- frontier 2 width=1 float32[1, 8] kept +80 params",
        "2.weight: float32[8, 9]",
    ]
