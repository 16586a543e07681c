"""The pipeline in front of every compiler, on real and on random networks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from netcut_fx.graph import TracedModule
from netcut_fx.passes import prepare_pipeline, weightless
from netcut_fx.passes.rewriting import origin
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from tests.passes.comparing import assert_near, lively, results
from tests.zoo import ZOO


def functions_and_methods(traced: TracedModule) -> set[str]:
    """Short names of the operations that are no module calls."""
    nodes = [node for node in traced.nodes if node.op in ("call_function", "call_method")]
    return {str(getattr(node.target, "__name__", node.target)) for node in nodes}


def module_types(traced: TracedModule) -> set[str]:
    """Type names of the modules that are called."""
    called = [traced.graph_module.get_submodule(str(n.target)) for n in traced.nodes if n.op == "call_module"]
    return {type(module).__name__ for module in called}


@pytest.fixture(scope="module")
def efficientnet() -> TracedModule:
    """EfficientNet-Lite0 at 96x96 with lively batch-norms."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    model = lively(package.EfficientNet.from_name("efficientnet-lite0"))
    return trace(model, torch.zeros(1, 3, 96, 96))


def test_efficientnet_lite0(efficientnet: TracedModule) -> None:
    prepared = prepare_pipeline()(efficientnet)
    assert module_types(efficientnet) >= {"BatchNorm2d", "ZeroPad2d", "Dropout"}
    assert module_types(prepared) == {"ReLU6", "ZeroPad2d", "AdaptiveAvgPool2d", "Linear"}
    assert functions_and_methods(efficientnet) == {"conv2d", "add", "size", "view"}
    assert functions_and_methods(prepared) == {"conv2d", "add", "flatten"}
    # Stride two pads one side only, which no convolution of torch does by itself.
    left = [node.meta["spec"].shape[-1] for node in prepared.nodes if "static_padding" in str(node.target)]
    assert left == [97, 49, 27, 13, 9]
    x = (torch.randn(3, 3, 96, 96),)
    assert_near(results(prepared, x), results(efficientnet, x))
    assert not [name for name in prepared.graph_module.state_dict() if "bn" in name]


def test_efficientnet_lite0_without_weights(efficientnet: TracedModule) -> None:
    prepared = prepare_pipeline()(weightless(efficientnet))
    assert to_text(prepared) == to_text(prepare_pipeline()(efficientnet))
    assert all(parameter.is_meta for parameter in prepared.graph_module.parameters())


def test_every_source_node_that_computes_is_accounted_for(efficientnet: TracedModule) -> None:
    prepared = prepare_pipeline()(efficientnet)
    taken = [name for node in prepared.nodes for name in origin(node)]
    assert len(taken) == len(set(taken))
    lost = {n.meta["qualname"] for n in efficientnet.nodes} - set(taken)
    assert lost == {"size"}


@pytest.mark.parametrize("name", ZOO)
def test_zoo_computes_the_same(name: str) -> None:
    model, inputs = ZOO[name]()
    traced = trace(model, inputs)
    prepared = prepare_pipeline()(traced)
    assert_near(results(prepared, inputs), results(traced, inputs))
    larger = tuple(torch.randn(3, *x.shape[1:]) for x in inputs)
    assert_near(results(prepared, larger), results(traced, larger))
    assert to_text(prepare_pipeline()(weightless(traced))) == to_text(prepared)


@dataclass(frozen=True)
class Step:
    """One layer of a random network."""

    kind: str
    channels: int
    groups: int
    kernel: int
    stride: int
    shared: bool


class RandomCnn(nn.Module):
    """A chain of random layers in which steps may add or concatenate what came before, or use a layer again."""

    def __init__(self, steps: list[Step], channels: int = 4) -> None:
        super().__init__()
        self.steps, self.layers = steps, nn.ModuleList()
        for step in steps:
            layer: nn.Module = nn.Identity()
            if step.kind in ("conv", "functional"):
                groups = step.groups if channels % step.groups == step.channels % step.groups == 0 else 1
                layer = nn.Conv2d(channels, step.channels, step.kernel, step.stride, groups=groups, bias=step.shared)
                channels = step.channels
            elif step.kind == "norm":
                layer = nn.BatchNorm2d(channels, affine=step.shared)
            elif step.kind == "relu":
                layer = nn.ReLU(inplace=step.shared)
            elif step.kind == "pad":
                layer = nn.ZeroPad2d(step.kernel - 1)
            elif step.kind == "drop":
                layer = nn.Dropout()
            elif step.kind == "cat":
                channels *= 2
            self.layers.append(layer)
        self.fc = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        for step, layer in zip(self.steps, self.layers, strict=True):
            before = x
            if step.kind == "functional":
                x = functional.conv2d(
                    functional.pad(x, (2, 2, 2, 2)), layer.weight, layer.bias, step.stride, groups=layer.groups
                )
            elif step.kind == "conv":
                x = layer(functional.pad(x, (2, 2, 2, 2)))
                x = layer(x) if step.shared and layer.out_channels == layer.in_channels and step.kernel == 1 else x
            elif step.kind == "add":
                x = x + before * 0.5
            elif step.kind == "cat":
                x = torch.cat([x, before.clone()], 1)
            elif step.kind == "write":
                x.add_(0.25)
            elif step.kind == "shape":
                x = x.view(x.size(0), x.shape[1], -1).contiguous().view(before.shape)
            else:
                x = layer(x)
        x = functional.adaptive_avg_pool2d(x, 1)
        return self.fc(x.view(x.size(0), -1))


KINDS = ["conv", "functional", "norm", "norm", "relu", "pad", "drop", "add", "cat", "write", "shape"]
STEPS = st.lists(
    st.builds(
        Step,
        kind=st.sampled_from(KINDS),
        channels=st.sampled_from([4, 6]),
        groups=st.sampled_from([1, 2]),
        kernel=st.integers(1, 3),
        stride=st.integers(1, 2),
        shared=st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@given(steps=STEPS)
def test_random_networks_compute_the_same(steps: list[Step]) -> None:
    torch.manual_seed(len(steps))
    traced = trace(lively(RandomCnn(steps)), torch.zeros(2, 4, 9, 9))
    state = traced.state_hash()
    prepared = prepare_pipeline()(traced)
    for batch in (2, 3):
        x = (torch.randn(batch, 4, 9, 9),)
        assert_near(results(prepared, x), results(traced, x))
    assert traced.state_hash() == state
