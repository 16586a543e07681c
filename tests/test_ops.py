"""Lowering: what each node becomes, how many operations it takes, in whichever form it is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.utils.flop_counter import FlopCounterMode

from netcut_fx.graph import TracedModule
from netcut_fx.ops import Pattern, lower, node_flops, normalise_op_name, primitives
from netcut_fx.passes import weightless
from netcut_fx.tracing import trace
from tests.operation_forms import FORMS
from tests.zoo import ZOO


class Call(nn.Module):
    """A function of the input and of some layers."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def traced_call(function: Callable[..., Tensor], shape: tuple[int, ...], *layers: nn.Module) -> TracedModule:
    return trace(Call(function, *layers), torch.zeros(shape))


def names(traced: TracedModule) -> list[str]:
    return [p.op for p in lower(traced).primitives]


def flops_of(function: Callable[..., Tensor], shape: tuple[int, ...], *layers: nn.Module) -> int:
    traced = traced_call(function, shape, *layers)
    return sum(node_flops(traced, node) for node in traced.nodes)


IMAGE = (2, 4, 6, 6)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(4, 8, 3, padding=1, bias=False), IMAGE, 2 * 2 * 8 * 36 * 4 * 9),
        (nn.Conv2d(4, 8, 3, padding=1), IMAGE, 2 * 2 * 8 * 36 * 4 * 9 + 2 * 8 * 36),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False), IMAGE, 2 * 2 * 8 * 9 * 4 * 9),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), IMAGE, 2 * 2 * 4 * 36 * 9),
        (nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False), IMAGE, 2 * 2 * 8 * 36 * 2 * 9),
        (nn.Conv2d(4, 8, 3, padding=2, dilation=2, bias=False), IMAGE, 2 * 2 * 8 * 36 * 4 * 9),
        (nn.ConvTranspose2d(4, 8, 2, stride=2, bias=False), IMAGE, 2 * 2 * 4 * 36 * 8 * 4),
        (nn.Conv1d(4, 8, 3, bias=False), (2, 4, 7), 2 * 2 * 8 * 5 * 4 * 3),
        (nn.Linear(5, 3), (2, 5), 2 * 2 * 5 * 3 + 2 * 3),
        (nn.Linear(5, 3, bias=False), (2, 7, 5), 2 * 14 * 5 * 3),
        (nn.ReLU(), IMAGE, 288),
        (nn.ReLU6(), IMAGE, 2 * 288),
        (nn.SiLU(), IMAGE, 2 * 288),
        (nn.BatchNorm2d(4), IMAGE, 4 * 288),
        (nn.LayerNorm(6), IMAGE, 8 * 288),
        (nn.MaxPool2d(2), IMAGE, 288),
        (nn.AvgPool2d(3, 1, 1), IMAGE, 9 * 288),
        (nn.AdaptiveAvgPool2d(1), IMAGE, 288),
        (nn.Softmax(1), (2, 5), 5 * 10),
        (nn.Flatten(), IMAGE, 0),
        (nn.Dropout(), IMAGE, 0),
        (nn.ZeroPad2d(1), IMAGE, 0),
    ],
)
def test_flops_by_hand(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    traced = trace(nn.Sequential(layer), torch.zeros(shape))
    assert sum(node_flops(traced, node) for node in traced.nodes) == expected


@pytest.mark.parametrize("name", ZOO)
def test_products_agree_with_torch(name: str) -> None:
    module, examples = ZOO[name]()
    traced = trace(module, examples)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        traced.graph_module(*examples)
    heavy = sum(p.flops for p in lower(traced).primitives if p.op in ("conv2d", "matmul"))
    # torch counts a branch whose result nobody uses; the compiler never sees it.
    dead = 2 * 2 * 256 * 8 * 6 * 9 + 2 * 2 * 256 * 6 * 4 if name == "dead_branch" else 0
    assert heavy == counter.get_total_flops() - dead


@pytest.mark.parametrize("ops", FORMS)
def test_every_form_of_an_operation_lowers_alike(ops: str) -> None:
    for form in FORMS[ops]:
        is_layer = isinstance(form, nn.Module)
        traced = traced_call(lambda x, layer: layer(x), IMAGE, form) if is_layer else traced_call(form, IMAGE)
        found = names(traced)
        # One form of ReLU makes something to write to first.
        assert [op for op in found if op != "multiply" or "multiply" in ops] == ops.split(), form


def test_matrix_products_of_all_forms() -> None:
    for form in (
        lambda x: x @ x.transpose(1, 2),
        lambda x: torch.bmm(x, x.mT),
        lambda x: torch.matmul(x, x.transpose(-1, -2)),
    ):
        traced = traced_call(form, (2, 5, 4))
        assert "matmul" in names(traced)
        assert sum(node_flops(traced, n) for n in traced.nodes) == 2 * 2 * 5 * 5 * 4


def test_attention_is_two_products_and_a_softmax() -> None:
    traced = traced_call(lambda x: f.scaled_dot_product_attention(x, x, x), (1, 2, 5, 4))
    products = [p for p in lower(traced).primitives if p.op == "matmul"]
    assert [p.flops for p in products] == [2 * 2 * 5 * 5 * 4] * 2
    assert names(traced).count("softmax") == 1


def test_prelu_takes_a_weight_that_is_prepared() -> None:
    traced = traced_call(lambda x, act: act(x), IMAGE, nn.PReLU(4))
    greater, product, where = lower(traced).primitives
    assert (greater.op, product.op, where.op) == ("greater", "multiply", "where")
    assert {v.role: v.shape for v in product.inputs} == {"activation": IMAGE, "parameter": (1, 4, 1, 1)}


def test_computation_on_weights_alone_vanishes() -> None:
    traced = traced_call(lambda x, fc: f.linear(x, fc.weight.t().t(), fc.bias * 2), (2, 5), nn.Linear(5, 3))
    assert names(traced) == ["matmul", "add"]
    assert lower(traced).primitives[0].inputs[1].role == "parameter"


def test_patterns_are_those_of_the_loop_nest() -> None:
    def pattern(function: Callable[[Tensor], Tensor]) -> Pattern:
        return lower(traced_call(function, IMAGE)).primitives[-1].pattern

    assert pattern(lambda x: x + 1) is Pattern.ELEMENTWISE
    assert pattern(lambda x: x + x.mean((2, 3), keepdim=True)) is Pattern.ELEMENTWISE
    assert pattern(lambda x: x.mean(3, keepdim=True) + x.mean(2, keepdim=True)) is Pattern.BROADCAST
    assert pattern(lambda x: f.pad(x, (0, 1, 0, 1))) is Pattern.OPAQUE
    assert pattern(lambda x: x[:, :2]) is Pattern.ELEMENTWISE
    assert pattern(lambda x: x[:, 2:]) is Pattern.INJECTIVE
    assert pattern(lambda x: x.sum(1)) is Pattern.REDUCTION
    assert pattern(lambda x: x.mean(1)) is Pattern.OUT_FUSABLE
    assert pattern(lambda x: x[:, 0]) is Pattern.OPAQUE


def test_in_place_operations_change_what_later_nodes_read() -> None:
    def written(x: Tensor) -> Tensor:
        y = x * 2
        rows = y.flatten(1)
        rows.relu_()
        return y + 1

    product, view, relu, back, total = lower(traced_call(written, IMAGE)).primitives
    assert [p.op for p in (product, view, relu, back, total)] == ["multiply", "reshape", "relu", "reshape", "add"]
    assert total.inputs == back.outputs
    assert back.inputs == relu.outputs


def test_an_operation_outside_the_table_stays_and_costs_something() -> None:
    traced = traced_call(lambda x: torch.cumsum(x, 1).relu(), IMAGE)
    unknown, relu = lower(traced).primitives
    assert (unknown.op, unknown.kind, unknown.pattern) == ("opaque:cumsum", "opaque:cumsum", Pattern.OPAQUE)
    assert unknown.flops == 288
    assert relu.inputs == unknown.outputs


class Unshapeable(nn.Module):
    """Needs values, so it cannot run without storage."""

    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.abs().max())


