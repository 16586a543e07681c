"""Kernels of whole networks: kinds, what they contain, where they end, with and without weights."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from cost_models.kernel import MODELLED_KINDS
from netcut_fx.frontier import frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernel_ends, kernels, kernels_of_prepared
from netcut_fx.ops import lower, node_flops
from netcut_fx.passes import CutPass, HeadPass, Pipeline, prepare_pipeline, weightless
from netcut_fx.tracing import trace
from tests.zoo import ZOO


def zoo(name: str) -> TracedModule:
    module, examples = ZOO[name]()
    return trace(module, examples)


def traced_layers(*layers: nn.Module, shape: tuple[int, ...] = (1, 4, 8, 8)) -> TracedModule:
    return trace(nn.Sequential(*layers), torch.zeros(shape))


def test_a_mobile_network_is_what_one_expects() -> None:
    found = kernels(zoo("inverted_residual"))
    assert [k.kind for k in found] == [
        "conv2d",
        *("depthwise_conv2d", "pointwise_conv2d"),
        *("pointwise_conv2d", "depthwise_conv2d", "pointwise_conv2d") * 3,
        "pointwise_conv2d",
        "reduce",
        "matmul",
    ]
    stem, depthwise, project, *_ = found
    assert stem.ops == ("conv2d", "add", "clip")
    assert stem.origin == ("stem.0", "stem.1", "stem.2")
    assert stem.input_shapes == ((2, 3, 32, 32), (8, 3, 3, 3), (1, 8, 1, 1))
    assert stem.output_shapes == ((2, 8, 16, 16),)
    assert stem.key == "conv2d+add+clip|1x8x1x1,2x3x32x32,8x3x3x3->2x8x16x16|float32"
    assert stem.flops == 2 * 4096 * 27 + 4096 + 2 * 4096
    assert stem.bytes == 4 * (6144 + 216 + 8 + 4096)
    assert depthwise.ops == ("conv2d", "add", "clip")
    assert project.ops == ("conv2d", "add", "add")
    assert "blocks.0.add" in project.origin


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.Conv2d(4, 6, 3), "conv2d"),
        (nn.Conv2d(4, 6, 1), "pointwise_conv2d"),
        (nn.Conv2d(4, 8, 1, groups=4), "depthwise_conv2d"),
        (nn.Conv2d(4, 8, 3, groups=2), "grouped_conv2d"),
        (nn.MaxPool2d(2), "pool"),
        (nn.AdaptiveAvgPool2d(3), "pool"),
        (nn.AdaptiveAvgPool2d(1), "reduce"),
        (nn.Softmax(1), "reduce"),
        (nn.LayerNorm(8), "reduce"),
        (nn.Hardswish(), "elementwise"),
        (nn.BatchNorm2d(4), "elementwise"),
        (nn.ZeroPad2d(1), "data_movement"),
        (nn.ChannelShuffle(2), "data_movement"),
        (nn.ConvTranspose2d(4, 2, 2), "opaque:conv2d_transpose"),
    ],
)
def test_kinds(layer: nn.Module, kind: str) -> None:
    assert kind in MODELLED_KINDS or kind.startswith("opaque:")
    assert {k.kind for k in kernels(traced_layers(layer))} == {kind}


@pytest.mark.parametrize("name", ZOO)
def test_no_operation_is_lost_or_counted_twice(name: str) -> None:
    prepared = prepare_pipeline()(zoo(name))
    found = kernels_of_prepared(prepared)
    assert sum(k.flops for k in found) == sum(node_flops(prepared, node) for node in prepared.nodes)
    of_kernels = Counter(itertools.chain.from_iterable(k.ops for k in found))
    of_nodes = Counter(p.op for p in lower(prepared).primitives)
    views = Counter(p.op for p in lower(prepared).primitives if p.is_view)
    assert of_kernels <= of_nodes
    assert of_nodes - of_kernels <= views


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_is_modelled(name: str) -> None:
    found = kernels(zoo(name))
    assert all(k.modelled and k.bytes > 0 and k.dtype in ("float32", "int8") for k in found)


def test_a_linear_layer_is_a_matrix_product() -> None:
    (linear,) = kernels(traced_layers(nn.Linear(8, 3), shape=(2, 8)))
    assert (linear.kind, linear.ops) == ("matmul", ("matmul", "add"))
    assert linear.input_shapes == ((2, 8), (8, 3), (3,))


def test_keys_say_what_shapes_do_not() -> None:
    """Two poolings, two convolutions with the same shapes that take different times; all other keys stay short."""
    small, large = (kernels(traced_layers(nn.MaxPool2d(k, 1, k // 2)))[0].key for k in (3, 5))
    assert (small, large) == tuple(f"max_pool2d|1x4x8x8->1x4x8x8|float32|window {k}x{k}" for k in (3, 5))
    near, far = (kernels(traced_layers(nn.Conv2d(4, 4, 3, padding=d, dilation=d)))[0].key for d in (1, 2))
    assert near == "conv2d+add|1x4x1x1,1x4x8x8,4x4x3x3->1x4x8x8|float32"
    assert far == f"{near}|dilation 2x2"


def test_a_reshape_between_kernels_costs_nothing() -> None:
    flat = kernels(traced_layers(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)))
    assert [k.ops for k in flat] == [("max_pool2d",), ("matmul", "add")]


def test_a_reshape_that_is_returned_is_a_copy() -> None:
    flat = kernels(traced_layers(nn.MaxPool2d(2), nn.Flatten()))
    assert [(k.ops, k.kind) for k in flat] == [(("max_pool2d",), "pool"), (("reshape",), "data_movement")]


def test_what_the_table_does_not_know_is_a_kernel_that_nothing_models() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cumsum(f.relu(x), 1) + 1

    relu, odd, plus = kernels(trace(Odd(), torch.zeros(2, 3)))
    assert (relu.modelled, plus.modelled) == (True, True)
    assert (odd.kind, odd.modelled, odd.ops) == ("opaque:cumsum", False, ("opaque:cumsum",))
    assert odd.origin == ("cumsum",)


@pytest.mark.parametrize("name", ["residual", "dense", "transformer"])
def test_a_network_without_weights_has_the_same_kernels(name: str) -> None:
    traced = zoo(name)
    before = traced.state_hash()
    assert kernels(weightless(traced)) == kernels(traced)
    assert traced.state_hash() == before


@pytest.mark.parametrize("name", ["inverted_residual", "dense", "inception"])
def test_a_cut_shares_all_but_its_last_kernels(name: str) -> None:
    traced = zoo(name)
    whole = Counter(k.key for k in kernels(traced))
    for frontier in frontiers(traced, max_width=4):
        cut = Pipeline((CutPass(at=frontier.name), HeadPass(classes=3)))(weightless(traced))
        of_cut = Counter(k.key for k in kernels(cut))
        head = Counter(k.key for k in kernels(cut) if any(q.startswith("head") for q in k.origin))
        # Where a fused kernel is cut in two, its first part is new.
        assert sum((of_cut - whole - head).values()) <= frontier.width


def test_kernels_end_where_results_are_written() -> None:
    traced = zoo("residual")
    ends = {traced.by_name[name].meta["qualname"] for name in kernel_ends(traced)}
    assert {"stem.2", "layer1.0.relu", "layer1.0.relu#2", "head.pool", "head.fc"} <= ends
    # Of two convolutions that are added, the sum runs with the one that comes first: here the shortcut.
    assert {"layer2.0.bn2", "layer2.0.relu#2"} <= ends
    assert "layer2.0.shortcut.1" not in ends
    # In the middle of a fused kernel, before a batch-norm that is folded, behind a view.
    assert not {"stem.0", "stem.1", "layer1.0.conv2", "layer1.0.add", "head.flatten", "head.drop", "x"} & ends


@pytest.mark.parametrize("name", ZOO)
def test_kernel_ends_are_nodes_of_the_network(name: str) -> None:
    traced = zoo(name)
    ends = kernel_ends(traced)
    assert ends <= set(traced.by_name)
    assert 0 < len(ends) <= len(kernels(traced))


def test_repeated_questions_are_answered_from_memory() -> None:
    traced = zoo("dense")
    assert all(a is not b and a == b for a, b in zip(kernels(traced), kernels(traced), strict=True))
    prepared = prepare_pipeline()(traced)
    assert lower(prepared) is lower(prepared)
