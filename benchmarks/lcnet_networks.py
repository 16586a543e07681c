"""CIFAR's residual networks and CIFAR-10 (JPEG), for `benchmarks.lcnet_study`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from netcut_fx.data import Dataset
from netcut_fx.graph import TracedModule
from netcut_fx.preprocess import Preprocess
from netcut_fx.splits import limited
from netcut_fx.tracing import trace
from netcut_fx.weights import load_weights

FOLDER = Path(__file__).parents[2] / "shared" / "data"
VALIDATION = 5_000


class Block(nn.Module):
    """Two convolutions; where the size changes, the shortcut is strided and padded (He et al., option A)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.padding = (channels - channels_in) // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Residual of two convolutions."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """ResNet of 6n + 2 layers for images of 32 x 32."""

    def __init__(self, n: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(Block(a if i == 0 else b, b, s if i == 0 else 1) for i in range(n))) for a, b, s in widths
        )
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def resnet(layers: int, folder: Path = FOLDER) -> TracedModule:
    """ResNet-20 or -56 with weights trained on the lossless images."""
    model = CifarResNet((layers - 2) // 6)
    load_weights(model, _existing(folder / "weights" / f"resnet{layers}_plain.pt"))
    return trace(model, torch.zeros(1, 3, 32, 32), name=f"resnet{layers}")


def cifar10(folder: Path = FOLDER, limit: int | None = None) -> Dataset:
    """CIFAR-10 (JPEG): 45,000 images to train with, 5,000 to validate, 10,000 to test; or `limit` of all of them."""
    with np.load(_existing(folder / "cifar10_jpeg.npz"), allow_pickle=False) as file:
        held = {name: file[name] for name in file.files}
    labels = np.concatenate([held["train_y"], held["test_y"]]).astype(np.int64)
    order = np.random.default_rng(0).permutation(50_000)
    of_split = np.full(len(labels), 2)
    of_split[order] = (np.arange(50_000) < VALIDATION).astype(int)
    chosen = np.arange(len(labels)) if limit is None else limited(labels + 10 * of_split, limit, 0)
    images = np.empty((len(chosen), 32, 32, 3), np.uint8)
    for row, index in enumerate(chosen):
        part, i = ("train", index) if index < 50_000 else ("test", index - 50_000)
        start, end = held[f"{part}_offsets"][i : i + 2]
        images[row] = np.asarray(Image.open(io.BytesIO(held[f"{part}_jpeg"][start:end].tobytes())).convert("RGB"))
    splits = {name: np.flatnonzero(of_split[chosen] == i) for i, name in enumerate(("train", "validation", "test"))}
    classes = tuple(str(name) for name in held["classes"])
    preprocess = Preprocess.named((32, 32), "imagenet")
    return Dataset("CIFAR-10 (JPEG)", images, labels[chosen], classes, splits, preprocess)


def _existing(path: Path) -> Path:
    if not path.is_file():
        sys.exit(f"error: there is no {path}; this benchmark needs the images and weights of shared/data")
    return path
