"""Comparing what two networks compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from netcut_fx.graph import TracedModule


def results(traced: TracedModule, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """All tensors that `traced` returns for a copy of `inputs`, flat."""
    with torch.no_grad():
        return flat(traced.graph_module(*(x.clone() for x in inputs)))


def flat(value: Any) -> list[Tensor]:
    """The tensors in a nested result, in order."""
    if isinstance(value, Tensor):
        return [value.clone()]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in flat(part)]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    """Bit for bit."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def assert_near(found: list[Tensor], expected: list[Tensor], relative: float = 1e-5) -> None:
    """Relative to the largest value of each tensor."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        scale = float(b.abs().max())
        assert float((a - b).abs().max()) <= relative * max(scale, 1e-6)


def lively(module: nn.Module) -> nn.Module:
    """`module` in eval mode with batch-norm statistics that are not the identity."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.running_mean.normal_(0, 0.3, generator=generator)
            assert part.running_var is not None
            part.running_var.uniform_(0.5, 2, generator=generator)
            if part.affine:
                part.weight.data.uniform_(0.5, 1.5, generator=generator)
                part.bias.data.normal_(0, 0.3, generator=generator)
    return module.eval()
