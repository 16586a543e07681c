"""Winograd's algorithm for 3x3 convolutions: its matrices, where it is used, and that it computes convolutions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netcut_fx.tracing import trace

pytest.importorskip("tvm")
from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.backends.tvm.schedules.candidates import candidates, scheduled
from netcut_fx.backends.tvm.schedules.winograd import LEAST_CHANNELS, SPAN, TILE, WINDOW, Winograd, matrices
from netcut_fx.backends.tvm.toolchain import import_tvm
from tests.test_schedules import BACKEND, ELSEWHERE, MACHINE, image, kernels_of, outputs

#: The fewest channels in whole vectors that the algorithm is used for.
CHANNELS = max(MACHINE.lanes, LEAST_CHANNELS)


def uses_winograd(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether some kernel of `network` has the nests of the algorithm."""
    return any("winograd" in function.script() for function in kernels_of(network, shape))


def test_matrices_filter_a_line() -> None:
    sums, weights, data = matrices()
    generator = np.random.default_rng(0)
    line, window = generator.standard_normal(SPAN), generator.standard_normal(WINDOW)
    expected = [line[i : i + WINDOW] @ window for i in range(TILE)]
    np.testing.assert_allclose(sums @ ((weights @ window) * (data @ line)), expected, atol=1e-12)


def test_coefficients_of_data_and_sums_are_exact_in_single_precision() -> None:
    sums, _, data = matrices()
    for matrix in (sums, data):
        assert np.array_equal(matrix, matrix.astype(np.float32))


def test_transformed_weights_filter_a_tile() -> None:
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((32, 5, WINDOW, WINDOW))
    order = Winograd((0, 1, 2, 3), 16)
    moved = order.apply(weights)
    assert moved.shape == order.shape(weights.shape) == (SPAN, SPAN, 2, 5, 16)
    sums, _, data = matrices()
    tile = generator.standard_normal((5, SPAN, SPAN))
    products = np.einsum("ax,cxy,by,abpcl->abpl", data, tile, data, moved)
    got = np.einsum("ia,abpl,jb->plij", sums, products, sums).reshape(32, TILE, TILE)
    expected = torch.conv2d(torch.from_numpy(tile)[None], torch.from_numpy(weights))[0].numpy()
    np.testing.assert_allclose(got, expected, atol=1e-10)


@pytest.mark.parametrize(
    ("network", "used"),
    [
        (nn.Conv2d(2 * CHANNELS, CHANNELS, 3, padding=1), True),
        (nn.Conv2d(CHANNELS, CHANNELS, 3), True),
        (nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2), False),
        (nn.Conv2d(CHANNELS, CHANNELS, 3, dilation=2), False),
        (nn.Conv2d(CHANNELS, CHANNELS, 5), False),
        (nn.Conv2d(CHANNELS, CHANNELS, (3, 1)), False),
        (nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 3, groups=2), False),
        (nn.Conv2d(CHANNELS, CHANNELS, 3, groups=CHANNELS), False),
        (nn.Conv2d(3, CHANNELS, 3), False),
        (nn.Conv2d(CHANNELS // 2, CHANNELS, 3), False),
        (nn.Conv2d(CHANNELS, CHANNELS + 1, 3), False),
    ],
)
def test_only_dense_windows_of_three_by_three_in_steps_of_one(network: nn.Module, used: bool) -> None:
    assert uses_winograd(network, image(network.in_channels)) == used  # pyright: ignore[reportArgumentType]


def test_planes_of_a_single_tile_are_computed_as_they_stand() -> None:
    network = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
    assert uses_winograd(network, image(CHANNELS, TILE + 1))
    assert not uses_winograd(network, image(CHANNELS, TILE))


class Layers(nn.Module):
    """Convolutions with what stands around them: an activation before, a sum and an activation behind."""

    def __init__(self, channels: int, padding: int, shortcut: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 2 * CHANNELS, 3, padding=padding)
        self.second = nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 3, padding=1, bias=False)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(torch.tanh(x)))
        z = self.second(y)
        return nn.functional.hardswish(z + y) if self.shortcut else z


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    batch=st.integers(1, 2),
    channels=st.sampled_from([CHANNELS, 2 * CHANNELS, 5 * CHANNELS]),
    size=st.tuples(st.integers(5, 19), st.integers(5, 19)),
    padding=st.integers(0, 2),
    shortcut=st.booleans(),
    threads=st.integers(1, 2),
)
def test_compiled_networks_answer_as_torch_does(
    batch: int, channels: int, size: tuple[int, int], padding: int, shortcut: bool, threads: int
) -> None:
    torch.manual_seed(0)
    network = Layers(channels, padding, shortcut).eval()
    example = torch.randn(batch, channels, *size)

    def answer() -> np.ndarray:
        return TvmBackend("native", threads=threads).compile(trace(network, example)).run(example.numpy())

    # The number of threads belongs to the thread that asks.
    with ThreadPoolExecutor(1) as alone:
        got = alone.submit(answer).result()
    with torch.no_grad():
        expected = network(example).numpy()
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_sums_over_many_channels_are_as_exact_as_those_of_the_plain_window() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(512, 2 * CHANNELS, 3, padding=1).eval()
    example = torch.randn(1, 512, 9, 9)
    with torch.no_grad():
        plain = network(example).double()
        exact = network.double()(example.double())
        network.float()
    got = BACKEND.compile(trace(network, example)).run(example.numpy())
    scale = float(exact.abs().max())
    assert np.abs(got - exact.numpy()).max() / scale < 1e-5
    assert float((plain - exact).abs().max()) / scale < 1e-5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [7, 12, 30])
def test_every_candidate_computes_what_the_unscheduled_kernel_does(size: int, threads: int) -> None:
    (function,) = kernels_of(nn.Conv2d(CHANNELS, 3 * CHANNELS, 3, padding=1), image(CHANNELS, size))
    expected = outputs(function)
    found = candidates(function, replace(MACHINE, threads=threads))
    assert len(found) > 1
    for candidate in found:
        module = scheduled(function, candidate).mod
        assert ("T.parallel" in module.script()) == (threads > 1)
        assert np.abs(outputs(module["main"]) - expected).max() <= 1e-6 * np.abs(expected).max(), candidate.name


@pytest.mark.parametrize("where", ELSEWHERE)
def test_candidates_generate_code_for_other_machines(where: str) -> None:
    tvm = import_tvm()
    words, target = ELSEWHERE[where]
    (function,) = kernels_of(nn.Conv2d(16, 16, 3, padding=1), image(16), target)
    assert "winograd" in function.script()
    for candidate in candidates(function, MACHINE.of(target)):
        main = scheduled(function, candidate).mod["main"].with_attr("global_symbol", "main")
        assert tvm.tirx.build(tvm.IRModule({"main": main}), target=tvm.target.Target(words)) is not None
