"""Networks and images of `benchmarks.lcnet_study`: CIFAR's residual networks, and MobileNetV2 for signs of hands."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.lcnet_training import Recipe
from benchmarks.study_networks import MobileNetV2
from netcut_fx.cutting import cut
from netcut_fx.data import Dataset, load_data
from netcut_fx.frontier import frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.passes.head import HeadPass
from netcut_fx.preprocess import Preprocess
from netcut_fx.splits import limited
from netcut_fx.tracing import trace
from netcut_fx.weights import load_weights

FOLDER = Path(__file__).parents[2] / "shared" / "data"
VALIDATION = 5_000
#: Layers of those whose weights there are.
_RESNETS = {"resnet20": 20, "resnet56": 56}


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


def hands(folder: Path, seed: int, limit: int | None = None) -> Dataset:
    """Signs of hands at 96x96; no student is in two splits, which `seed` decides."""
    path = _existing(folder / "signdigits.npz")
    spec = str(path) if limit is None else f"{path}?limit={limit}"
    return load_data(spec, input_size=(96, 96), normalize="half", seed=seed)


def mobilenet_v2(folder: Path, classes: int, *, at: str | None = None) -> TracedModule:
    """MobileNetV2 with weights of ImageNet and a new head; with `at` cut there."""
    model = MobileNetV2()
    load_weights(model, _existing(folder / "weights" / "tf2_mobilenet_v2_1.0_224.fp16.pt"))
    whole = trace(model, torch.zeros(1, 3, 96, 96), name="mobilenet_v2")
    return cut(whole, at or frontiers(whole)[-1].name, head=HeadPass(classes, "linear"))


@dataclass(frozen=True)
class Subject:
    """What a study is made of.

    Parameters
    ----------
    name : str
        Of the network, in rows.
    start : TracedModule
        The network, pretrained elsewhere.
    data : Dataset
        What it is fine-tuned on.
    static, further : Recipe
        How it is fine-tuned, and how everything that starts from there is trained.
    joint_lr : float
        Highest learning rate while gates choose.
    exits : tuple of str
        Where early exits stand.
    """

    name: str
    start: TracedModule
    data: Dataset
    static: Recipe
    further: Recipe
    joint_lr: float
    exits: tuple[str, ...]


def subject(name: str, folder: Path, seed: int, limit: int | None = None) -> Subject:
    """``resnet20`` or ``resnet56`` with CIFAR-10 (JPEG), or ``mobilenet_v2[@CUT]`` with hands."""
    kind, _, place = name.partition("@")
    if kind == "mobilenet_v2":
        data = hands(folder, seed, limit)
        static = Recipe(lr=5e-4, batch_size=32, adam=True, padding=8, mirrored=False, seed=seed)
        further = replace(static, distillation=0.9)
        start = mobilenet_v2(folder, data.class_count, at=place or None)
        return Subject(name, start, data, static, further, 3e-4, ("blocks.3", "blocks.6"))
    if name not in _RESNETS:
        sys.exit(f"error: no network '{name}'; give mobilenet_v2, mobilenet_v2@CUT or one of {', '.join(_RESNETS)}")
    layers = _RESNETS[name]
    further = Recipe(lr=0.04, distillation=0.9, seed=seed)
    last = (layers - 2) // 6 - 1
    exits = (f"layer1.{last}", f"layer2.{last}")
    return Subject(name, resnet(layers, folder), cifar10(folder, limit), Recipe(seed=seed), further, 0.02, exits)


def _existing(path: Path) -> Path:
    if not path.is_file():
        sys.exit(f"error: there is no {path}; this benchmark needs the images and weights of shared/data")
    return path
