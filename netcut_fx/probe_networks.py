"""Small random networks whose kernels are worth measuring: each layer's shapes are drawn, then fused and run as usual.

Kernels are measured inside a running network, since that is where their times are wanted: inputs lie in the cache where
the kernel before has left them, weights do not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from netcut_fx.graph import TracedModule
from netcut_fx.tracing import trace

_SIZES = (7, 8, 14, 16, 28, 32, 56, 112)
#: Operations of one layer at most: a probe takes milliseconds, not seconds.
_LAYER_FLOPS = 4e8
#: Channels in a group.
_GROUP_WIDTHS = (8, 16, 24, 32)
#: Numbers in what the first layer writes.
_FIRST_NUMBERS = 3e6
_LAYERS = 6
_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.Identity)


class _Residual(nn.Module):
    """A layer whose result is added to its input."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


class _Mean(nn.Module):
    """The mean over all pixels: what adaptive pooling becomes depends on strides, and these on the exporter."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class _Branches(nn.Module):
    """Two layers side by side, concatenated."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


class _Attention(nn.Module):
    """Self-attention over the pixels of an image, then a linear layer: matrix products, softmax, layer norm."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.heads = heads
        self.project = nn.Linear(channels, 3 * channels)
        self.after = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        parts = self.project(tokens).reshape(batch, height * width, 3, self.heads, channels // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        found = found.transpose(1, 2).reshape(batch, height * width, channels)
        return nn.functional.gelu(self.after(found)).transpose(1, 2).reshape(batch, channels, height, width)


def random_probe(generator: np.random.Generator, name: str = "probe") -> TracedModule:
    """Trace a network of a few layers with drawn kinds and shapes, untrained, for one image.

    Sizes are those of usual networks, channels are drawn evenly on a logarithmic scale, a sixth of them no multiple of
    a vector. What comes first is a convolution of an image, as everywhere: a kernel that reads what lies in memory in
    the order of images runs at another speed than in the middle of a network.
    """
    size = int(generator.choice(_SIZES))
    channels = min(_channels(generator), int(_FIRST_NUMBERS / size**2))
    step = int(generator.choice([1, 2]))
    image = torch.zeros(1, 3, size * step, size * step)
    layers: list[nn.Module] = [_conv(3, channels, 3, step=step), nn.ReLU()]
    for _ in range(_LAYERS):
        layer, channels, size = _layer(generator, channels, size)
        layers.append(layer)
    layers += [_Mean(), nn.Linear(channels, _channels(generator))]
    return trace(nn.Sequential(*layers).eval(), image, name=name)


def reference_network() -> TracedModule:
    """The same small network in every session: what it takes tells how disturbed the machine is."""
    return random_probe(np.random.default_rng(1), "reference")


def _channels(generator: np.random.Generator) -> int:
    drawn = int(2 ** generator.uniform(3, 9.5))
    return drawn if generator.random() < 1 / 6 else _even(drawn)


def _even(channels: int) -> int:
    """As many as usual networks have: whole vectors, shorter ones where there are few."""
    step = 8 if channels < 64 else 16
    return max(8, channels // step * step)


def _layer(generator: np.random.Generator, channels: int, size: int) -> tuple[nn.Module, int, int]:
    """Draw a layer for `channels` and `size`; says what comes out of it."""
    kind = str(
        generator.choice(
            [
                *("dense", "dense", "pointwise", "depthwise", "depthwise", "grouped"),
                *("residual", "branches", "pool", "attention"),
            ]
        )
    )
    activation = _ACTIVATIONS[int(generator.integers(len(_ACTIVATIONS)))]()
    after = _channels(generator)
    window = int(generator.choice([3, 3, 3, 5, 7]))
    if kind == "pool" and size >= 14 and size % 2 == 0:
        pool = nn.MaxPool2d if generator.random() < 0.5 else nn.AvgPool2d
        edge, step = ((2, 2), (3, 2), (3, 1))[int(generator.integers(3))]
        return pool(edge, step, padding=(edge - 1) // 2), channels, size // step
    if kind == "attention" and size <= 16 and channels <= 384:
        return _Attention(channels, 4 if channels % 4 == 0 else 1), channels, size
    if kind == "depthwise":
        step = 2 if size >= 14 and size % 2 == 0 and generator.random() < 1 / 3 else 1
        return nn.Sequential(_conv(channels, channels, window, channels, step), activation), channels, size // step
    width = int(generator.choice(_GROUP_WIDTHS))
    if kind == "grouped" and channels % width == 0 and channels > width:
        return nn.Sequential(_conv(channels, channels, 3, channels // width), activation), channels, size
    if kind == "residual" and _affordable(channels, channels * size**2) == channels:
        return _Residual(_conv(channels, channels, 1)), channels, size
    if kind == "branches":
        half = max(4, _affordable(after, channels * size**2) // 2)
        branches = _Branches(_conv(channels, half, 1), _conv(channels, half, 1))
        if generator.random() < 0.5:
            return branches, 2 * half, size
        # Behind a concatenation, batch-norm is no part of a convolution.
        return nn.Sequential(branches, nn.BatchNorm2d(2 * half), activation), 2 * half, size
    window = window if kind == "dense" else 1
    after = max(8, _affordable(after, channels * size**2 * window**2))
    return nn.Sequential(_conv(channels, after, window), activation), after, size


def _affordable(after: int, products: float) -> int:
    """`after` channels, or as many as can be paid for where each takes so many products."""
    most = int(_LAYER_FLOPS / (2 * products))
    if after <= most:
        return after
    return _even(most) if most >= 8 else max(1, most)


def _conv(channels: int, after: int, window: int, groups: int = 1, step: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, after, window, step, padding=window // 2, groups=groups)
