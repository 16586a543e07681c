"""Tiny variants of transformers' image classifiers, for ``(N, 3, 64, 64)``, with everything random switched on."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from netcut_fx.torchvision_operators import declare_missing_operators

DROPS = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1]}
SWIN = {
    "image_size": 64,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "window_size": 4,
    "drop_path_rate": 0.2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "ViT": {**VIT, **DROPS, "intermediate_size": 32},
    "DeiT": {**VIT, **DROPS, "intermediate_size": 32},
    "Beit": {**VIT, **DROPS, "intermediate_size": 32, "drop_path_rate": 0.2},
    "Dinov2": {**VIT, **DROPS, "drop_path_rate": 0.2},
    "Swin": {**SWIN, **DROPS},
    "Swinv2": {**SWIN, **DROPS},
    "ConvNext": {**STAGES, "drop_path_rate": 0.2},
    "ConvNextV2": {**STAGES, "drop_path_rate": 0.2},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2]},
    "RegNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "groups_width": 4},
    "Bit": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_groups": 4, "drop_path_rate": 0.2},
    "MobileNetV1": {"image_size": 64, "depth_multiplier": 0.25},
    "MobileNetV2": {"image_size": 64, "depth_multiplier": 0.35},
    "EfficientNet": {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
    "MobileViT": {
        "image_size": 64,
        "hidden_sizes": [16, 16, 16],
        "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16],
        "num_attention_heads": 2,
        **DROPS,
    },
    "MobileViTV2": {"image_size": 64, "width_multiplier": 0.25, "ffn_dropout": 0.1, "attn_dropout": 0.1},
    "Pvt": {"image_size": 64, **STAGES, "num_attention_heads": [1, 2, 2, 2], "drop_path_rate": 0.2, **DROPS},
    "Segformer": {"image_size": 64, **STAGES, "num_attention_heads": [1, 2, 2, 2], "decoder_hidden_size": 8, **DROPS},
    "PoolFormer": {**STAGES, "drop_path_rate": 0.2},
    "Levit": {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1]},
    "Cvt": {
        "embed_dim": [8, 16, 16],
        "num_heads": [1, 2, 2],
        "depth": [1, 2, 3],
        "drop_rate": [0.1, 0.1, 0.1],
        "attention_drop_rate": [0.1, 0.1, 0.1],
    },
}


def transformers_network(name: str) -> nn.Module:
    """A network of `CONFIGS`; skips the test where transformers is not installed."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        declare_missing_operators()
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, f"{name}ForImageClassification")
    model = kind(kind.config_class(**CONFIGS[name]))
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return model.eval()
