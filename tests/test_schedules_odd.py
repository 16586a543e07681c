"""Schedules for what is no multiple of anything: odd channels, narrow groups, rows of softmax and layer norm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netcut_fx.tracing import trace
from tests.test_schedules import BACKEND, ELSEWHERE, MACHINE, kernels_of, outputs, some

pytest.importorskip("tvm")
from netcut_fx.backends.tvm.schedules.candidates import candidates, scheduled
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.packing import Packing
from netcut_fx.backends.tvm.schedules.padding import padded_extent
from netcut_fx.backends.tvm.toolchain import import_tvm


class Attention(nn.Module):
    """What attention does with queries, keys and values that are all its input."""

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(torch.matmul(x, x.transpose(-1, -2) * 0.1), -1)
        return torch.matmul(weights, x + 1)


class Applied(nn.Module):
    """One function of a tensor."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # pyright: ignore[reportCallIssue]


def chain(channels: int, stride: int = 1) -> nn.Module:
    """Convolutions, a depthwise one among them, poolings and a head, all of them with odd channels."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, stride, 1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1),
        nn.Conv2d(channels, channels, 3, 1, 1, groups=channels),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, channels + 1, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels + 1, 11),
    )


#: name -> (network, input shape)
ODD: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "shuffled": (chain(58), (1, 3, 13, 13)),
    "returned": (nn.Conv2d(8, 21, 3, padding=1), (2, 8, 9, 9)),
    "no bias": (nn.Conv2d(8, 37, 1, bias=False), (1, 8, 7, 7)),
    "many classes": (nn.Linear(32, 1001), (1, 32)),
    "groups": (nn.Sequential(nn.Conv2d(8, 56, 1), nn.Conv2d(56, 56, 3, padding=1, groups=7)), (1, 8, 6, 6)),
    "attention": (Attention(), (2, 37, 16)),
    "layer norm": (nn.LayerNorm(37), (2, 5, 37)),
    "wide layer norm": (nn.LayerNorm(96), (1, 7, 96)),
    "softmax": (nn.Softmax(-1), (3, 5, 19)),
}


def error(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Largest difference of the compiled network from torch's, relative to the largest output."""
    torch.manual_seed(0)
    example = torch.randn(shape)
    with torch.no_grad():
        expected = network.eval()(example).numpy()
    got = BACKEND.compile(trace(network, example)).run(example.numpy())
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", ODD)
def test_networks_compute_what_torch_does(name: str) -> None:
    assert error(*ODD[name]) <= 1e-5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["returned", "groups", "attention", "layer norm", "softmax"])
def test_candidates_compute_what_the_unscheduled_kernel_does(name: str, threads: int) -> None:
    for function in kernels_of(*ODD[name]):
        expected = outputs(function)
        found = candidates(function, replace(MACHINE, threads=threads))
        assert found
        for candidate in some(found)[:4]:
            got = outputs(scheduled(function, candidate).mod["main"])
            assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max(), candidate.name


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(channels=st.integers(2, 70), stride=st.integers(1, 3))
def test_any_number_of_channels(channels: int, stride: int) -> None:
    assert error(chain(channels, stride), (1, 3, 14, 14)) <= 1e-5


@pytest.mark.parametrize("where", ELSEWHERE)
@pytest.mark.parametrize("name", ["shuffled", "attention", "layer norm"])
def test_code_for_other_machines(name: str, where: str) -> None:
    tvm = import_tvm()
    words, target = ELSEWHERE[where]
    for function in kernels_of(*ODD[name], target):
        for candidate in candidates(function, Machine.of(target))[:1]:
            main = scheduled(function, candidate).mod["main"].with_attr("global_symbol", "main")
            assert tvm.tirx.build(tvm.IRModule({"main": main}), target=tvm.target.Target(words)) is not None


@pytest.mark.parametrize(
    "function", [torch.sigmoid, torch.tanh, torch.erf, torch.exp, nn.functional.gelu], ids=lambda f: f.__name__
)
def test_functions_are_as_precise_as_their_type(function: object) -> None:
    # In rows, since a vector's lanes and what is left over take different code.
    network, values = Applied(function), torch.linspace(-20, 20, 2001).reshape(3, 667)
    got = BACKEND.compile(trace(network, values)).run(values.numpy())
    expected = network(values.double()).numpy()
    assert np.abs((got - expected) / np.maximum(1, np.abs(expected))).max() <= 1e-6


@pytest.mark.parametrize("function", [torch.sigmoid, torch.tanh, torch.erf, torch.exp], ids=lambda f: f.__name__)
def test_what_is_no_number_stays_none(function: object) -> None:
    network, values = Applied(function), torch.zeros(2, 37)
    values[0, 3] = values[1, 36] = torch.nan
    got = BACKEND.compile(trace(network, values)).run(values.numpy())
    assert np.array_equal(np.isnan(got), values.isnan().numpy())


def test_padded_extents() -> None:
    machine = Machine(16, 32)
    assert [padded_extent(n, machine) for n in (1, 3, 5, 10, 16, 24, 58, 116, 232, 440)] == [
        *(1, 4, 8, 16, 16, 24, 64, 128, 240, 448)
    ]
    assert [padded_extent(n, Machine(4, 32)) for n in (2, 10, 58)] == [4, 12, 60]


def test_packing_pads_to_an_extent() -> None:
    array = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    assert Packing((0, 2, 1), extent=4).apply(array).tolist() == [[[0, 2, 4, 0], [1, 3, 5, 0]]]
    panels = Packing((1, 0, 2), 2, 8)
    assert panels.shape(array.shape) == panels.apply(array).shape == (4, 1, 2, 2)
