"""Pass ``simplify``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from netcut_fx.graph import TracedModule
from netcut_fx.passes import Simplify, weightless
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from tests.passes.comparing import assert_equal, assert_near, results
from tests.zoo import ZOO


class Talkative(nn.Module):
    """Sizes, no-ops and paddings of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d(1)
        self.conv = nn.Conv2d(3, 4, 3)
        self.weight = nn.Parameter(torch.randn(4, 4, 3, 3))
        self.skip = nn.Identity()
        self.drop = nn.Dropout2d(0.5)
        self.no_pad = nn.ZeroPad2d(0)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        y = self.conv(self.pad(x)).view(batch, 4, height * width)
        y = y.reshape(batch, -1, height, width // 1).float()
        y = torch.conv2d(functional.pad(self.no_pad(y), (1, 1, 2, 2)), self.weight, None, (1, 1), (0, 1))
        y = self.skip(self.drop(y.contiguous())).detach()
        y = y.mean((2, 3), keepdim=True).clone()
        y = y.view(y.size(0), -1)
        y = functional.dropout(y, 0.5, self.training)
        return self.fc(y) / y.shape[1]


def traced_of(function: Callable[[Tensor], Tensor], shape: tuple[int, ...] = (2, 3, 6, 6)) -> TracedModule:
    """Trace a plain function."""

    class Wrapped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    return trace(Wrapped(), torch.zeros(shape))


def operations(traced: TracedModule) -> list[str]:
    """Short names of what the nodes do."""
    return [str(getattr(n.target, "__name__", n.target)) for n in traced.nodes if n.op not in ("placeholder", "output")]


def test_golden(golden: Callable[[str, str], None]) -> None:
    traced = trace(Talkative(), torch.zeros(2, 3, 6, 6))
    golden("simplify_before", to_text(traced))
    golden("simplify_after", to_text(Simplify()(traced)))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_same_results_at_every_batch_size(batch: int) -> None:
    for example in (1, 2):
        traced = trace(Talkative(), torch.zeros(example, 3, 6, 6))
        after = Simplify()(traced)
        x = (torch.randn(batch, 3, 6, 6),)
        assert_near(results(after, x), results(traced, x), relative=1e-6)
        assert to_text(after, types=False) == to_text(Simplify()(weightless(traced)), types=False)


@pytest.mark.parametrize("name", ZOO)
def test_zoo_computes_the_same(name: str) -> None:
    model, inputs = ZOO[name]()
    traced = trace(model, inputs)
    state = traced.state_hash()
    after = Simplify()(traced)
    assert_equal(results(after, inputs), results(traced, inputs))
    assert traced.state_hash() == state
    assert to_text(Simplify()(after)) == to_text(after)


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda x: x.view(x.size(0), -1), ["flatten"]),
        (lambda x: x.reshape(-1, 108), ["flatten"]),
        (lambda x: torch.reshape(x, (x.shape[0], 3, 36)), ["reshape"]),
        (lambda x: x.view(x.shape), []),
        (lambda x: x * x.dim(), ["mul"]),
        (lambda x: x * x.shape[-1] ** 0.5, ["mul"]),
        (lambda x: x / x.size(0), ["size", "truediv"]),
        (lambda x: x.new_zeros(1).expand(x.size(0)), ["new_zeros", "size", "expand"]),
        (lambda x: x.to(torch.float32).type_as(x) + x.double(), ["double", "add"]),
        (lambda x: x.transpose(1, 2).contiguous() * 2, ["transpose", "contiguous", "mul"]),
        (lambda x: x.transpose(1, 2).contiguous().view(x.size(0), 9, 12), ["transpose", "reshape"]),
        (lambda x: functional.dropout(x, 0.5, training=False) + functional.alpha_dropout(x), ["add"]),
        (lambda x: x.squeeze().clone(), []),
        (lambda x: functional.pad(x, (0, 0)) + 1, ["add"]),
    ],
)
def test_what_is_left(function: Callable[[Tensor], Tensor], left: list[str]) -> None:
    traced = traced_of(function)
    after = Simplify()(traced)
    assert operations(after) == left
    for batch in (2, 3):
        x = (torch.randn(batch, 3, 6, 6),)
        assert_equal(results(after, x), results(traced, x))


