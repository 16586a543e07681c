"""Tiny variants of networks of torchvision, for ``(2, 3, 32, 32)``."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import nn

from netcut_fx.torchvision_operators import declare_missing_operators, is_missing_operator
from tests.zoo import CLASSES

TORCHVISION: dict[str, dict[str, Any]] = {
    "VisionTransformer": {
        "image_size": 32,
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 16,
        "mlp_dim": 32,
    },
    "SwinTransformer": {
        "patch_size": [4, 4],
        "embed_dim": 8,
        "depths": [2, 2],
        "num_heads": [1, 2],
        "window_size": [4, 4],
    },
}


def torchvision_network(name: str) -> nn.Module:
    """A network of `TORCHVISION`; skips the test where torchvision is not installed."""
    try:
        pytest.importorskip("torchvision")
    except RuntimeError as error:
        if not is_missing_operator(error):
            raise
        declare_missing_operators()
    models = importlib.import_module("torchvision.models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(models, name)(**TORCHVISION[name], num_classes=CLASSES).eval()
