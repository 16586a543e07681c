"""Fragments of networks, each with something that a compiler may fuse in more than one way.

`FRAGMENTS` maps a name to ``(function, input shape, layers)``; the function gets the input and the layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

Fragment = tuple[Callable[..., Any], tuple[int, ...], tuple[nn.Module, ...]]
IMAGE = (1, 4, 8, 8)
TOKENS = (1, 5, 4)


class Applied(nn.Module):
    """A function of the input and of some layers."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.layers)


def conv(channels_in: int = 4, channels_out: int = 4, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups)


def _shuffle(x: Tensor, expand: nn.Module, branch: nn.Module) -> Tensor:
    left, right = expand(x).chunk(2, 1)
    joined = torch.cat([left, branch(right)], 1)
    return joined.view(1, 2, 4, 8, 8).transpose(1, 2).reshape(1, 8, 8, 8)


def _gated(x: Tensor, layer: nn.Module) -> Tensor:
    value, gate = layer(x).chunk(2, 1)
    return value * torch.sigmoid(gate)


def _two_uses_of_a_split(x: Tensor, before: nn.Module, after: nn.Module) -> Tensor:
    first, second = before(x).split(2, 1)
    return f.relu(first).mean((2, 3)) + after(second).mean((2, 3))


def _channel_attention(x: Tensor, layer: nn.Module) -> Tensor:
    return x * torch.sigmoid(layer(x.mean((2, 3)).unsqueeze(1))).transpose(1, 2).unsqueeze(-1)


def _squeeze_excite(x: Tensor, layer: nn.Module) -> Tensor:
    y = f.relu6(x)
    return y * torch.sigmoid(layer(f.adaptive_avg_pool2d(y, 1)))


def _diamond(x: Tensor, layer: nn.Module) -> Tensor:
    y = layer(x)
    return torch.sigmoid(y) * torch.tanh(y) + y


