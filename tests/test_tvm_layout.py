"""How tensors of a compiled network lie in memory: channels innermost, weights packed, nothing converted between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netcut_fx.tracing import trace
from tests.zoo import traced_zoo

pytest.importorskip("tvm")
from tvm import relax

from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.backends.tvm.lower import lower
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.packing import Packing
from netcut_fx.backends.tvm.schedules.padding import padded_extent

BACKEND = TvmBackend("native")


class Flattened(nn.Module):
    """A convolution whose whole plane goes to a linear layer: a view that counts on the order of its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.MaxPool2d(2))
        self.linear = nn.Linear(16 * 4 * 4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.flatten(self.convolutions(x), 1))


class TwoOrders(nn.Module):
    """One weight, used by two convolutions and returned as it is by none."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.shared(x)
        return y, self.shared(torch.relu(y))


def shapes(module: Any) -> list[tuple[int, ...]]:
    """Shapes of what the calls in `main` yield."""
    found: list[tuple[int, ...]] = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if isinstance(binding.value, relax.Call):
                assert binding.value.op.name in ("relax.call_tir", "relax.reshape")
                found.append(tuple(int(n) for n in binding.var.ty.shape))
    return found


@pytest.mark.parametrize("name", ["plain_chain", "residual", "inverted_residual", "dense", "inception"])
def test_nothing_is_converted_between_the_kernels_of_a_plain_network(name: str) -> None:
    traced = traced_zoo(name)
    lowered = lower(traced, BACKEND.target)
    logical = [key.partition("->")[2].partition("|")[0] for key in (call.key for call in lowered.calls)]
    for shape, call in zip(logical, lowered.calls, strict=True):
        n, c, h, w = (int(part) for part in shape.split("x")) if shape.count("x") == 3 else (0, 0, 0, 0)
        # A pooled plane is flattened, which keeps its order.
        if h * w > 1 and "pool" not in call.function:
            stored = padded_extent(c, Machine.of(BACKEND.target))
            assert {(n, h, w, c), (n, h, w, stored)} & {*shapes(lowered.module)}, call.function


def test_what_is_viewed_in_another_shape_keeps_its_order() -> None:
    network, example = Flattened().eval(), torch.randn(1, 3, 12, 12)
    assert (1, 16, 4, 4) in shapes(lower(trace(network, example), BACKEND.target).module)
    with torch.no_grad():
        expected = network(example).numpy()
    got = BACKEND.compile(trace(network, example)).run(example.numpy())
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_the_network_returns_keeps_its_order() -> None:
    network = TwoOrders().eval()
    lowered = lower(trace(network, torch.zeros(1, 16, 6, 6)), BACKEND.target)
    assert shapes(lowered.module).count((1, 16, 6, 6)) == 2
    assert len([w for w in lowered.weights if len(w.shape) == 5]) == 1


def test_packing_moves_the_split_dimension_last_and_pads_it() -> None:
    array = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)
    packing = Packing((1, 2, 0), 4)
    packed = packing.apply(array)
    assert packed.shape == packing.shape(array.shape) == (2, 3, 2, 4)
    assert packed[1, 2, 1].tolist() == [array[1, 4, 2], 0, 0, 0]
    assert packing.index_map()(1, 4, 2) == (1, 2, 1, 0)
    assert Packing((1, 0, 2)).apply(array).tolist() == array.transpose(1, 0, 2).tolist()


def test_machines() -> None:
    target = BACKEND.target
    assert Machine.of(replace(target, features=("avx2", "avx512f"), threads=2)) == Machine(16, 32, 32768, 1048576, 2)
    assert Machine.of(replace(target, features=("avx2", "fma"))).lanes == 8
    assert Machine.of(replace(target, arch="aarch64", features=())).registers == 32
    assert [Machine(16, 32).lanes_for(n) for n in (64, 24, 1000, 12, 58, 3)] == [16, 8, 8, 4, 1, 1]
    assert [Machine(4, 32).lanes_for(n) for n in (64, 10)] == [4, 1]