def test_a_network_of_one_batch_size() -> None:
    traced = traced_of(lambda x: x.view(2, 3, 36) * x.size(0))
    after = Simplify()(traced)
    assert operations(after) == ["view", "mul"]
    x = (torch.randn(2, 3, 6, 6),)
    assert_equal(results(after, x), results(traced, x))


def test_dropout_that_always_acts_stays() -> None:
    after = Simplify()(traced_of(lambda x: functional.dropout(x, 0.5, training=True)))
    assert operations(after) == ["dropout"]


def test_a_clone_that_protects_stays() -> None:
    traced = traced_of(lambda x: (x * 1).clone().add_(1) + x.clone())
    after = Simplify()(traced)
    assert operations(after) == ["mul", "clone", "add_", "add"]
    x = (torch.randn(2, 3, 6, 6),)
    assert_equal(results(after, x), results(traced, x))


def test_a_padding_by_nothing_that_protects_stays() -> None:
    traced = traced_of(lambda x: functional.pad(x, (0, 0)).add_(1) + x)
    after = Simplify()(traced)
    assert operations(after) == ["pad", "add_", "add"]
    x = (torch.randn(2, 3, 6, 6),)
    assert_equal(results(after, x), results(traced, x))


class Padded(nn.Module):
    """A padding and what reads it."""

    def __init__(self, pad: nn.Module, conv: nn.Module, *, twice: bool = False) -> None:
        super().__init__()
        self.pad, self.conv, self.twice = pad, conv, twice

    def forward(self, x: Tensor) -> Tensor:
        padded = self.pad(x)
        y = self.conv(padded)
        return y + padded.mean() if self.twice else y


@pytest.mark.parametrize(
    ("pad", "conv", "padding"),
    [
        (nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), (1, 1)),
        (nn.ZeroPad2d((1, 1, 2, 2)), nn.Conv2d(3, 4, 3, 2, padding=1, bias=False), (3, 2)),
        (nn.ConstantPad2d(1, 0.0), nn.Conv2d(3, 4, 3, padding="valid"), (1, 1)),
        (nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2), None),
        (nn.ZeroPad2d(-1), nn.Conv2d(3, 4, 3), None),
        (nn.ConstantPad2d(1, 0.5), nn.Conv2d(3, 4, 3), None),
        (nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3), None),
        (nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3, padding="same"), None),
        (nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), None),
        (nn.ZeroPad2d(1), nn.ConvTranspose2d(3, 4, 3), None),
        (nn.ZeroPad2d(1), nn.MaxPool2d(3), None),
    ],
)
def test_padding(pad: nn.Module, conv: nn.Module, padding: tuple[int, int] | None) -> None:
    traced = trace(Padded(pad, conv), torch.zeros(2, 3, 8, 8))
    after = Simplify()(traced)
    assert [node.op for node in after.nodes].count("call_module") == (1 if padding else 2)
    if padding:
        assert after.graph_module.conv.padding == padding  # pyright: ignore[reportAttributeAccessIssue]
    x = (torch.randn(2, 3, 8, 8),)
    assert_near(results(after, x), results(traced, x), relative=1e-6)


def test_padding_that_someone_else_reads_stays() -> None:
    traced = trace(Padded(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), twice=True), torch.zeros(2, 3, 8, 8))
    assert to_text(Simplify()(traced)) == to_text(traced)


def test_convolution_called_twice_keeps_its_paddings() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pad, self.conv = nn.ZeroPad2d(1), nn.Conv2d(3, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.pad(self.conv(x)))

    traced = trace(Twice(), torch.zeros(2, 3, 8, 8))
    assert to_text(Simplify()(traced)) == to_text(traced)


def test_padding_before_a_write_stays() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pad, self.conv = nn.ZeroPad2d(1), nn.Conv2d(3, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = x * 1
            padded = self.pad(y)
            y.add_(1)
            return self.conv(padded) + y.mean()

    traced = trace(Written(), torch.zeros(2, 3, 8, 8))
    after = Simplify()(traced)
    assert operations(after) == operations(traced)
    x = (torch.randn(2, 3, 8, 8),)
    assert_equal(results(after, x), results(traced, x))
