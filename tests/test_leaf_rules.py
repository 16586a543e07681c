"""Which modules and functions stay whole, in both tracers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netcut_fx.errors import TraceError
from netcut_fx.graph import TracedModule
from netcut_fx.leaf_rules import acts_by_mode
from netcut_fx.passes import copy_traced
from netcut_fx.tracing import Via, trace

VIAS: tuple[Via, ...] = ("fx", "export")


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((4,), 2.0))

    def forward(self, x: Tensor, *, shift: float = 0.0) -> tuple[Tensor, None]:
        return x * self.scale + shift, None


class Named(nn.ReLU):
    """Keeps the forward of torch.nn's."""


class Other(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input) + 1


class DropBranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return drop_branch(x, self)


def drop_branch(x: Tensor, module: nn.Module) -> Tensor:
    if not module.training:
        return x
    return x * torch.bernoulli(torch.full((x.shape[0], 1), 0.5))


def swish(x: Tensor, *, power: int = 1) -> Tensor:
    return x * torch.sigmoid(x) ** power


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scaled = Scaled()
        self.named, self.other = Named(), Other()
        self.drop = DropBranch()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.scaled(x, shift=1.0)
        return swish(self.drop(self.fc(self.other(self.named(x)))), power=2)


def called(traced: TracedModule) -> list[str]:
    return [str(node.target) for node in traced.nodes if node.op == "call_module"]


@pytest.mark.parametrize("via", VIAS)
def test_rule(via: Via) -> None:
    assert called(trace(Net(), torch.randn(2, 4), via=via)) == ["named", "fc", "drop"]


@pytest.mark.parametrize("via", VIAS)
@pytest.mark.parametrize("leaf", [Scaled, "Scaled", "scaled"])
def test_callers_leaves_and_functions(via: Via, leaf: type[nn.Module] | str) -> None:
    model, x = Net(), torch.randn(2, 4)
    traced = trace(model, x, leaf_modules=[leaf], wrapped_functions=[swish], via=via)
    assert called(traced) == ["scaled", "named", "fc", "drop"]
    assert [node for node in traced.nodes if node.target is swish]
    again = copy_traced(traced).graph_module
    assert torch.equal(again(x), model.eval()(x))
    again(x).sum().backward()
    assert again.get_parameter("scaled.scale").grad is not None
    assert swish.__module__ == __name__
    assert "forward" not in vars(model.fc)


@pytest.mark.parametrize("via", VIAS)
def test_a_branch_is_dropped_as_in_the_source(via: Via) -> None:
    model, x = Net().train(), torch.randn(16, 4)
    network = trace(model, x, via=via).graph_module.train()
    torch.manual_seed(3)
    expected = model(x)
    torch.manual_seed(3)
    assert torch.equal(network(x), expected)
    assert not torch.equal(expected, model.eval()(x))


def test_acts_by_mode() -> None:
    assert acts_by_mode(DropBranch())
    assert not acts_by_mode(Scaled())
    assert not acts_by_mode(nn.Sequential(DropBranch()))


def test_unknown_leaves() -> None:
    with pytest.raises(TraceError) as error:
        trace(Net(), torch.randn(2, 4), leaf_modules=["scale"])
    assert str(error.value) == (
        "leaf_modules of Net: no module has the path or class 'scale'; did you mean scaled, Scaled?"
    )
    with pytest.raises(TraceError) as error:
        trace(Net(), torch.randn(2, 4), leaf_modules=[nn.Conv2d])
    assert str(error.value) == ("leaf_modules of Net: no module is a Conv2d; give the path of a module or its class")