def _standardise(x: Tensor, layer: nn.Module) -> Tensor:
    y = layer(x)
    return (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()


def _query_key_value(x: Tensor, layer: nn.Module) -> Tensor:
    query, key, value = layer(x).reshape(1, 5, 3, 4).unbind(2)
    return query * key + value


FRAGMENTS: dict[str, Fragment] = {
    "activations": (lambda x, a: f.hardsigmoid(f.elu(f.silu(f.gelu(a(x))))), IMAGE, (conv(),)),
    "more activations": (lambda x, a: f.mish(f.leaky_relu(f.hardswish(f.softplus(a(x))))), IMAGE, (conv(),)),
    "tanh gelu": (lambda x, a: f.gelu(a(x), approximate="tanh"), IMAGE, (conv(),)),
    "prelu": (lambda x, a, b: b(a(x)), IMAGE, (conv(), nn.PReLU(4))),
    "clamp": (lambda x, a: a(x).clamp_min(0).clamp(max=3), IMAGE, (conv(),)),
    "scalars": (lambda x: 1 - x / 3 + (x - 2) * 0.5, (1, 4), ()),
    "in place": (lambda x, a: f.relu(a(x), inplace=True).add_(x).mul_(2), IMAGE, (conv(),)),
    "depthwise, grouped": (lambda x, a, b: f.relu(b(f.relu6(a(x)))), IMAGE, (conv(groups=4), conv(kernel=1, groups=2))),
    "transposed convolution": (lambda x, a: f.relu(a(x)), IMAGE, (nn.ConvTranspose2d(4, 4, 2, 2),)),
    "one dimension": (lambda x, a: f.max_pool1d(f.avg_pool1d(a(x), 2), 2), (1, 4, 10), (nn.Conv1d(4, 4, 3),)),
    "three dimensions": (lambda x, a: f.relu(a(x)), (1, 2, 5, 5, 5), (nn.Conv3d(2, 2, 3),)),
    "norm in front": (lambda x, a, b: b(f.relu(a(x))), IMAGE, (nn.BatchNorm2d(4), conv())),
    "norm without weights": (lambda x, a, b: b(f.relu(a(x))), IMAGE, (nn.BatchNorm2d(4, affine=False), conv())),
    "group norm": (lambda x, a, b: f.silu(b(a(x))) + x, IMAGE, (conv(), nn.GroupNorm(2, 4))),
    "layer norm without weights": (lambda x, a: a(x.flatten(2)), IMAGE, (nn.LayerNorm(64, elementwise_affine=False),)),
    "instance norm": (lambda x, a: f.relu(f.instance_norm(a(x))), IMAGE, (conv(),)),
    "local response norm": (lambda x, a: f.local_response_norm(a(x), 3), IMAGE, (conv(),)),
    "standardise": (_standardise, IMAGE, (conv(),)),
    "l2 norm": (lambda x, a: f.normalize(a(x).flatten(1)), IMAGE, (conv(),)),
    "channel shuffle": (_shuffle, IMAGE, (conv(4, 8, 1), conv())),
    "gated": (_gated, IMAGE, (conv(),)),
    "part of a split": (lambda x, a, b: b(a(x).split([1, 3], 1)[1]), IMAGE, (conv(), conv(3, 4))),
    "two uses of a split": (_two_uses_of_a_split, IMAGE, (conv(), conv(2, 2))),
    "split returned": (lambda x, a: a(x).split(2, 1), IMAGE, (conv(),)),
    "part of a split returned": (lambda x, a: a(x).split(2, 1)[0], IMAGE, (conv(),)),
    "reshape returned": (lambda x, a: a(x).flatten(1), IMAGE, (conv(),)),
    "reshape and mean returned": (lambda x: (x.flatten(1), x.mean((2, 3))), IMAGE, ()),
    "relu before reshape": (lambda x, a: a(f.relu(x).flatten(1)), IMAGE, (nn.Linear(256, 3),)),
    "pool before reshape": (lambda x, a: a(f.max_pool2d(x, 3, 2, 1).flatten(1)), IMAGE, (nn.Linear(64, 3),)),
    "pad by nothing": (lambda x, a: a(f.pad(a(x), (0, 0, 0, 0))), IMAGE, (conv(),)),
    "pad behind": (lambda x, a: a(f.pad(f.relu(a(x)), (0, 1, 0, 1))), IMAGE, (conv(),)),
    "pad in front": (lambda x, a: a(f.pad(f.relu(a(x)), (1, 1, 1, 1))), IMAGE, (conv(),)),
    "pad by reflection": (lambda x, a, b: b(a(x)), IMAGE, (conv(), nn.ReflectionPad2d(1))),
    "same padding of an even kernel": (lambda x, a: a(x), IMAGE, (nn.Conv2d(4, 4, 4, padding="same"),)),
    "slices": (lambda x, a: a(x)[:, :2] + x[:, -2:] * a(x)[:, -4:-2], IMAGE, (conv(),)),
    "slice between convolutions": (lambda x, a: a(a(x)[:, :, :6, 1:7]), IMAGE, (conv(),)),
    "the same layer twice": (lambda x, a: a(x) + a(x), IMAGE, (conv(),)),
    "the same tensor twice": (lambda x: x * x, IMAGE, ()),
    "concatenated with itself": (lambda x: torch.cat([x, x], 1), IMAGE, ()),
    "concatenation": (lambda x, a: torch.cat([a(x), f.relu(x)], 1), IMAGE, (conv(),)),
    "stack": (lambda x, a: torch.stack([a(x), x], 1).sum(1), IMAGE, (conv(),)),
    "repeat": (lambda x, a: a(x).repeat(1, 2, 1, 1), IMAGE, (conv(),)),
    "roll": (lambda x, a: torch.roll(a(x), (1, 2), (2, 3)), IMAGE, (conv(),)),
    "expand": (lambda x: torch.cat([x.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8), x], 1), IMAGE, ()),
    "squeeze and excite": (_squeeze_excite, (2, 4, 8, 8), (conv(kernel=1),)),
    "channel attention": (_channel_attention, IMAGE, (nn.Conv1d(1, 1, 3, padding=1),)),
    "diamond": (_diamond, IMAGE, (conv(),)),
    "chain of sums": (lambda x, a, b: f.relu(b(a(x)) + a(x)) + x, IMAGE, (conv(), conv())),
    "broadcast over the batch": (lambda x, a: a(x) + x.mean((2, 3), keepdim=True) + x[:1], (2, 4, 8, 8), (conv(),)),
    "channels last": (
        lambda x, a, b: x + b(a(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2), IMAGE, (nn.LayerNorm(4), nn.Linear(4, 4)),
    ),
    "unit dimensions": (lambda x, a: a(x.mean((2, 3), keepdim=True).permute(0, 2, 3, 1)), IMAGE, (nn.Linear(4, 4),)),
    "one element": (lambda x, a: a(x).view(1).relu().view(1, 1), IMAGE, (nn.Conv2d(4, 1, 8),)),
    "transpose": (lambda x, a: a(x.transpose(2, 3)), IMAGE, (conv(),)),
    "pixel shuffle": (lambda x, a: f.pixel_shuffle(a(x), 2), IMAGE, (conv(),)),
    "adaptive pooling": (lambda x, a: f.adaptive_avg_pool2d(a(x), (2, 4)) + 1, IMAGE, (conv(),)),
    "adaptive pooling, ragged in one dimension": (lambda x: f.adaptive_avg_pool2d(x, (3, 4)) + 1, IMAGE, ()),
    "adaptive pooling, all ragged": (lambda x: f.adaptive_avg_pool2d(x, 3) + 1, IMAGE, ()),
    "adaptive pooling in three dimensions": (lambda x: f.adaptive_avg_pool3d(x, (3, 3, 4)) + 1, (1, 2, 8, 8, 8), ()),
    "pooling": (lambda x, a: f.avg_pool2d(f.max_pool2d(a(x), 3, 2, ceil_mode=True), 2), IMAGE, (conv(),)),
    "windows that shapes do not tell": (
        lambda x, a: f.max_pool2d(a(x), 3, 1, 1) + f.max_pool2d(x, (5, 1), 1, (2, 0)) + f.avg_pool2d(x, 1),
        IMAGE, (conv(),),
    ),
    "dilation": (
        lambda x, a, b, c: c(b(a(x)) + x), IMAGE,
        (
            nn.Conv2d(4, 4, 3, padding=2, dilation=2),
            nn.Conv2d(4, 4, 3, padding=(2, 1), dilation=(2, 1), groups=4),
            conv(kernel=1),
        ),
    ),
    "interpolation": (
        lambda x, a: f.interpolate(a(x), scale_factor=2) + f.interpolate(x, scale_factor=2.0, mode="bilinear"),
        IMAGE, (conv(),),
    ),
    "sums": (lambda x, a: a(x).sum((2, 3)) + a(x).mean(-1).mean(-1), IMAGE, (conv(),)),
    "logarithm of softmax": (lambda x, a: f.log_softmax(a(x.mean((2, 3))), 1), IMAGE, (nn.Linear(4, 3),)),
    "linear on tokens": (lambda x, a: f.gelu(a(x)), (2, 5, 4), (nn.Linear(4, 8),)),
    "linear without bias": (lambda x, a: a(x) + 1, (2, 5, 4), (nn.Linear(4, 8, bias=False),)),
    "class token": (lambda x, a: a(x)[:, 0], TOKENS, (nn.Linear(4, 4),)),
    "batches of products": (lambda x: torch.bmm(x, x.transpose(1, 2)).softmax(-1) @ x, (2, 5, 4), ()),
    "product": (lambda x: x @ x.t(), (5, 4), ()),
    "einsum": (lambda x: torch.einsum("bchw,bchw->bc", x, x), (1, 4, 3, 3), ()),
    "query key value": (_query_key_value, TOKENS, (nn.Linear(4, 12),)),
    "attention": (lambda x: f.scaled_dot_product_attention(x, x, x), (1, 2, 5, 4), ()),
    "attention without heads": (lambda x: f.scaled_dot_product_attention(x, x, x), (2, 5, 4), ()),
    "attention layer": (
        lambda x, a: a(x, x, x, need_weights=False)[0], TOKENS, (nn.MultiheadAttention(4, 2, batch_first=True),),
    ),
    "attention layer with weights": (lambda x, a: a(x, x, x)[0], (5, 1, 4), (nn.MultiheadAttention(4, 2),)),
    "tokens as an image, pooled": (
        lambda x, a: f.adaptive_avg_pool2d(a(x).transpose(1, 2).reshape(-1, 4, 2, 3), 1).flatten(1),
        (1, 6, 4), (nn.Linear(4, 4),),
    ),
    "small fill": (lambda x: torch.where(x > 0, torch.full_like(x, 2.0), x), (1, 4, 16, 16), ()),
    "large fill": (lambda x: torch.where(x > 0, torch.full_like(x, 2.0), x), (1, 5, 16, 16), ()),
    "weights computed from weights": (lambda x, a: a.weight.view(1, -1, 1, 1) * x, IMAGE, (nn.LayerNorm(4),)),
    "dropout": (lambda x, a, b: f.relu(b(a(x))), IMAGE, (conv(), nn.Dropout2d())),
}  # fmt: skip