class WithLeaf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.leaf = Unshapeable()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.leaf(x))


def test_a_leaf_that_needs_values_is_one_unknown_operation() -> None:
    traced = trace(WithLeaf(), torch.ones(2, 3), leaf_modules=[Unshapeable])
    assert names(traced) == ["opaque:Unshapeable", "relu"]
    assert primitives(traced, traced.by_name["leaf"])[0].output_shape == (2, 3)


@pytest.mark.parametrize("name", ["inverted_residual", "transformer", "dense"])
def test_weights_are_neither_read_nor_needed(name: str) -> None:
    module, examples = ZOO[name]()
    traced = trace(module, examples)
    before = traced.state_hash()
    bare = weightless(traced)
    assert all(p.is_meta for p in bare.graph_module.parameters())
    assert [(p.op, p.flops) for p in lower(bare).primitives] == [(p.op, p.flops) for p in lower(traced).primitives]
    assert traced.state_hash() == before


def test_a_recording_is_not_reused_where_an_option_differs() -> None:
    narrow = traced_call(lambda x, conv: conv(x), IMAGE, nn.Conv2d(4, 8, 3, stride=2))
    wide = traced_call(lambda x, conv: conv(x), IMAGE, nn.Conv2d(4, 8, 3))
    assert lower(narrow).primitives[0].output_shape == (2, 8, 2, 2)
    assert lower(wide).primitives[0].output_shape == (2, 8, 4, 4)
    flat, kept = (traced_call(lambda x, keep=keep: x.mean((2, 3), keep), IMAGE) for keep in (False, True))
    assert lower(flat).outputs[0].shape == (2, 4)
    assert lower(kept).outputs[0].shape == (2, 4, 1, 1)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("conv2d", ("conv2d",)),
        ("conv2d10", ("conv2d",)),
        ("fused_conv2d10_add3_tir_clip1", ("conv2d", "add", "clip")),
        ("fused_layer_norm1_leaky_relu2", ("layer_norm", "leaky_relu")),
        ("fused_conv2d_transpose1_add", ("conv2d_transpose", "add")),
        ("fused_reshape3_transpose4_reshape5", ("reshape", "transpose", "reshape")),
        ("fused_adaptive_avg_pool2d1_relu6", ("adaptive_avg_pool2d", "relu")),
        ("fused_expand_dims_broadcast_to_greater_equal", ("expand_dims", "broadcast_to", "greater_equal")),
        ("tir_sigmoid2", ("sigmoid",)),
        ("fused_novelty7_add", ("novelty", "add")),
    ],
)
def test_operations_are_read_off_names(function: str, expected: tuple[str, ...]) -> None:
    assert normalise_op_name(function) == expected
