"""How frontiers are pooled: what networks suggest, traced by fx or exported."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from netcut_fx.channel_axis import _reshaped
from netcut_fx.frontier import frontiers
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.pooling import averaged_dimensions, can_be_pooled, pool, pool_of, pooled_channels
from netcut_fx.tracing import Via, trace
from tests.torchvision_zoo import torchvision_network
from tests.zoo import ZOO, traced_zoo

FIRST, LAST, TOKEN, NONE = "channels-first", "channels-last", "class-token", "none"
BOTH = pytest.mark.parametrize("via", ["fx", "export"])


def suggested(traced: TracedModule) -> list[str]:
    """What is suggested for what the network returns, in order."""
    return [pool_of(traced, node) for node in traced.output.all_input_nodes]


class Returning(nn.Module):
    """Layers, and what a function makes of them and of the input."""

    def __init__(self, forward: Callable[..., object], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


def conv(out: int = 6) -> nn.Module:
    return nn.Conv2d(3, out, 3)


def _mixer(m: Returning, x: Tensor) -> tuple[Tensor, ...]:
    tokens = m.norm(m.conv(x).flatten(2).transpose(1, 2))
    mixed = m.positions(tokens.transpose(1, 2))
    return mixed, mixed.transpose(1, 2), tokens + mixed.transpose(1, 2)


def _heads(m: Returning, x: Tensor) -> tuple[Tensor, ...]:
    tokens = m.conv(x).flatten(2).transpose(1, 2)
    query, key, value = m.qkv(tokens).view(2, 36, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
    weights = (query @ key.transpose(-2, -1)).softmax(-1)
    mixed = weights @ value
    return query, weights, mixed, mixed.transpose(1, 2).reshape(2, 36, 16)


def _attention(m: Returning, x: Tensor) -> tuple[Tensor, ...]:
    tokens = m.conv(x).flatten(2).movedim(1, 2)
    return F.scaled_dot_product_attention(tokens, tokens, tokens), m.conv(x).movedim(1, 3), tokens @ m.weight


def _shuffle(m: Returning, x: Tensor) -> tuple[Tensor, ...]:
    y = m.conv(x)
    groups = y.view(2, 2, 3, 6, 6).transpose(1, 2)
    return groups, groups.reshape(2, 6, 6, 6), y.mean((2, 3), keepdim=True), y[:, :, 0], y[..., None, :, 0]


def _squeezed(m: Returning, x: Tensor) -> tuple[Tensor, ...]:
    y = m.conv(x).permute(0, 2, 3, 1)
    return y, y.mean(1), y.mean((1, 2), keepdim=True), y.amax(2), torch.stack([y, y], 1), torch.cat([y, y], -1)


def _norms(m: Returning, x: Tensor) -> tuple[Tensor, ...]:
    y = m.conv(x)
    return F.layer_norm(y, (6, 6, 6)), F.layer_norm(y.permute(0, 2, 3, 1), (6,)), m.group(y), F.interpolate(y, (3, 3))


def _sequences(m: Returning, x: Tensor) -> tuple[Tensor, ...]:
    steps = m.conv1(m.conv(x).flatten(2))
    return steps, m.norm(steps), F.max_pool1d(steps, 2), m.linear(m.norm(steps).mT), m.lstm(steps.transpose(1, 2))[0]


STRUCTURES: dict[str, tuple[Callable[..., object], dict[str, nn.Module], list[str]]] = {
    "mixer": (
        _mixer,
        {"conv": conv(), "norm": nn.LayerNorm(6), "positions": nn.Linear(36, 36)},
        [FIRST, LAST, LAST],
    ),
    "heads": (_heads, {"conv": conv(), "qkv": nn.Linear(6, 48)}, [LAST, FIRST, LAST, LAST]),
    "shuffle": (_shuffle, {"conv": conv()}, [FIRST, FIRST, FIRST, FIRST, FIRST]),
    "squeezed": (_squeezed, {"conv": conv()}, [LAST, LAST, LAST, LAST, LAST, LAST]),
    "sequences": (
        _sequences,
        {
            "conv": conv(),
            "conv1": nn.Conv1d(6, 5, 3),
            "norm": nn.BatchNorm1d(5),
            "linear": nn.Linear(5, 4),
            "lstm": nn.LSTM(5, 4, batch_first=True),
        },
        [FIRST, FIRST, FIRST, LAST, LAST],
    ),
    "norms": (_norms, {"conv": conv(), "group": nn.GroupNorm(2, 6)}, [FIRST, LAST, FIRST, FIRST]),
}


@BOTH
@pytest.mark.parametrize("name", STRUCTURES)
def test_channels_are_followed(name: str, via: Via) -> None:
    forward, layers, expected = STRUCTURES[name]
    assert suggested(trace(Returning(forward, **layers), torch.zeros(2, 3, 8, 8), via=via)) == expected


@BOTH
def test_channels_through_attention_and_weights(via: Via) -> None:
    module = Returning(_attention, conv=conv(), weight=nn.Parameter(torch.ones(6, 4)))
    assert suggested(trace(module, torch.zeros(2, 3, 8, 8), via=via)) == [LAST, LAST, LAST]


@BOTH
def test_what_reads_a_tensor_decides_where_nothing_in_front_does(via: Via) -> None:
    def forward(m: Returning, x: Tensor) -> tuple[Tensor, ...]:
        scaled, moved = x * 2, (x * 3).permute(0, 3, 1, 2)
        return scaled, moved, m.conv(moved), m.norm(scaled)

    module = Returning(forward, conv=conv(), norm=nn.LayerNorm(3))
    assert suggested(trace(module, torch.zeros(2, 8, 8, 3), via=via)) == [LAST, FIRST, FIRST, LAST]

    def sequence(m: Returning, x: Tensor) -> tuple[Tensor, ...]:
        scaled = x * 2
        return scaled, m.conv(scaled.view(2, 3, 8, 8)), torch.einsum("nct->ntc", scaled), (x + 1).mean(1)

    assert suggested(trace(Returning(sequence, conv=conv()), torch.zeros(2, 3, 64), via=via)) == [
        FIRST,
        FIRST,
        LAST,
        NONE,
    ]


def test_where_nothing_tells_the_rank_decides() -> None:
    def forward(_: Returning, x: Tensor) -> tuple[Tensor, ...]:
        return x + 1, (x + 2).view(2, 4, 4, 5), (x + 3).view(2, 4, 4, 5, 1)

    assert suggested(trace(Returning(forward), torch.zeros(2, 16, 5))) == [LAST, FIRST, FIRST]


def test_a_module_kept_whole_is_seen_by_its_reader() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).permute(0, 2, 3, 1)

    module = Returning(lambda m, x: (p := m.patches(x), m.norm(p)), patches=Patches(), norm=nn.LayerNorm(6))
    traced = trace(module, torch.zeros(2, 3, 8, 8), leaf_modules=(Patches,))
    assert traced.by_qualname["patches"].op == "call_module"
    assert suggested(traced) == [LAST, LAST]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_a_reshape_never_loses_channels(shape: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts = [data.draw(st.sampled_from([[n, 1], [1, n], [n], [2, n // 2] if n % 2 == 0 else [n]])) for n in shape]
    flat = [n for part in parts for n in part]
    cut = data.draw(st.integers(0, len(flat) - 1))
    after = (*flat[:cut], prod(flat[cut : cut + 2]), *flat[cut + 2 :])
    labels = torch.arange(shape[axis]).reshape([-1 if d == axis else 1 for d in range(len(shape))]).expand(shape)
    moved = labels.reshape(after)
    varying = {d for d in range(1, len(after)) if not torch.equal(moved, moved.narrow(d, 0, 1).expand(after))}
    assert varying <= (_reshaped(tuple(shape), after, frozenset({axis})) or frozenset())


class Tokens(nn.Module):
    """Patches, tokens in front, one round of attention, and what a function reads in the end."""

    def __init__(self, read: Callable[[Tensor], Tensor], *, tokens: int = 1, registers: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.tokens = nn.ParameterList([nn.Parameter(torch.randn(1, 1, 8)) for _ in range(tokens)])
        self.register = nn.Parameter(torch.randn(1, 2, 8)) if registers else None
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.read = read
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([*(t.expand(x.shape[0], -1, -1) for t in self.tokens), x], dim=1)
        if self.register is not None:
            x = torch.cat((x[:, :1], self.register.expand(x.shape[0], -1, -1), x[:, 1:]), dim=1)
        x = x + self.attention(x, x, x)[0]
        return self.fc(self.read(self.norm(x)))


READERS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "x[:, 0]": (lambda x: x[:, 0], TOKEN),
    "x[:, 0, :]": (lambda x: x[:, 0, :], TOKEN),
    "x[..., 0, :]": (lambda x: x[..., 0, :], TOKEN),
    "select": (lambda x: x.select(1, 0), TOKEN),
    "torch.select": (lambda x: torch.select(x, -2, 0), TOKEN),
    "all, then the first": (lambda x: x[:, 0:][:, 0], TOKEN),
    "both": (lambda x: x[:, 0] + x[:, 1:].mean(1), TOKEN),
    "mean": (lambda x: x.mean(1), LAST),
    "mean of patches": (lambda x: x[:, 1:].mean(1), LAST),
    "another": (lambda x: x[:, 3], LAST),
    "one channel": (lambda x: x[:, :, 0].repeat(1, 8)[:, :8], LAST),
}


@BOTH
@pytest.mark.parametrize("reader", READERS)
def test_a_class_token_is_what_the_network_reads(reader: str, via: Via) -> None:
    read, expected = READERS[reader]
    traced = trace(Tokens(read), torch.zeros(2, 3, 16, 16), via=via)
    (norm,) = [n for n in traced.nodes if n.meta["qualname"] == "norm"]
    assert pool_of(traced, norm) == expected
    assert pool_of(traced, traced.by_qualname["transpose"]) == LAST
    assert pool_of(traced, traced.by_qualname["flatten"]) == FIRST


@BOTH
def test_two_special_tokens_and_registers(via: Via) -> None:
    for module in (
        Tokens(lambda x: (x[:, 0] + x[:, 1]) / 2, tokens=2),
        Tokens(lambda x: x[:, 0], registers=True),
    ):
        traced = trace(module, torch.zeros(2, 3, 16, 16), via=via)
        assert pool_of(traced, traced.by_qualname["norm"]) == TOKEN
        # In front of attention it is the same for every image.
        assert pool_of(traced, traced.by_qualname["cat"]) == LAST


def test_class_attention_continues_the_token() -> None:
    def forward(m: Returning, x: Tensor) -> Tensor:
        patches = m.patches(x).flatten(2).transpose(1, 2)
        token = m.token.expand(x.shape[0], -1, -1)
        for attention in (m.first, m.second):
            every = torch.cat([token, patches], 1)
            token = token + attention(every[:, :1], every, every)[0]
        return m.fc(m.norm(torch.cat([token, patches], 1))[:, 0])

    module = Returning(
        forward,
        patches=nn.Conv2d(3, 8, 4, 4),
        token=nn.Parameter(torch.ones(1, 1, 8)),
        first=nn.MultiheadAttention(8, 2, batch_first=True),
        second=nn.MultiheadAttention(8, 2, batch_first=True),
        norm=nn.LayerNorm(8),
        fc=nn.Linear(8, 3),
    )
    traced = trace(module, torch.zeros(2, 3, 16, 16))
    kinds = [pool_of(traced, traced.by_qualname[name]) for name in ("cat", "cat#2", "cat#3", "norm")]
    assert kinds == [LAST, TOKEN, TOKEN, TOKEN]


def test_a_first_token_of_data_is_none() -> None:
    def forward(m: Returning, x: Tensor) -> Tensor:
        patches = m.patches(x).flatten(2).transpose(1, 2)
        return m.norm(torch.cat([patches.mean(1, keepdim=True), patches], 1))[:, 0]

    traced = trace(Returning(forward, patches=nn.Conv2d(3, 8, 4, 4), norm=nn.LayerNorm(8)), torch.zeros(2, 3, 16, 16))
    assert pool_of(traced, traced.by_qualname["norm"]) == LAST


@BOTH
def test_torchvision(via: Via) -> None:
    vit = trace(torchvision_network("VisionTransformer"), torch.zeros(2, 3, 32, 32), via=via)
    names = ["conv_proj", "permute", "encoder.dropout", "encoder.layers.encoder_layer_1.add", "encoder.ln"]
    assert [pool_of(vit, vit.by_qualname[name]) for name in names] == [FIRST, LAST, LAST, TOKEN, TOKEN]
    swin = trace(torchvision_network("SwinTransformer"), torch.zeros(2, 3, 32, 32), via=via)
    names = ["features.0.0", "features.0.1.permute", "features.1.1.add", "features.2.norm", "norm", "avgpool"]
    assert [pool_of(swin, swin.by_qualname[name]) for name in names] == [FIRST, LAST, LAST, LAST, LAST, FIRST]


@pytest.mark.parametrize("name", ZOO)
def test_frontiers_say_how_they_are_pooled(name: str) -> None:
    traced = traced_zoo(name)
    for frontier in frontiers(traced, granularity="node"):
        assert frontier.pools == tuple(pool_of(traced, traced.by_name[node]) for node in frontier.nodes)
        if name not in ("transformer", "windows"):
            assert set(frontier.pools) <= {FIRST, NONE}


def test_a_deep_network_needs_no_recursion() -> None:
    def forward(m: Returning, x: Tensor) -> Tensor:
        x = m.norm(x)
        for _ in range(3000):
            x = x + 1
        return x

    traced = trace(Returning(forward, norm=nn.LayerNorm(4)), torch.zeros(1, 5, 5, 4), via="fx")
    assert suggested(traced) == [LAST]


def test_pooling_a_tensor() -> None:
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    assert torch.equal(pool(x, "channels-first"), x.mean((2, 3)))
    assert torch.equal(pool(x, "channels-last"), x.mean((1, 2)))
    assert torch.equal(pool(x[0], "class-token"), x[0][:, 0])
    assert torch.equal(pool(x[0, 0], "none"), x[0, 0])
    spec = TensorSpec((2, 3, 4, 5), torch.float32)
    assert [pooled_channels(spec, kind) for kind in ("channels-first", "channels-last")] == [3, 5]
    assert averaged_dimensions(6, "channels-last") == (1, 2, 3, 4)
    assert averaged_dimensions(2, "channels-first") == averaged_dimensions(3, "class-token") == ()
    assert can_be_pooled(spec)
    refused = (None, (spec,), TensorSpec((2,), torch.float32), TensorSpec((2, 3), torch.int8))
    assert not any(map(can_be_pooled, refused))
