"""Pass ``fold-batch-norm``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from netcut_fx.passes import FoldBatchNorm, weightless
from netcut_fx.passes.rewriting import origin
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from tests.passes.comparing import assert_near, lively, results
from tests.zoo import ZOO


class FunctionalConv(nn.Module):
    """A convolution written as a function on its weight, as EfficientNet-Lite does."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.bias = nn.Parameter(torch.randn(4)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, 1, padding=1)


class Functions(nn.Module):
    """Both forms of functional convolution, and a functional linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm1 = FunctionalConv(bias=False), nn.BatchNorm2d(4)
        self.two, self.norm2 = FunctionalConv(bias=True), nn.BatchNorm2d(4)
        self.matrix, self.norm3 = nn.Parameter(torch.randn(5, 4)), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.one(x)) + self.norm2(self.two(x))
        return self.norm3(functional.linear(y.mean((2, 3)), self.matrix))


def norms(traced: object) -> int:
    """How many batch-norm modules are left."""
    modules = traced.graph_module.modules()  # type: ignore[attr-defined]
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)


def test_golden(golden: Callable[[str, str], None]) -> None:
    traced = trace(lively(Functions()), torch.zeros(2, 3, 6, 6))
    golden("fold_batch_norm_before", to_text(traced))
    golden("fold_batch_norm_after", to_text(FoldBatchNorm()(traced)))


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)], (2, 3, 9)),
        ([nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)], (2, 4, 7, 7)),
        ([nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4)], (2, 3, 7, 7)),
        ([nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3, affine=False)], (2, 2, 4, 4, 4)),
        ([nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d(6)], (2, 4, 5)),
        ([nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False), nn.BatchNorm2d(6)], (2, 4, 5, 5)),
        ([nn.Linear(7, 3, bias=False), nn.BatchNorm1d(3)], (4, 7)),
        ([nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=0.1), nn.BatchNorm2d(4)], (2, 3, 5, 5)),
        ([Functions()], (2, 3, 6, 6)),
    ],
)
def test_every_kind_of_layer(layers: list[nn.Module], shape: tuple[int, ...]) -> None:
    traced = trace(lively(nn.Sequential(*layers)), torch.zeros(shape))
    folded = FoldBatchNorm()(traced)
    assert norms(traced) > 0
    assert norms(folded) == 0
    x = (torch.randn(shape),)
    assert_near(results(folded, x), results(traced, x))
    assert to_text(FoldBatchNorm()(weightless(traced))) == to_text(folded)


class Shared(nn.Module):
    """Everything that must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 1)
        self.seen = nn.Conv2d(3, 3, 1)
        self.first, self.tied = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.tied.weight = self.first.weight
        self.live = nn.Conv2d(3, 3, 1)
        self.tokens = nn.Linear(4, 4)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.norm4, self.norm5 = nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm1(self.twice(self.twice(x)))
        b = self.seen(x)
        b = self.norm2(b) + b
        c = self.norm3(self.first(x)) + self.tied(x)
        d = self.norm4(self.live(x))
        return self.norm5(self.tokens((a + b + c + d).mean(3)))


def test_what_is_shared_stays() -> None:
    traced = trace(lively(Shared()), torch.zeros(2, 3, 4, 4))
    after = FoldBatchNorm()(traced)
    assert norms(after) == norms(traced) == 5
    x = (torch.randn(2, 3, 4, 4),)
    assert_near(results(after, x), results(traced, x), relative=0)


@pytest.mark.parametrize("name", ZOO)
def test_zoo_computes_the_same(name: str) -> None:
    model, inputs = ZOO[name]()
    traced = trace(model, inputs)
    state = traced.state_hash()
    after = FoldBatchNorm()(traced)
    assert_near(results(after, inputs), results(traced, inputs))
    assert traced.state_hash() == state


def test_the_layer_remembers_what_it_took_over() -> None:
    traced = trace(lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())), torch.zeros(2, 3, 4, 4))
    after = FoldBatchNorm()(traced)
    assert [origin(node) for node in after.nodes] == [("input",), ("0", "1"), ("2",), ("output",)]
    assert after.by_qualname["0"].meta["module_path"] == traced.by_qualname["0"].meta["module_path"]


def test_half_precision_keeps_its_type() -> None:
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))).to(torch.bfloat16)
    after = FoldBatchNorm()(trace(model, torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16)))
    assert {p.dtype for p in after.graph_module.parameters()} == {torch.bfloat16}
