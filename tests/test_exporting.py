"""Networks that torch.fx cannot follow: those of transformers, and torch's own transformer layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import netcut_fx
from netcut_fx.kernels import kernels
from netcut_fx.passes import copy_traced, prepare_pipeline, weightless
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from netcut_fx.verify import check, check_no_shared_storage
from tests.transformers_zoo import CONFIGS, transformers_network

#: Those whose training is without anything random.
CERTAIN = {"ResNet", "RegNet", "Levit"}
#: Those that are prepared for the compiler as well, one of each kind.
PREPARED = {"ViT", "Swin", "ConvNextV2", "EfficientNet"}
#: Those that torch.fx can follow too.
BY_FX = {"Cvt", "EfficientNet", "MobileViTV2", "PoolFormer"}


@pytest.mark.parametrize("name", CONFIGS)
def test_library_models(name: str) -> None:
    model, example = transformers_network(name), torch.randn(1, 3, 64, 64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    traced = trace(model, example, via="export")
    assert traced.traced_by == copy_traced(traced).traced_by == "export"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [node.target for node in traced.inputs] == ["pixel_values"]
    check(traced)
    network = traced.graph_module
    with torch.no_grad():
        for batch in (1, 3):
            x = torch.randn(batch, 3, 64, 64)
            assert torch.equal(network(x)["logits"], model(x).logits)
    trains_like(model, copy.deepcopy(network), random=name not in CERTAIN)
    frontiers = netcut_fx.frontiers(traced)
    trimmed = netcut_fx.cut(traced, frontiers[len(frontiers) // 2], head=netcut_fx.HeadPass(10))
    assert trimmed.traced_by == "export"
    assert trimmed.graph_module(x).shape == (3, 10)
    check_no_shared_storage(traced, trimmed)
    if name not in PREPARED:
        return
    assert kernels(trimmed)
    check(weightless(trimmed))
    prepared = prepare_pipeline()(trimmed)
    assert torch.allclose(prepared.graph_module(x), trimmed.graph_module(x), atol=1e-4)
    again = torch.export.export(prepared.graph_module, (x,))
    assert torch.allclose(again.module()(x), trimmed.graph_module(x), atol=1e-4)


@pytest.mark.parametrize("name", sorted({*BY_FX, "ViT"}))
def test_either_tracer(name: str) -> None:
    model, x = transformers_network(name), torch.randn(2, 3, 64, 64)
    traced = trace(model, x)
    assert traced.traced_by == ("fx" if name in BY_FX else "export")
    assert torch.equal(traced.graph_module(x)["logits"], model(x).logits)
    trains_like(model, traced.graph_module, random=True)


def trains_like(model: nn.Module, network: nn.Module, *, random: bool) -> None:
    """Same seed, same output, same statistics, same gradients."""
    x = torch.randn(4, 3, 64, 64)
    resting = model(x).logits
    model.train(), network.train()
    torch.manual_seed(7)
    expected = model(x).logits
    torch.manual_seed(7)
    found = network(x)["logits"]
    assert torch.equal(found, expected)
    if random:
        assert not torch.equal(expected, resting)
    expected.square().sum().backward()
    found.square().sum().backward()
    source = dict(model.named_parameters())
    for key, parameter in network.named_parameters():
        gradient = source[key].grad
        assert (gradient is None) == (parameter.grad is None)
        assert gradient is None or parameter.grad is None or torch.allclose(gradient, parameter.grad, atol=1e-5)
    for key, buffer in network.named_buffers():
        if key in dict(model.named_buffers()):
            assert torch.equal(buffer, model.get_buffer(key))
    model.eval()


def test_blocks_are_found() -> None:
    traced = trace(transformers_network("ViT"), torch.randn(1, 3, 64, 64))
    names = [frontier.name for frontier in netcut_fx.frontiers(traced)]
    assert {"vit.layers.0", "vit.layers.1"} <= {*names}
    stack = traced.by_qualname["vit.layers.0.attention.scaled_dot_product_attention"].meta["nn_module_stack"]
    assert [path for path, _ in stack.values()] == ["vit", "vit.layers.0", "vit.layers.0.attention"]


def test_torchs_own_transformer_layers_are_traced_through() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(3, 5, 8)
    network = trace(model, x).graph_module
    assert torch.equal(network(x[:2]), model(x[:2]))
    torch.manual_seed(1)
    expected = model.train()(x)
    torch.manual_seed(1)
    assert torch.equal(network.train()(x), expected)


class Writing(nn.Module):
    """Fills a new tensor part by part; adds a mask made of numbers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        made = torch.zeros(x.shape[0], 4)
        for i in range(int(x.shape[1])):
            made[:, i] = self.fc(x)[:, i] * 2
        mask = torch.ones(4)
        mask[0] = 5
        return made + mask


def test_constants_are_computed_once_and_the_rest_each_time() -> None:
    model = Writing()
    traced = trace(model, torch.randn(2, 4), via="export")
    for batch in (1, 2, 5):
        x = torch.randn(batch, 4)
        assert torch.equal(traced.graph_module(x), model(x))
        assert torch.equal(traced.graph_module(x), model(x))
    text = to_text(traced)
    assert "_tensor_constant0 = weight _tensor_constant0 -> float32[4]" in text
    assert "ones" not in text
    empty = weightless(traced)
    check(empty)


def test_a_batch_size_that_is_written_into_the_model() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not isinstance(x.sum(), Tensor) or x.shape[0] != 2:
                raise ValueError("two images, please")
            return x.view(2, -1) * 2

    traced = trace(Fixed(), torch.randn(2, 3, 3), via="export")
    x = torch.randn(2, 3, 3)
    assert torch.equal(traced.graph_module(x), x.view(2, 9) * 2)
