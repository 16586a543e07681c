"""Where blocks end: the zoo, and networks whose block counts are published."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.frontier import deepest_frontier, frontiers
from netcut_fx.graph import TensorSpec
from netcut_fx.model_spec import load_model
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
    "two_outputs": {"stem": 1, "body": 1, "boxes.0": 2, "classes": 2, "boxes.1": 2},
    "dict_output": {"stem": 1, "body": 1, "boxes.0": 2, "classes": 2, "boxes.1": 2},
    "two_inputs": {"relu": 2, "stem": 2, "body": 2, "relu#2": 1},
    "dead_branch": {"stem": 1, "body": 1},
    "transformer": {"blocks.0": 1, "blocks.1": 1},
    "windows": {"stage1.0": 1, "merge": 1, "stage2.0": 1},
    "sequence": {"stem": 1, "relu1": 1, "mix2": 2},
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


def test_one_layer_alone_in_a_module_gives_the_block_its_name() -> None:
    """A flat list of layer modules: depthwise and pointwise convolutions in turn are blocks in pairs."""

    class Layer(nn.Module):
        def __init__(self, depthwise: bool) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3 if depthwise else 1, padding=int(depthwise), groups=8 if depthwise else 1)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.conv(nn.functional.pad(x, (0, 0, 0, 0))))

    class Flat(nn.Module):
        def __init__(self, pairs: int) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.layers = nn.Sequential(*[Layer(i % 2 == 0) for i in range(2 * pairs)])
            self.fc = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.layers(self.stem(x)).mean((2, 3)))

    assert [f.name for f in frontiers(trace(Flat(3), image()))] == ["layers.1", "layers.3", "layers.5"]
    assert [f.name for f in frontiers(trace(Flat(1), image()))] == ["stem", "layers.0", "layers.1"]


def test_a_block_written_out_in_the_stem_counts() -> None:
    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.depthwise, self.reduce = (
                nn.Conv2d(3, 8, 3, padding=1),
                nn.Conv2d(8, 8, 3, padding=1, groups=8),
                nn.Conv2d(8, 8, 1),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.reduce(self.depthwise(self.first(x)))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = Stem()
            self.blocks = ZOO["inverted_residual"]()[0].blocks
            self.fc = nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.blocks(self.stem(x)).mean((2, 3)))

    found = [f.name for f in frontiers(trace(Network(), image()))]
    assert found == ["stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3"]


#: Blocks of torchvision's networks with their greatest width: counted by hand in the papers' tables of stages.
TORCHVISION = {
    "alexnet": (7, 1),
    "convnext_base": (39, 1),
    "convnext_tiny": (21, 1),
    "densenet121": (61, 24),
    "efficientnet_b0": (16, 1),
    "googlenet": (9, 1),
    "inception_v3": (11, 1),
    "maxvit_t": (33, 1),
    "mnasnet1_0": (16, 1),
    "mobilenet_v2": (17, 1),
    "mobilenet_v3_large": (15, 1),
    "mobilenet_v3_small": (11, 1),
    "regnet_y_400mf": (16, 1),
    "resnet18": (8, 1),
    "resnet50": (16, 1),
    "shufflenet_v2_x1_0": (16, 1),
    "squeezenet1_1": (8, 1),
    "swin_t": (15, 1),
    "vgg16": (15, 1),
    "vit_b_16": (12, 1),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_blocks(name: str) -> None:
    """As NetCut has them (DOI 10.23919/DATE51398.2021.9474052): MobileNetV2, InceptionV3, ResNet-50, DenseNet-121.

    A MaxViT layer is three blocks: a convolution, attention within windows, attention across them.
    """
    more = "&init_weights=false" if name in ("googlenet", "inception_v3") else ""
    model = load_model(f"torchvision.models:{name}?weights=none{more}")
    size = 224 if name in ("vit_b_16", "maxvit_t") else 96
    found = frontiers(trace(model, torch.zeros(1, 3, size, size)), max_width=64)
    assert (len(found), max(f.width for f in found)) == TORCHVISION[name]


#: Blocks of transformers' networks, here with few channels; depths are those of the configurations.
TRANSFORMERS = {
    "ViT": ({"num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}, 3),
    "Swin": ({"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}, 5),
    "ResNet": ({"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 3]}, 5),
    "RegNet": ({"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 3], "groups_width": 8}, 4),
    "ConvNext": ({"hidden_sizes": [8, 16], "depths": [2, 2], "num_stages": 2}, 5),
    "MobileNetV1": ({"depth_multiplier": 0.25}, 13),
    "MobileNetV2": ({"depth_multiplier": 0.35}, 17),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_blocks(name: str) -> None:
    transformers: Any = pytest.importorskip("transformers")
    options, count = TRANSFORMERS[name]
    model = getattr(transformers, f"{name}ForImageClassification")(
        getattr(transformers, f"{name}Config")(image_size=64, **options)
    )
    found = frontiers(trace(model, torch.zeros(1, 3, 64, 64)))
    assert len(found) == count
