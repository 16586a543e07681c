"""Where blocks end: the zoo, and networks whose block counts are published."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.frontier import deepest_frontier, frontiers
from netcut_fx.graph import TensorSpec
from netcut_fx.tracing import trace
from tests.zoo import ZOO, image, traced_zoo

#: Block frontiers of the zoo with their widths.
BLOCKS = {
    "plain_chain": {"relu1": 1, "relu2": 1, "relu3": 1, "relu4": 1},
    "residual": {"layer1.0": 1, "layer1.1": 1, "layer2.0": 1, "layer2.1": 1},
    "residual_inplace": {"layer1.0": 1, "layer1.1": 1, "layer2.0": 1, "layer2.1": 1},
    "inverted_residual": {"blocks.0": 1, "blocks.1": 1, "blocks.2": 1, "blocks.3": 1},
    "dense": {
        "block1.denselayer1": 2,
        "block1.denselayer2": 3,
        "block1": 1,
        "transition": 1,
        "block2.denselayer1": 2,
        "block2": 1,
    },
    "inception": {"mixed1": 1, "mixed2": 1},
    "squeeze_excite": {"blocks.0": 1, "blocks.1": 1},
    "inplace_relu": {"relu1": 1, "relu": 1},
    "functional": {"relu6": 1, "mul": 1},
    "two_outputs": {"stem.2": 1, "body.2": 1, "boxes.0.2": 2, "classes.fc": 2, "boxes.1": 2},
    "dict_output": {"stem.2": 1, "body.2": 1, "boxes.0.2": 2, "classes.fc": 2, "boxes.1": 2},
    "two_inputs": {"relu": 2, "stem.2": 2, "body.2": 2, "relu#2": 1},
    "dead_branch": {"stem.2": 1, "body.2": 1},
    "transformer": {"blocks.0": 1, "blocks.1": 1},
}


@pytest.mark.parametrize("name", ZOO)
def test_blocks_of_the_zoo(name: str) -> None:
    assert {f.name: f.width for f in frontiers(traced_zoo(name), max_width=8)} == BLOCKS[name]


def test_a_module_called_twice_is_two_blocks() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.block = ZOO["residual"]()[0].layer1[0]
            self.fc = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.block(self.block(self.stem(x))).mean((2, 3)))

    assert [f.name for f in frontiers(trace(Recurrent(), image()))] == ["block", "block#2"]


def test_efficientnet_lite0_has_16_blocks() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    traced = trace(EfficientNet.from_name("efficientnet-lite0"), torch.zeros(1, 3, 96, 96))
    found = frontiers(traced)
    assert [f.name for f in found] == [f"_blocks.{k}" for k in range(16)]
    assert all(f.width == 1 and f.granularity == "block" for f in found)
    assert found[-1].specs == (TensorSpec((1, 320, 3, 3), torch.float32),)
    assert found[4].nodes == (traced.by_qualname["_blocks.4.add"].name,)
    assert deepest_frontier(traced).name == "_dropout"


@pytest.mark.parametrize(
    ("name", "count"), [("MobileNetV1", 13), ("MobileNetV2", 17), ("SqueezeNet11", 8), ("ResNet8", 3)]
)
def test_blocks_of_plain_definitions(name: str, count: int) -> None:
    folder = Path(os.environ.get("NETCUT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    file = folder / "nets.py"
    if not file.exists():
        pytest.skip(f"{file} is missing")
    spec = importlib.util.spec_from_file_location("nets", file)
    assert spec is not None
    assert spec.loader is not None
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    assert len(frontiers(trace(getattr(nets, name)(), torch.zeros(1, 3, 64, 64)))) == count


@pytest.mark.parametrize(
    ("name", "count", "width"),
    [("resnet50", 16, 1), ("mobilenet_v2", 17, 1), ("inception_v3", 11, 1), ("densenet121", 61, 24)],
)
def test_published_block_counts(name: str, count: int, width: int) -> None:
    """NetCut, DOI 10.23919/DATE51398.2021.9474052: trimmed networks per network."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    from netcut_fx.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    from torchvision import models

    options = {"init_weights": False} if name == "inception_v3" else {}
    model = getattr(models, name)(weights=None, **options)
    found = frontiers(trace(model, torch.zeros(1, 3, 96, 96)), max_width=64)
    assert len(found) == count
    assert max(f.width for f in found) == width
