"""The networks that the benchmarks cut: torchvision's, transformers' and NetCut's seven, all with random weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from netcut_fx.torchvision_operators import declare_missing_operators, is_missing_operator

#: Image classifiers of transformers that are left out, and why.
NOT_TAKEN = {
    "dinat": "needs the natten library",
    "imagegpt": "reads colour tokens, not an image",
    "perceiver": "its default latents alone hold 200 million parameters",
    "shieldgemma2": "a language model of 2.7 billion parameters",
    "siglip2": "reads patches and their grid, not an image",
    "timm_wrapper": "wraps networks of the timm library",
}


#: Networks with so many parameters get images of half the size: what is asked of them does not depend on it.
LARGE = 60_000_000


@dataclass(frozen=True)
class Network:
    """How to make one network, and what it takes.

    Parameters
    ----------
    name, source : str
        What it is called, and in which package.
    make : callable
        Gives the module.
    size : int
        Height and width of its input.
    parameters : int
        How many its source says it has; 0 if it does not say.
    """

    name: str
    source: str
    make: Callable[[], nn.Module]
    size: int = 224
    parameters: int = 0

    def build(self) -> nn.Module:
        """The network in eval mode; the same weights every time."""
        torch.manual_seed(0)
        return self.make().eval()

    def image(self, batch: int = 1) -> Tensor:
        """Random input."""
        return torch.randn(batch, 3, self.size, self.size, generator=torch.Generator().manual_seed(1))


def torchvision_module(name: str) -> Any:
    """Import a module of torchvision, beside a build of torch that its own operators do not load with."""
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if not is_missing_operator(error):
            raise
        declare_missing_operators()
        return importlib.import_module(name)


def torchvision_networks() -> list[Network]:
    """Every classification network of torchvision; from `LARGE` parameters on, for small images."""
    models = torchvision_module("torchvision.models")
    return [_torchvision_network(models, name) for name in models.list_models(module=models)]


def _torchvision_network(models: Any, name: str) -> Network:
    parameters = models.get_model_weights(name).DEFAULT.meta["num_params"]
    size = 299 if name == "inception_v3" else 224 if parameters < LARGE else 112
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # Their default initialisation draws from a truncated normal distribution by scipy, which takes a minute.
        options["init_weights"] = False
    if name.startswith("vit"):
        size = size if size % 32 == 0 or not name.endswith("32") else 96
        options["image_size"] = size
    return Network(name, "torchvision", partial(models.get_model, name, weights=None, **options), size, parameters)


def transformers_networks(only: str | None = None) -> list[Network]:
    """The image classifiers of transformers, each in its default configuration, but those of `NOT_TAKEN`.

    With `only` no other network than that one is imported.
    """
    torchvision_module("torchvision")
    names: dict[str, Any] = importlib.import_module(
        "transformers.models.auto.modeling_auto"
    ).MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    found: list[Network] = []
    for kind, classes in names.items():
        name = classes[0] if isinstance(classes, (tuple, list)) else classes
        if kind not in NOT_TAKEN and only in (None, name.removesuffix("ForImageClassification")):
            make = getattr(importlib.import_module("transformers"), name)
            size = getattr(make.config_class(), "image_size", 224)
            # EfficientNet's default is B7, meant for 600 x 600: the graph is the same at 224.
            size = size if isinstance(size, int) and size <= 384 else 224
            found.append(Network(name.removesuffix("ForImageClassification"), "transformers", partial(_of, make), size))
    return found


def netcut_networks() -> list[Network]:
    """The seven networks of NetCut's study (DOI 10.23919/DATE51398.2021.9474052)."""
    models = torchvision_module("torchvision.models")
    return [
        Network("MobileNetV1 x0.25", "netcut", partial(MobileNetV1, 0.25)),
        Network("MobileNetV1 x0.5", "netcut", partial(MobileNetV1, 0.5)),
        Network("MobileNetV2 x1.0", "netcut", partial(models.mobilenet_v2, weights=None)),
        Network("MobileNetV2 x1.4", "netcut", partial(models.mobilenet_v2, weights=None, width_mult=1.4)),
        Network("InceptionV3", "netcut", partial(models.inception_v3, weights=None, init_weights=False), 299),
        Network("ResNet-50", "netcut", partial(models.resnet50, weights=None)),
        Network("DenseNet-121", "netcut", partial(models.densenet121, weights=None)),
    ]


def _of(make: Any) -> nn.Module:
    return make(make.config_class())


class MobileNetV1(nn.Module):
    """Howard et al., arXiv 1704.04861: a convolution, then 13 pairs of a depthwise and a pointwise one."""

    _PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))

    def __init__(self, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        channels = int(32 * width)
        layers = [_convolution(3, channels, 3, 2)]
        for full, stride in self._PAIRS:
            wide = int(full * width)
            depthwise = _convolution(channels, channels, 3, stride, channels)
            layers.append(nn.Sequential(depthwise, _convolution(channels, wide, 1)))
            channels = wide
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


def _convolution(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU6())
