"""Operations in all the forms in which a network may have them."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as f

#: Primitive operations -> layers and functions of an image (2, 4, 6, 6) that lower to exactly these.
FORMS: dict[str, list[Callable[..., Tensor]]] = {
    "relu": [nn.ReLU(), nn.ReLU(inplace=True), f.relu, torch.relu, lambda x: x.relu(), lambda x: (x * 1).relu_()],
    "clip": [
        nn.ReLU6(),
        nn.Hardtanh(0, 6),
        f.relu6,
        lambda x: x.clamp(0, 6),
        lambda x: torch.clamp(x, 0, 6),
        lambda x: x.clip(0, 6),
    ],
    "sigmoid multiply": [
        nn.SiLU(),
        nn.SiLU(inplace=True),
        f.silu,
        lambda x: x * x.sigmoid(),
        lambda x: x.sigmoid().mul(x),
    ],
    "add clip clip divide": [nn.Hardsigmoid(), f.hardsigmoid],
    "add clip clip multiply divide": [nn.Hardswish(), f.hardswish, nn.Hardswish(inplace=True)],
    "gelu": [nn.GELU(), f.gelu],
    "tanh": [nn.Tanh(), f.tanh, torch.tanh, lambda x: x.tanh()],
    "leaky_relu": [nn.LeakyReLU(), f.leaky_relu],
    "softmax": [nn.Softmax(-1), lambda x: f.softmax(x, -1), lambda x: x.softmax(-1), lambda x: torch.softmax(x, -1)],
    "add": [
        lambda x: x + 1,
        lambda x: 1 + x,
        lambda x: x.add(1),
        lambda x: torch.add(x, x),
        lambda x: operator.iadd(x, 1),
    ],
    "subtract": [lambda x: x - 1, lambda x: 1 - x, lambda x: x.sub(x)],
    "multiply": [lambda x: x * 2, lambda x: torch.mul(x, x), lambda x: x.mul(0.5)],
    "divide": [lambda x: x / 2, lambda x: torch.div(x, x), lambda x: x.div(2)],
    "mean": [
        nn.AdaptiveAvgPool2d(1),
        lambda x: f.adaptive_avg_pool2d(x, (1, 1)),
        lambda x: x.mean((2, 3)),
        lambda x: torch.mean(x, 1),
    ],
    "max_pool2d": [nn.MaxPool2d(2), lambda x: f.max_pool2d(x, 2), lambda x: torch.max_pool2d(x, 2)],
    "avg_pool2d": [nn.AvgPool2d(2), lambda x: f.avg_pool2d(x, 2)],
    "adaptive_avg_pool2d": [nn.AdaptiveAvgPool2d(3), lambda x: f.adaptive_avg_pool2d(x, 3)],
    "reshape": [
        nn.Flatten(),
        lambda x: x.flatten(1),
        lambda x: torch.flatten(x, 1),
        lambda x: x.view(2, -1),
        lambda x: x.reshape(2, -1),
    ],
    "transpose": [
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.transpose(1, 2),
        lambda x: torch.permute(x, (0, 2, 3, 1)),
    ],
    "expand_dims": [lambda x: x.unsqueeze(1), lambda x: torch.unsqueeze(x, 1)],
    "concatenate": [lambda x: torch.cat([x, x], 1), lambda x: torch.concat((x, x), dim=1)],
    "split": [lambda x: x.chunk(2, 1)[0], lambda x: torch.split(x, 2, 1)[1], lambda x: x.split([1, 3], dim=1)[0]],
    "strided_slice": [lambda x: x[:, 1:3], lambda x: x.narrow(1, 1, 2)],
    "take": [lambda x: x[:, 0], lambda x: x.select(1, 0)],
    "pad": [nn.ZeroPad2d(1), lambda x: f.pad(x, (1, 1, 1, 1)), nn.ConstantPad2d(1, 0.5)],
    "resize2d": [
        nn.Upsample(scale_factor=2),
        lambda x: f.interpolate(x, scale_factor=2),
        lambda x: f.interpolate(x, size=(9, 9), mode="bilinear"),
    ],
    "variance multiply": [lambda x: x.var(1), lambda x: torch.var(x, 1)],
    "reshape instance_norm reshape": [nn.InstanceNorm2d(4), f.instance_norm],
    "": [
        nn.Identity(),
        nn.Dropout(),
        lambda x: x.contiguous(),
        lambda x: f.dropout(x, training=False),
        lambda x: x.view(2, 4, 6, 6),
    ],
}
