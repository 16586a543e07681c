"""The picture of a network: valid, complete, bounded, honest about what is not known, safe against hostile names."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cost_models import LatencyEstimate
from netcut_fx.frontier import Granularity, frontiers
from netcut_fx.frontier_facts import facts_of
from netcut_fx.graph import TracedModule
from netcut_fx.pictures.frontier_lanes import Lanes
from netcut_fx.pictures.frontier_picture import frontier_svg
from netcut_fx.pictures.frontier_rows import MAX_ROWS, Flow, Rows, rows_of
from netcut_fx.tracing import trace
from tests.zoo import ZOO

SVG = "{http://www.w3.org/2000/svg}"


@cache
def traced_zoo(name: str) -> TracedModule:
    model, inputs = ZOO[name]()
    return trace(model, inputs, name=name)


def drawn(traced: TracedModule, granularity: Granularity = "block", max_width: int = 1, **latency: Any) -> ET.Element:
    found = frontiers(traced, granularity=granularity, max_width=max_width)
    return ET.fromstring(frontier_svg(traced, facts_of(traced, found, **latency), granularity=granularity))


def arranged(traced: TracedModule, granularity: Granularity, max_width: int = 1) -> Rows:
    found = frontiers(traced, granularity=granularity, max_width=max_width)
    return rows_of(traced, facts_of(traced, found), blocks_only=granularity == "block")


def texts(root: ET.Element) -> list[str]:
    return [node.text or "" for node in root.iter(f"{SVG}text")]


def dots(root: ET.Element) -> list[int]:
    """How many dots each cut has."""
    return [(node.get("d") or "").count("M") for node in root.iter(f"{SVG}path") if node.get("class") == "dots"]


@pytest.mark.parametrize("granularity", ["block", "kernel", "node"])
@pytest.mark.parametrize("name", ZOO)
def test_every_frontier_is_in_the_picture(name: str, granularity: Granularity) -> None:
    traced = traced_zoo(name)
    found = frontiers(traced, granularity=granularity, max_width=2)
    facts = facts_of(traced, found)
    rows = rows_of(traced, facts, blocks_only=granularity == "block")
    assert len(rows.marks) + sum(len(row.inside) for row in rows.rows) == len(found)
    assert all(flow.source < min(flow.targets) for flow in rows.flows)
    root = ET.fromstring(frontier_svg(traced, facts, granularity=granularity))
    assert root.get("role") == "img"
    assert next(root.iter(f"{SVG}title")).text == root.get("aria-label")


@pytest.mark.parametrize("name", ZOO)
def test_boxes_count_every_parameter_and_operation_once(name: str) -> None:
    traced = traced_zoo(name)
    by_block, by_node = (arranged(traced, g).rows for g in ("block", "node"))
    assert sum(r.params for r in by_block) == sum(r.params for r in by_node)
    assert sum(r.flops for r in by_block) == sum(r.flops for r in by_node)
    deepest = max(frontiers(traced, granularity="node", max_width=4), key=lambda f: f.kept_params, default=None)
    assert deepest is None or sum(r.params for r in by_node) > deepest.kept_params


def test_one_box_for_each_block_and_what_lies_between() -> None:
    rows = arranged(traced_zoo("residual"), "block").rows
    assert [row.label for row in rows] == [
        "x",
        "stem",
        "layer1.0",
        "layer1.1",
        "layer2.0",
        "layer2.1",
        "head",
        "output",
    ]
    assert rows[2].note.startswith("ResidualBlock: Conv2d ×2")


def test_a_wide_cut_is_one_line_with_a_dot_on_every_edge() -> None:
    traced = traced_zoo("residual")
    rows = arranged(traced, "node", max_width=2)
    wide = [mark for mark in rows.marks if mark.facts.frontier.width == 2]
    assert wide
    assert all(len(mark.flows) == 2 for mark in wide)
    counts = dots(drawn(traced, "node", max_width=2))
    assert len(counts) == len(rows.marks)
    assert max(counts) >= 2


def test_unknown_milliseconds_are_called_unknown() -> None:
    traced = traced_zoo("residual")
    names = [f.name for f in frontiers(traced)]
    known = LatencyEstimate(1.25, 1.0, 1.5, (("measured", 1.25),))
    latencies = dict.fromkeys(names[1:], known) | {names[0]: LatencyEstimate.unknown("mystery")}
    shown = texts(drawn(traced, latencies=latencies))
    assert shown.count("unknown") == 1
    assert shown.count("1.25 [1.00, 1.50]") == len(names) - 1
    assert "unknown" not in texts(drawn(traced))


class Mystery(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i0(x)


def test_operations_of_unknown_cost_make_a_lower_bound() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Mystery(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    traced = trace(model, torch.zeros(1, 3, 8, 8))
    facts = facts_of(traced, frontiers(traced, granularity="node"))
    assert {f.frontier.name: f.flops_known for f in facts} == {"0": True, "1.special_i0": False, "2": False}
    assert any(text.startswith("≥ ") for text in texts(drawn(traced, "node")))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.b(torch.relu(self.a(x)))))


def test_a_network_of_two_thousand_nodes_stays_small() -> None:
    traced = trace(nn.Sequential(nn.Conv2d(3, 2, 1), *[Block() for _ in range(330)]), torch.zeros(1, 3, 4, 4))
    assert len(traced.nodes) > 1900
    found = frontiers(traced, granularity="node", max_width=2)
    assert len(found) > 1500
    facts = facts_of(traced, found)
    rows = rows_of(traced, facts, blocks_only=False)
    assert len(rows.rows) <= MAX_ROWS + 2
    assert len(rows.marks) + sum(len(row.inside) for row in rows.rows) == len(found)
    for granularity in ("node", "block"):
        text = frontier_svg(traced, facts if granularity == "node" else facts[::6], granularity=granularity)
        assert len(text.encode()) < 1_000_000
        assert ET.fromstring(text).tag == f"{SVG}svg"


def test_hostile_names_stay_text() -> None:
    hostile = '</text><script>alert("x")</script>&\x00'
    traced = replace(traced_zoo("residual"), name=hostile)
    root = drawn(traced)
    assert not list(root.iter(f"{SVG}script"))
    assert any("<script>" in text for text in texts(root))


def test_the_same_in_every_drawing() -> None:
    first, second = (
        frontier_svg(t, facts_of(t, frontiers(t, max_width=9)), granularity="block")
        for t in (trace(*ZOO["dense"](), name="dense") for _ in range(2))
    )
    assert first == second


def test_lanes_never_carry_two_tensors_at_once() -> None:
    flows = [Flow(f"t{i}", i, tuple(range(i + 1, i + 2 + i % 7))) for i in range(60)]
    lanes = Lanes.of(flows)
    for one in lanes.of_flow:
        for other in lanes.of_flow:
            if one < other and lanes.of_flow[one] == lanes.of_flow[other]:
                a, b = flows[one], flows[other]
                assert a.targets[-1] <= b.source or b.targets[-1] <= a.source
