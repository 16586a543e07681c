from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from netcut_fx.data import Dataset
from netcut_fx.errors import InvalidFrontier, NetcutError
from netcut_fx.features import node_features, pooled_features
from netcut_fx.frontier import frontiers
from netcut_fx.graph import Frontier, TensorSpec, TracedModule, state_hash
from netcut_fx.layout import channels_last_, contiguous_
from netcut_fx.passes.cut import cut_nodes
from netcut_fx.passes.head import HeadPass
from netcut_fx.pooling import Pool, PoolOption, pool_of
from netcut_fx.preprocess import Preprocess
from netcut_fx.tracing import Via, trace
from tests.torchvision_zoo import torchvision_network
from tests.zoo import ZOO


def _poolable(traced: TracedModule) -> dict[str, tuple[str, ...]]:
    """Every node with a floating-point tensor that can be pooled."""
    return {
        node.name: (node.name,)
        for node in traced.nodes
        if node.op not in ("placeholder", "output", "get_attr")
        and isinstance(spec := node.meta["spec"], TensorSpec)
        and spec.dtype.is_floating_point
        and len(spec.shape) >= 2
        and spec.shape[0] == traced.input_specs[0].shape[0]
    }


class _Recorder(fx.Interpreter):
    """Pools by hand what each node yields at the moment it yields it."""

    def __init__(self, traced: TracedModule, kinds: dict[str, Pool]) -> None:
        super().__init__(traced.graph_module)
        self.kinds = kinds
        self.pooled: dict[str, np.ndarray] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        kind = self.kinds.get(n.name)
        if kind is not None:
            array = value.detach().numpy().copy()
            if kind == "class-token":
                array = array[:, 0]
            while array.ndim > 2:
                array = array.mean(2 if kind == "channels-first" else 1)
            self.pooled[n.name] = array
        return value


@pytest.mark.parametrize("name", ZOO)
def test_equal_to_every_activation_pooled_by_hand(name: str) -> None:
    module, example = ZOO[name]()
    traced = trace(module, example)
    groups = _poolable(traced)
    assert len(groups) >= 5
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(5, *x.shape[1:], generator=generator) for x in example]
    recorder = _Recorder(traced, {key: pool_of(traced, traced.by_name[key]) for key in groups})
    with torch.no_grad():
        recorder.run(*[x.clone() for x in inputs])

    features = node_features(traced, groups, inputs, batch=2)

    for key in groups:
        assert features[key].dtype == np.float32
        np.testing.assert_allclose(features[key], recorder.pooled[key], rtol=1e-4, atol=1e-5, err_msg=key)


_WIDE = ("inception", "dense")


def _seen_by_the_head(traced: TracedModule, found: Sequence[Frontier], pool: PoolOption = "auto") -> None:
    """Asserts that features are the activations that the head of each cut network reads."""
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(4, *spec.shape[1:], generator=generator) for spec in traced.input_specs]
    features = pooled_features(traced, found, inputs, pool=pool)
    assert list(features) == [frontier.name for frontier in found]
    for frontier in found:
        cut = HeadPass(2, kind="none", pool=pool)(cut_nodes(traced, frontier.nodes))
        with torch.no_grad():
            expected = cut.graph_module(*inputs).numpy()
        np.testing.assert_allclose(features[frontier.name], expected, rtol=1e-4, atol=1e-5, err_msg=frontier.name)


@pytest.mark.parametrize("name", ZOO)
def test_equal_to_every_cut_network_with_pooling_alone(name: str) -> None:
    module, example = ZOO[name]()
    traced = trace(module, example)
    found = frontiers(traced, granularity="block" if name in _WIDE else "node", max_width=3 if name in _WIDE else 2)
    assert len(found) > 1
    _seen_by_the_head(traced, found)


def test_equal_where_the_class_token_is_averaged_instead_or_always_taken() -> None:
    module, example = ZOO["transformer"]()
    traced = trace(module, example)
    found = frontiers(traced, granularity="node")
    _seen_by_the_head(traced, found, "mean")
    _seen_by_the_head(traced, [f for f in found if f.specs[0].shape[1:] in ((17, 8), (8,))], "class-token")


