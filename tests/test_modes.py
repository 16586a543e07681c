"""Training mode of a traced network is that of its source, also where functions are told the mode."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netcut_fx.mode_merging import settle_in_eval
from netcut_fx.modes import ByMode, watching_mode
from netcut_fx.passes import copy_traced
from netcut_fx.text import to_text
from netcut_fx.tracing import Via, retrace, trace
from tests.zoo import ZOO

VIAS: tuple[Via, ...] = ("fx", "export")


class Functional(nn.Module):
    """Dropout twice and attention, each told the mode; a batch-norm that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.norm(self.fc1(x))), 0.3, training=self.training)
        heads = x.view(x.shape[0], 2, 2, 2)
        chance = 0.2 if self.training else 0.0
        x = F.scaled_dot_product_attention(heads, heads, heads, dropout_p=chance).flatten(1)
        return F.dropout(self.fc2(x), 0.3, self.training)


class Auxiliary(nn.Module):
    """Has a second head in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.side = nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return (self.fc(x), self.side(x)) if self.training else self.fc(x)


@pytest.mark.parametrize("via", VIAS)
def test_functions_that_are_told_the_mode(via: Via) -> None:
    model, x = Functional(), torch.randn(6, 8)
    traced = copy_traced(trace(model, x, via=via))
    network = copy.deepcopy(traced.graph_module).train()
    held = {repr(part) for part in network.modules() if isinstance(part, ByMode)}
    assert "ByMode(train=True, eval=False)" in held
    assert len(held) == 2
    model.train()
    torch.manual_seed(5)
    expected = model(x)
    torch.manual_seed(5)
    assert torch.equal(network(x), expected)
    for name, value in model.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    assert torch.equal(network.eval()(x[:1]), model.eval()(x[:1]))
    exported = torch.export.export(network, (x,))
    assert torch.equal(exported.module()(x), model(x))


@pytest.mark.parametrize("via", VIAS)
def test_what_only_training_has_stays_away(via: Via) -> None:
    model, x = Auxiliary().eval(), torch.randn(2, 8)
    network = trace(model, x, via=via).graph_module
    assert torch.equal(network(x), model(x))
    assert torch.equal(network.train()(x), model(x))


@pytest.mark.parametrize("via", VIAS)
def test_what_is_compiled_needs_no_modes(via: Via) -> None:
    model, x = Functional().eval(), torch.randn(6, 8)
    work = copy_traced(trace(model, x, via=via))
    settle_in_eval(work.graph_module)
    settled = retrace(work.graph_module, work.name, work.input_specs)
    assert "ByMode" not in to_text(settled, types=False)
    assert torch.equal(settled.graph_module(x), model(x))


def test_networks_without_modes_are_traced_once() -> None:
    model, inputs = ZOO["residual"]()
    traced = trace(model, inputs)
    assert not hasattr(traced.graph_module, "by_mode")
    with watching_mode() as watch:
        model(*inputs)
    assert not watch.asked
    assert "training" not in vars(nn.Module)
