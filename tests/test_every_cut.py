"""Every block frontier of networks of all kinds, cut: exact, learning, and taken by the real compiler."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.exactness import cut_row, exports
from netcut_fx.cutting import cut
from netcut_fx.frontier import frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.model_spec import load_model
from netcut_fx.passes.head import HeadPass
from netcut_fx.tracing import trace
from tests.torchvision_zoo import TORCHVISION, torchvision_network
from tests.transformers_zoo import CONFIGS, transformers_network

#: Of torchvision those whose blocks differ in kind, with random weights.
WHOLE = ("alexnet", "densenet121", "efficientnet_b0", "googlenet", "mobilenet_v3_small", "regnet_y_400mf", "resnet18")
WHOLE += ("shufflenet_v2_x0_5", "squeezenet1_1")

NETWORKS = [
    *(("torchvision", name, 96) for name in WHOLE),
    *(("torchvision", name, 32) for name in TORCHVISION),
    *(("transformers", name, 64) for name in CONFIGS),
]


def built(source: str, name: str, size: int, batch: int = 2) -> tuple[Any, TracedModule, torch.Tensor]:
    if source == "transformers":
        torch.manual_seed(0)
        model = transformers_network(name)
    elif name in TORCHVISION:
        model = torchvision_network(name)
    else:
        if importlib.util.find_spec("torchvision") is None:
            pytest.skip("torchvision is not installed")
        more = "&init_weights=false" if name == "googlenet" else ""
        model = load_model(f"torchvision.models:{name}?weights=none{more}")
    image = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    return model, trace(model, image, name=name), image


@pytest.mark.parametrize(("source", "name", "size"), NETWORKS)
def test_every_cut_is_the_source_up_to_there_and_can_learn(source: str, name: str, size: int) -> None:
    model, traced, image = built(source, name, size)
    before = traced.state_hash()
    found = frontiers(traced, max_width=100)
    row, _ = cut_row(model, traced, found, image)
    assert row["exact"], row
    assert row["gradients"], row
    assert row["cuts"] == len(found) >= 2
    assert exports(traced, found[len(found) // 2], image)
    assert traced.state_hash() == before


@pytest.mark.parametrize(
    ("source", "name", "size"),
    [
        ("torchvision", "VisionTransformer", 32),
        ("torchvision", "SwinTransformer", 32),
        ("torchvision", "shufflenet_v2_x0_5", 96),
        ("transformers", "ViT", 64),
        ("transformers", "Swin", 64),
        ("transformers", "ConvNextV2", 64),
        ("transformers", "MobileViT", 64),
        ("transformers", "RegNet", 64),
    ],
)
def test_a_cut_compiles_and_answers_as_torch_does(source: str, name: str, size: int) -> None:
    pytest.importorskip("tvm")
    from netcut_fx.backends.tvm import TvmBackend

    _, traced, image = built(source, name, size, batch=1)
    trn = cut(traced, frontiers(traced)[-1], head=HeadPass(10))
    with torch.no_grad():
        expected = trn.graph_module(image).numpy()
    answer = TvmBackend().compile(trn).run(image.numpy())
    assert np.abs(answer - expected).max() <= 1e-4 * np.abs(expected).max()