@pytest.mark.parametrize(
    ("name", "via"),
    [
        ("VisionTransformer", "fx"),
        ("VisionTransformer", "export"),
        ("SwinTransformer", "fx"),
        ("SwinTransformer", "export"),
    ],
)
def test_equal_for_torchvision(name: str, via: Via) -> None:
    traced = trace(torchvision_network(name), torch.zeros(2, 3, 32, 32), via=via)
    found = frontiers(traced, granularity="node")
    assert len(found) > 3
    _seen_by_the_head(traced, found)


def test_a_part_that_is_overwritten_later_keeps_what_it_was() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.ones(1, 1, 4))
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
            y = self.attention(x, x, x)[0]
            return self.fc((y.mul_(2) + x)[:, 0])

    torch.manual_seed(0)
    traced = trace(Overwriting(), torch.randn(2, 3, 4))
    attended = next(n for n in traced.nodes if n.name == "getitem_1")
    overwritten = next(n for n in traced.nodes if n.target == "mul_")
    assert pool_of(traced, attended) == "class-token"
    features = node_features(traced, {"before": (attended.name,), "after": (overwritten.name,)}, torch.randn(4, 3, 4))
    np.testing.assert_allclose(features["after"], 2 * features["before"], rtol=1e-6)


def test_hooked_activation_of_the_source_network() -> None:
    module, (example,) = ZOO["inverted_residual"]()
    traced = trace(module, example)
    seen: list[Tensor] = []
    handle = module.blocks[2].register_forward_hook(lambda _m, _i, out: seen.append(out))
    inputs = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        module(inputs)
    handle.remove()
    frontier = _frontier(traced, "blocks.2", "blocks.2.add")

    features = pooled_features(traced, [frontier], inputs, batch=3)

    np.testing.assert_allclose(features["blocks.2"], seen[0].mean((2, 3)).numpy(), rtol=1e-4, atol=1e-6)


def test_one_forward_per_batch_for_all_frontiers_and_nothing_behind_the_deepest() -> None:
    module, (example,) = ZOO["residual"]()
    calls = {"stem": 0, "layer2.0.conv1": 0, "layer2.1.conv1": 0}
    for path in calls:
        module.get_submodule(path).register_forward_hook(_counting(calls, path))
    traced = trace(module, example)
    frontiers = [
        _frontier(traced, "stem", "stem.2"),
        _frontier(traced, "layer1.1", "layer1.1.relu#2"),
        _frontier(traced, "layer2.0", "layer2.0.relu#2"),
    ]
    before = traced.state_hash()
    for path in calls:
        calls[path] = 0
    done: list[tuple[int, int]] = []

    features = pooled_features(
        traced, frontiers, torch.zeros(10, 3, 32, 32), batch=4, progress=lambda part, whole: done.append((part, whole))
    )

    # Hooks sit on the leaf modules that the graph calls. One more call is the trial of the memory layout.
    assert calls["layer2.0.conv1"] == 3 + 1
    assert calls["layer2.1.conv1"] == 0
    assert done == [(4, 10), (8, 10), (10, 10)]
    assert {name: table.shape for name, table in features.items()} == {
        "stem": (10, 8),
        "layer1.1": (10, 8),
        "layer2.0": (10, 16),
    }
    assert traced.state_hash() == before
    assert not any(p.is_contiguous(memory_format=torch.channels_last) for p in _spatial(traced.graph_module))


def test_tensors_of_a_wide_frontier_are_concatenated_in_order() -> None:
    module, (example,) = ZOO["inception"]()
    traced = trace(module, example)
    names = ("mixed1.branch1.2", "mixed1.branch3.1.2")
    nodes = tuple(traced.by_qualname[name].name for name in names)
    groups = {"both": nodes, "first": nodes[:1], "second": nodes[1:]}

    features = node_features(traced, groups, torch.randn(3, 3, 32, 32))

    assert features["both"].shape == (3, 10)
    np.testing.assert_array_equal(features["both"], np.hstack([features["first"], features["second"]]))


