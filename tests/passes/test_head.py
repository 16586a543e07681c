"""Pass ``head``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.errors import PassError
from netcut_fx.graph import TracedModule
from netcut_fx.passes import CutPass, HeadPass, cut_nodes, head_module, weightless
from netcut_fx.passes.head import pool, pooled_width
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from tests.passes.comparing import assert_equal, assert_near, lively, results
from tests.zoo import ZOO


class Wide(nn.Module):
    """Returns one tensor of each rank."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.conv(x)
        return y, y.flatten(2).transpose(1, 2), y.mean((2, 3))


def wide() -> TracedModule:
    return trace(Wide(), torch.zeros(2, 3, 6, 6))


def trunk() -> TracedModule:
    """Convolution and batch-norm."""
    return trace(lively(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), torch.zeros(2, 3, 6, 6), name="trunk")


def test_golden(golden: Callable[[str, str], None]) -> None:
    golden("head_before", to_text(wide()))
    golden("head_after", to_text(HeadPass(classes=5, hidden=(8, 6))(wide())))


def test_every_rank_is_pooled_and_joined() -> None:
    traced = wide()
    after = HeadPass(classes=0, kind="none")(traced)
    x = (torch.randn(3, 3, 6, 6),)
    image, tokens, vector = results(traced, x)
    assert pooled_width(traced) == 12
    expected = torch.cat([image.mean((2, 3)), tokens.mean(1), vector], 1)
    assert_equal(results(after, x), [expected])
    assert_equal([torch.cat([pool(t) for t in (image, tokens, vector)], 1)], [expected])
    assert not dict(after.graph_module.named_parameters()).keys() - {"conv.weight", "conv.bias"}


@pytest.mark.parametrize(("kind", "layers"), [("netcut", ["fc1", "relu1", "fc2", "relu2", "fc3"]), ("linear", ["fc1"])])
def test_a_head_trained_on_pooled_features_can_be_put_in_place(kind: str, layers: list[str]) -> None:
    traced = trunk()
    alone = head_module(4, 3, kind, (8, 6), seed=9)  # type: ignore[arg-type]
    assert [name for name, _ in alone.named_children()] == layers
    after = HeadPass(classes=3, kind=kind, hidden=(8, 6), seed=0)(traced)  # type: ignore[arg-type]
    head = after.graph_module.head
    assert isinstance(head, nn.Module)
    head.load_state_dict(alone.state_dict())
    x = (torch.randn(5, 3, 6, 6),)
    with torch.no_grad():
        expected = alone(results(traced, x)[0].mean((2, 3)))
    assert_near(results(after, x), [expected], relative=1e-6)


def test_seed_decides_and_the_global_state_stays() -> None:
    traced, before = trunk(), torch.get_rng_state()
    one, same, other = (head_module(4, 3, seed=seed) for seed in (1, 1, 2))
    in_place = HeadPass(classes=3, seed=1)(traced).graph_module.head
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(in_place, nn.Module)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
        assert torch.equal(value, in_place.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])
        assert float(value.abs().max()) <= 1 / 2  # 1 / sqrt(fan_in), as torch draws them; smallest fan-in is 4


@pytest.mark.parametrize("name", ZOO)
def test_gradients_flow_through_cut_and_head(name: str) -> None:
    model, inputs = ZOO[name]()
    traced = trace(model, inputs)
    state = traced.state_hash()
    weighted = [n for n in traced.nodes if n.op == "call_module" and "conv" in str(n.target)]
    end = weighted[-1] if weighted else next(n for n in traced.nodes if n.op == "call_module")
    after = HeadPass(classes=3)(cut_nodes(traced, [end.name])).graph_module
    loss = nn.functional.cross_entropy(after(*inputs), torch.tensor([0, 2] * len(inputs[0]))[: len(inputs[0])])
    loss.backward()
    assert loss.isfinite()
    for key, parameter in after.named_parameters():
        assert parameter.grad is not None, key
    assert any(
        float(p.grad.abs().sum()) > 0
        for k, p in after.named_parameters()
        if not k.startswith("head") and p.grad is not None
    )
    assert traced.state_hash() == state


def test_without_weights() -> None:
    after = HeadPass(classes=3)(weightless(trunk()))
    assert to_text(after) == to_text(HeadPass(classes=3)(trunk()))
    assert all(p.is_meta for p in after.graph_module.parameters())


def test_a_kept_module_called_head_makes_room() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.ModuleDict({"pool": nn.AvgPool2d(2), "conv": nn.Conv2d(3, 4, 1), "fc": nn.Conv2d(4, 2, 1)})

        def forward(self, x: Tensor) -> Tensor:
            return self.head["fc"](self.head["conv"](self.head["pool"](x)))

    traced = trace(Named(), torch.zeros(2, 3, 6, 6))
    trimmed = CutPass(at="head.conv")(traced)
    after = HeadPass(classes=3, kind="linear")(trimmed)
    assert [node.meta["qualname"] for node in after.nodes] == [
        "x",
        "head.pool",
        "head.conv",
        "head.pool#2",
        "head.fc1",
        "output",
    ]
    assert {name.split(".")[0] for name in after.graph_module.state_dict()} == {"trunk_head", "head"}
    x = (torch.randn(2, 3, 6, 6),)
    with torch.no_grad():
        expected = after.graph_module.head.fc1(results(trimmed, x)[0].mean((2, 3)))  # type: ignore[union-attr,operator]
    assert_equal(results(after, x), [expected])


def test_two_heads_are_refused() -> None:
    after = HeadPass(classes=3)(trunk())
    with pytest.raises(PassError) as error:
        HeadPass(classes=3)(after)
    assert str(error.value) == "trunk already has a head, at head.pool; cut in front of it to add another"


def test_what_is_no_feature_is_refused() -> None:
    class Index(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax(1)

    with pytest.raises(PassError) as error:
        HeadPass(classes=3)(trace(Index(), torch.zeros(2, 3, 6, 6)))
    assert str(error.value) == (
        "cannot put a head on Index: it returns int64[2, 6, 6], not a floating-point tensor of 2 to 5 dimensions; "
        "cut it at a frontier that carries features"
    )


def test_options_are_checked() -> None:
    with pytest.raises(PassError, match=r"^head with classes=1 cannot classify; give at least 2 classes$"):
        head_module(4, 1)
    with pytest.raises(PassError, match=r"^head kind 'big' is unknown; use one of netcut, linear, none$"):
        HeadPass(classes=2, kind="big")  # type: ignore[arg-type]
