"""Padding of other widths left and right joins the one convolution that reads it, here and in the backend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from netcut_fx.kernels import kernels
from netcut_fx.tracing import trace

pytest.importorskip("tvm")
from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.backends.tvm.lower import lower

BACKEND = TvmBackend("native")


class Padded(nn.Module):
    """A convolution behind a padding, whose result may be read again."""

    def __init__(self, widths: tuple[int, ...], value: float = 0.0, again: bool = False, stride: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 1)
        self.second = nn.Conv2d(16, 16, 3, stride=stride, padding=1 if stride == 1 else 0, groups=16)
        self.widths, self.value, self.again = widths, value, again

    def forward(self, x: Tensor) -> Tensor:
        y = f.pad(torch.relu(self.first(x)), self.widths, value=self.value)
        z = self.second(y)
        return z.mean((2, 3)) + y.mean((2, 3)) if self.again else z


class Pooled(nn.Module):
    """A padding that a pooling reads."""

    def forward(self, x: Tensor) -> Tensor:
        return f.max_pool2d(f.pad(x, (0, 1, 0, 1)), 3, 2)


@pytest.mark.parametrize(
    ("network", "joined"),
    [
        (Padded((0, 1, 0, 1)), True),
        (Padded((1, 2, 0, 3)), True),
        (Padded((0, 1, 0, 1), stride=1), True),
        (Padded((0, 1)), True),
        (Padded((0, 1, 0, 1), value=1.0), False),
        (Padded((0, 1, 0, 1), again=True), False),
        (Padded((0, -1, 0, 1)), False),
        (Padded((0, 1, 0, 1, 0, 0, 1, 0)), False),
        (Pooled(), False),
    ],
)
def test_padding_joins_the_convolution_that_alone_reads_it(network: nn.Module, joined: bool) -> None:
    torch.manual_seed(0)
    network = network.eval()
    example = torch.randn(1, 3, 12, 10)
    traced = trace(network, example)
    listed = [kernel.key for kernel in kernels(traced)]
    assert any("pad" in kernel.ops for kernel in kernels(traced)) != joined
    assert sorted(listed) == sorted(call.key for call in lower(traced, BACKEND.target).calls)
    with torch.no_grad():
        expected = network(example).numpy()
    got = BACKEND.compile(traced).run(example.numpy())
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
