"""The ten networks of `benchmarks.artefact_speed`, traced, at 224 x 224."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks.networks import MobileNetV1, torchvision_module
from netcut_fx.cutting import cut
from netcut_fx.frontier import require_frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.model_spec import load_model
from netcut_fx.passes.head import HeadPass
from netcut_fx.tracing import trace

SIZE = 224
#: Classes of the new head of a trimmed network.
_CLASSES = 10


def _torchvision(name: str) -> nn.Module:
    return torchvision_module("torchvision.models").get_model(name, weights=None)


_WHOLE: dict[str, Callable[[], nn.Module]] = {
    "MobileNetV1": MobileNetV1,
    "MobileNetV2": partial(_torchvision, "mobilenet_v2"),
    "EfficientNet-Lite0": partial(load_model, "efficientnet-lite0"),
    "SqueezeNet 1.1": partial(_torchvision, "squeezenet1_1"),
    "ResNet-18": partial(_torchvision, "resnet18"),
    "ResNet-50": partial(_torchvision, "resnet50"),
    "DenseNet-121": partial(_torchvision, "densenet121"),
}
_HALF = " half"

#: Names, in the order in which they are measured.
NAMES = (*_WHOLE, *(name + _HALF for name in ("MobileNetV2", "ResNet-50", "DenseNet-121")))


def traced_network(name: str) -> TracedModule:
    """One of `NAMES`; a half is cut in the middle of its block frontiers and has NetCut's head."""
    torch.manual_seed(0)
    whole = name.removesuffix(_HALF)
    module = _WHOLE[whole]().eval()
    _set_statistics(module)
    traced = trace(module, torch.zeros(1, 3, SIZE, SIZE), name=name)
    if name == whole:
        return traced
    found = require_frontiers(traced)
    return cut(traced, found[len(found) // 2], head=HeadPass(_CLASSES))


def _set_statistics(module: nn.Module) -> None:
    """Statistics of batch-norm that fit random weights, so that activations neither vanish nor grow with depth.

    Speed does not depend on them unless numbers become denormal; comparing answers does.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    fresh = [m for m in norms if m.running_mean is not None and not bool(m.running_mean.any())]
    for norm in fresh:
        norm.momentum = None
        norm.train()
    if fresh:
        with torch.no_grad():
            module(torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))
    module.eval()
