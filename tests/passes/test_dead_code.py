"""Pass ``dead-code``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.passes import DeadCode
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from tests.passes.comparing import assert_equal, results
from tests.zoo import ZOO


class Wasteful(nn.Module):
    """A branch nobody uses, an assertion, and a write that matters although nobody uses its result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.unused = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.offset = nn.Parameter(torch.ones(1))
        self.dead_offset = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.size(1) == 3, "three channels")
        y = self.conv(x)
        self.unused(y) + self.dead_offset
        y.view(-1).add_(self.offset)
        z = y * 2
        y.mul_(3)
        return z


def test_golden(golden: Callable[[str, str], None]) -> None:
    traced = trace(Wasteful(), torch.zeros(1, 3, 6, 6))
    golden("dead_code_before", to_text(traced))
    golden("dead_code_after", to_text(DeadCode()(traced)))


def test_writes_that_are_read_later_stay() -> None:
    traced = trace(Wasteful(), torch.zeros(1, 3, 6, 6))
    after = DeadCode()(traced)
    assert [node.meta["qualname"] for node in after.nodes if node.op == "call_method"] == ["view", "add_"]
    assert set(dict(after.graph_module.named_parameters())) == {"conv.weight", "conv.bias", "offset"}
    x = torch.randn(1, 3, 6, 6)
    assert_equal(results(after, (x,)), results(traced, (x,)))


@pytest.mark.parametrize("name", ZOO)
def test_zoo_computes_the_same(name: str) -> None:
    model, inputs = ZOO[name]()
    traced = trace(model, inputs)
    state = traced.state_hash()
    after = DeadCode()(traced)
    assert_equal(results(after, inputs), results(traced, inputs))
    assert traced.state_hash() == state
    assert len(after.inputs) == len(traced.inputs)
    assert DeadCode()(after).state_hash() == after.state_hash()


def test_dead_branch_loses_its_weights() -> None:
    model, inputs = ZOO["dead_branch"]()
    traced = trace(model, inputs)
    after = DeadCode()(traced)
    assert len(after.nodes) < len(traced.nodes)
    assert len(after.graph_module.state_dict()) < len(traced.graph_module.state_dict())
