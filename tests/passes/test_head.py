"""Pass ``head``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.errors import PassError
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.passes import CutPass, HeadPass, cut_nodes, head_module, weightless
from netcut_fx.passes.head import pooled_width
from netcut_fx.passes.registry import format_pass, parse_pipeline
from netcut_fx.pooling import PoolOption, pool
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
    alone = [pool(image, "channels-first"), pool(tokens, "channels-last"), pool(vector, "none")]
    assert_equal([torch.cat(alone, 1)], [expected])
    assert not dict(after.graph_module.named_parameters()).keys() - {"conv.weight", "conv.bias"}


def pooled(name: str, at: str, pool: PoolOption = "auto") -> tuple[list[Tensor], list[Tensor]]:
    """What a frontier of the zoo carries, and what the head there reads."""
    model, inputs = ZOO[name]()
    trimmed = CutPass(at)(trace(model, inputs))
    return results(trimmed, inputs), results(HeadPass(classes=0, kind="none", pool=pool)(trimmed), inputs)


def test_the_class_token_is_taken_where_the_source_reads_it() -> None:
    (tokens,), features = pooled("transformer", "blocks.0")
    assert_equal(features, [tokens[:, 0]])
    (tokens,), features = pooled("transformer", "blocks.0", "mean")
    assert_equal(features, [tokens.mean(1)])


def test_a_class_token_that_has_seen_no_image_is_taken_only_if_asked_for() -> None:
    (tokens,), features = pooled("transformer", "add")
    assert_equal(features, [tokens.mean(1)])
    (tokens,), features = pooled("transformer", "add", "class-token")
    assert_equal(features, [tokens[:, 0]])
    assert torch.equal(features[0][0], features[0][1])


def test_channels_are_last_or_first() -> None:
    (image,), features = pooled("windows", "stage1")
    assert image.shape == (2, 8, 8, 8)
    assert_equal(features, [image.mean((1, 2))])
    (sequence,), features = pooled("sequence", "mix1")
    assert_equal(features, [sequence.mean(2)])


def test_tensors_of_different_kinds_are_pooled_each_its_own_way() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.down = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 6, 1)
            self.token = nn.Parameter(torch.full((1, 1, 4), 0.5))
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.fc = nn.Linear(10, 2)

        def forward(self, x: Tensor) -> Tensor:
            image = self.conv(x)
            tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), image.flatten(2).transpose(1, 2)], 1)
            tokens = tokens + self.attention(tokens, tokens, tokens)[0]
            return self.fc(torch.cat([tokens[:, 0], self.down(image).mean((2, 3))], 1))

    torch.manual_seed(0)
    traced = trace(Mixed(), torch.zeros(2, 3, 8, 8))
    trimmed = CutPass("conv+add")(traced)
    assert [node.meta["pool"] for node in trimmed.nodes if "pool" in node.meta] == ["channels-first", "class-token"]
    x = (torch.randn(2, 3, 8, 8),)
    image, tokens = results(trimmed, x)
    after = HeadPass(classes=0, kind="none")(trimmed)
    assert pooled_width(trimmed) == 8
    assert_equal(results(after, x), [torch.cat([image.mean((2, 3)), tokens[:, 0]], 1)])


def test_a_head_on_a_class_token_can_be_exported_and_priced() -> None:
    model, inputs = ZOO["transformer"]()
    after = HeadPass(classes=3)(CutPass("blocks.0")(trace(model, inputs)))
    exported = torch.export.export(after.graph_module, inputs).module()
    assert_near([exported(*inputs).detach()], results(after, inputs))
    (gather,) = [kernel for kernel in kernels(after) if "head.pool" in kernel.origin]
    assert gather.kind == "data_movement"


@pytest.mark.parametrize("options", ["", ",pool=mean", ",pool=class-token"])
def test_pool_is_an_option_of_the_pass_as_text(options: str) -> None:
    chosen = options.partition("=")[2] or "auto"
    (head,) = parse_pipeline(f"head{{classes=10{options}}}").passes
    assert head == HeadPass(classes=10, pool=chosen)  # type: ignore[arg-type]
    assert parse_pipeline(format_pass(head)).passes == (head,)


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
        "cannot put a head on Index: it returns int64[2, 6, 6], not a floating-point tensor of at least 2 dimensions; "
        "cut it at a frontier that carries features"
    )


def test_a_class_token_where_there_is_none_is_refused() -> None:
    with pytest.raises(PassError) as error:
        HeadPass(classes=3, pool="class-token")(trunk())
    assert str(error.value) == (
        "cannot take a class token at 1 of trunk: float32[2, 4, 4, 4] is no sequence of tokens (N, T, C); "
        "use pool=auto or pool=mean, or cut where tokens cross"
    )
    model, inputs = ZOO["transformer"]()
    patches = CutPass("transpose")(trace(model, inputs))
    with pytest.raises(PassError) as error:
        HeadPass(classes=3, pool="class-token")(patches)
    assert str(error.value) == (
        "cannot take a class token at transpose of Transformer: no learnt token was put in front of its tokens "
        "float32[2, 16, 8]; use pool=auto or pool=mean to average them"
    )


def test_options_are_checked() -> None:
    with pytest.raises(PassError, match=r"^pool 'max' is unknown; use one of auto, mean, class-token$"):
        HeadPass(classes=2, pool="max")  # type: ignore[arg-type]
    with pytest.raises(PassError, match=r"^head with classes=1 cannot classify; give at least 2 classes$"):
        head_module(4, 1)
    with pytest.raises(PassError, match=r"^head kind 'big' is unknown; use one of netcut, linear, none$"):
        HeadPass(classes=2, kind="big")  # type: ignore[arg-type]