def test_dataset_gives_all_its_images_in_order() -> None:
    module, (example,) = ZOO["plain_chain"]()
    traced = trace(module, example)
    dataset = _dataset(11)
    groups = {"relu3": (traced.by_qualname["relu3"].name,)}

    features = node_features(traced, groups, dataset, batch=4)

    expected = node_features(traced, groups, dataset.preprocess.normalise(dataset.images), batch=4)
    np.testing.assert_array_equal(features["relu3"], expected["relu3"])


def test_network_that_needs_contiguous_tensors_keeps_its_layout() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4 * 36, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.fc(x.view(x.size(0), -1))

    module = Viewing().eval()
    x = torch.randn(2, 3, 8, 8)
    assert not channels_last_(module, (x,))
    assert module.conv.weight.is_contiguous()

    traced = trace(module, x)
    features = node_features(traced, {"conv": ("conv",)}, x)
    with torch.no_grad():
        np.testing.assert_allclose(features["conv"], module.conv(x).mean((2, 3)).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("convolution", "safe"),
    [
        (nn.Conv2d(8, 16, 1, stride=2), False),
        (nn.Conv2d(32, 32, 1, stride=2, groups=4), False),
        (nn.Conv2d(16, 16, 1, stride=2), True),
        (nn.Conv2d(8, 16, 1), True),
        (nn.Conv2d(8, 16, 3, stride=2), True),
    ],
)
def test_networks_whose_training_torch_would_crash_on_keep_their_layout(convolution: nn.Conv2d, safe: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, convolution.in_channels, 3), nn.ReLU(), convolution)
    assert channels_last_(network, (torch.randn(1, 3, 12, 12),)) is safe


def test_layout_changes_strides_only() -> None:
    module, (example,) = ZOO["inverted_residual"]()
    before = state_hash(module)
    assert channels_last_(module, (example,))
    assert module.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not module.stem[0].weight.is_contiguous()
    assert state_hash(module) == before
    contiguous_(module)
    assert module.stem[0].weight.is_contiguous()


def test_inputs_of_another_size() -> None:
    module, example = ZOO["residual"]()
    traced = trace(module, example, name="tiny")
    frontier = _frontier(traced, "stem", "stem.2")
    with pytest.raises(NetcutError) as error:
        pooled_features(traced, [frontier], torch.zeros(4, 3, 16, 16))
    assert str(error.value) == (
        "inputs of shape (4, 3, 16, 16) do not fit tiny, which takes (N, 3, 32, 32); "
        "use the input size that the network was traced with"
    )
    with pytest.raises(NetcutError, match="no images for tiny; give at least one"):
        pooled_features(traced, [frontier], torch.zeros(0, 3, 32, 32))


def test_frontier_of_another_network() -> None:
    module, (example,) = ZOO["residual"]()
    traced = trace(module, example, name="tiny")
    frontier = Frontier("features.3", ("features_3",), (TensorSpec((2, 8, 4, 4), torch.float32),), "block", 1, 1, 1)
    with pytest.raises(InvalidFrontier) as error:
        pooled_features(traced, [frontier], example)
    assert str(error.value) == (
        "frontier features.3 is not of tiny: there is no node features_3; use frontiers(traced)"
    )


def test_no_frontiers_need_no_pass() -> None:
    module, (example,) = ZOO["residual"]()
    assert pooled_features(trace(module, example), [], example) == {}


def _counting(calls: dict[str, int], path: str) -> object:
    def hook(*_: object) -> None:
        calls[path] += 1

    return hook


def _spatial(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.dim() == 4 and min(p.shape[1], p.shape[2]) > 1]


def _frontier(traced: TracedModule, name: str, qualname: str) -> Frontier:
    node = traced.by_qualname[qualname]
    return Frontier(name, (node.name,), (node.meta["spec"],), "block", 1, 1, 1)


def _dataset(count: int) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    index = np.arange(count)
    splits = {"train": index[::3], "validation": index[1::3], "test": index[2::3]}
    labels = (index % 2).astype(np.int64)
    return Dataset("noise", images, labels, ("even", "odd"), splits, Preprocess.named((32, 32), "half"))
