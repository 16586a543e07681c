"""The text form: stable, and made of names that users know."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.passes import copy_traced
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from tests.zoo import ZOO


class Everything(nn.Module):
    """Every form an operation and an argument can take."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 3), nn.ReLU()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, other: Tensor) -> dict[str, Tensor]:
        y = self.act(self.act(self.conv(x)) * self.scale)
        y += 1.5
        part = y[:, 1:3, ..., None]
        low, high = torch.split(y, [1, 3], dim=1)
        joined = torch.cat([low, high, low.to(torch.float32)], 1)
        return {"part": part, "joined": joined.clamp(min=0, max=other.size(0)), "other": other.contiguous()}


def test_golden(golden: Callable[[str, str], None]) -> None:
    traced = trace(Everything(), (torch.zeros(1, 3, 5, 5), torch.zeros(2)), name="everything")
    golden("text", to_text(traced))
    golden("text_without_types", to_text(traced, types=False))


@pytest.mark.parametrize("name", ZOO)
def test_stable(name: str) -> None:
    model, inputs = ZOO[name]()
    traced = trace(model, inputs)
    text = to_text(traced)
    again, more = ZOO[name]()
    assert to_text(trace(again, more)) == text
    assert to_text(copy_traced(traced)) == text
    assert "0x" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_independent_of_the_names_fx_invents() -> None:
    model, inputs = ZOO["residual"]()
    traced = trace(model, inputs)
    renamed = copy_traced(traced)
    for index, node in enumerate(renamed.nodes):
        node._rename(f"other_{index}")
    assert to_text(renamed) == to_text(traced)


def test_weights_are_not_in_the_text() -> None:
    model, inputs = ZOO["residual"]()
    traced = trace(model, inputs)
    other = copy_traced(traced)
    with torch.no_grad():
        for parameter in other.graph_module.parameters():
            parameter.add_(1)
    assert to_text(other) == to_text(traced)
