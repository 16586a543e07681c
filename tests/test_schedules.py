"""Our schedules against the unscheduled kernels, over the shapes that networks are made of."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as f

from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.backends.tvm.lower import lower
from netcut_fx.backends.tvm.schedules.candidates import Candidate, candidates, scheduled
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.toolchain import import_tvm, limit_threads, tvm_target
from netcut_fx.target import Target
from netcut_fx.tracing import trace

pytest.importorskip("tvm")
BACKEND = TvmBackend("native")
MACHINE = Machine.of(BACKEND.target)
#: Candidates of a kernel that are tried: the first, and some all over the list.
_TRIED = 5


class Residual(nn.Module):
    """A convolution whose result is added to its input before an activation."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.convolution(x) + x)


class Joined(nn.Module):
    """Two convolutions, concatenated along channels."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        self.left = nn.Conv2d(8, left, 1)
        self.right = nn.Conv2d(8, right, 1)

    def forward(self, x: Tensor) -> Tensor:
        return f.relu(torch.cat([self.left(x), self.right(x)], 1)) * 2


def image(channels: int, size: int = 12) -> tuple[int, ...]:
    """Shape of a batch of one picture."""
    return (1, channels, size, size)


#: name -> (network, input shape, whether we have a schedule for its first kernel)
KERNELS: dict[str, tuple[nn.Module, tuple[int, ...], bool]] = {
    "pointwise": (nn.Conv2d(24, 40, 1), image(24), True),
    "pointwise, strided": (nn.Conv2d(16, 32, 1, stride=2), image(16, 13), True),
    "three by three": (nn.Conv2d(16, 32, 3, padding=1), image(16), True),
    "three by three, strided": (nn.Conv2d(16, 32, 3, stride=2, padding=1), image(16, 15), True),
    "dilated": (nn.Conv2d(16, 16, 3, padding=2, dilation=2), image(16), True),
    "prime plane": (nn.Conv2d(16, 16, 3, padding=1), image(16, 17), True),
    "first layer": (nn.Conv2d(3, 32, 3, stride=2, padding=1), image(3, 21), True),
    "first layer, large window": (nn.Conv2d(3, 16, 7, stride=2, padding=3), image(3, 20), True),
    "one channel": (nn.Conv2d(1, 8, 5), image(1, 14), True),
    "batch": (nn.Conv2d(8, 16, 3, padding=1), (3, 8, 6, 6), True),
    "rectangle": (nn.Conv2d(8, 16, (1, 5), padding=(0, 2)), (1, 8, 4, 30), True),
    "groups": (nn.Conv2d(64, 64, 3, padding=1, groups=2), image(64, 7), True),
    "narrow groups": (nn.Conv2d(16, 16, 3, padding=1, groups=8), image(16), False),
    "odd channels": (nn.Conv2d(8, 21, 3, padding=1), image(8), True),
    "depthwise": (nn.Conv2d(32, 32, 3, padding=1, groups=32), image(32), True),
    "depthwise, strided": (nn.Conv2d(32, 32, 5, stride=2, padding=2, groups=32), image(32, 13), True),
    "depthwise, dilated": (nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16), image(16, 9), True),
    "residual": (Residual(16, nn.ReLU()), image(16, 7), True),
    "relu6": (nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU6()), image(16), True),
    "hardswish": (nn.Sequential(nn.Conv2d(16, 16, 1), nn.Hardswish()), image(16), True),
    "silu": (nn.Sequential(nn.Conv2d(16, 16, 3), nn.SiLU()), image(16), True),
    "no bias": (nn.Conv2d(16, 16, 3, bias=False), image(16), True),
    "head": (nn.Linear(64, 1000), (1, 64), True),
    "tokens": (nn.Linear(32, 48), (1, 197, 32), True),
    "sequence": (nn.Conv1d(16, 16, 3, padding=1), (1, 16, 31), True),
    "volume": (nn.Conv3d(4, 16, 3, padding=1), (1, 4, 5, 6, 7), True),
    "joined": (Joined(16, 32), image(8), True),
}


def kernels_of(network: nn.Module, shape: tuple[int, ...], target: Target = BACKEND.target) -> list[Any]:
    """The kernels of `network` before scheduling, tensors laid out, as the compiler passes them to schedules."""
    import_tvm()
    from tvm import tirx
    from tvm.relax import transform

    lowered = lower(trace(network.eval(), torch.zeros(shape)), target)
    with tvm_target(target):
        module = transform.AttachAttrLayoutFreeBuffers()(lowered.module)
    return [function for function in module.functions.values() if isinstance(function, tirx.PrimFunc)]


def outputs(function: Any) -> np.ndarray:
    """What a kernel computes of random numbers."""
    tvm = import_tvm()
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal([int(n) for n in p.ty.shape]).astype(np.float32) for p in function.params]
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    limit_threads(1)
    tvm.tirx.build(module, target=tvm_target(BACKEND.target))["main"](*tensors)
    return tensors[-1].numpy()


def some(found: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The first of `found`, and some from all over."""
    return found[:2] + found[2 :: max(1, len(found) // _TRIED)]


@pytest.mark.parametrize("name", KERNELS)
def test_candidates_compute_what_the_unscheduled_kernel_does(name: str) -> None:
    network, shape, ours = KERNELS[name]
    tried = 0
    for function in kernels_of(network, shape):
        expected = outputs(function)
        for candidate in some(candidates(function, MACHINE)):
            got = outputs(scheduled(function, candidate).mod["main"])
            tried += 1
            assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max(), candidate.name
    assert (tried > 0) == ours


@pytest.mark.parametrize(
    "name", ["pointwise", "three by three", "first layer", "depthwise", "joined", "head", "tokens", "prime plane"]
)
def test_parallel_candidates_compute_the_same(name: str) -> None:
    network, shape, _ = KERNELS[name]
    for function in kernels_of(network, shape):
        expected = outputs(function)
        for candidate in some(candidates(function, replace(MACHINE, threads=2))):
            module = scheduled(function, candidate).mod
            assert "T.parallel" in module.script()
            assert np.abs(outputs(module["main"]) - expected).max() <= 1e-5 * np.abs(expected).max(), candidate.name


@pytest.mark.parametrize(("left", "right"), [(32, 32), (48, 48), (64, 64), (304, 304), (16, 80)])
def test_what_is_concatenated_is_read_as_vectors(left: int, right: int) -> None:
    """Where lanes seem to come from different operands, each is computed on its own, or with those of other lines."""
    tvm = import_tvm()
    divided = set[str]()
    network = nn.Sequential(Joined(left, right), nn.BatchNorm2d(left + right), nn.ReLU(), nn.Conv2d(left + right, 8, 1))
    for function in kernels_of(network, image(8)):
        for candidate in candidates(function, MACHINE):
            if candidate.name == "vectors":
                main = scheduled(function, candidate).mod["main"].with_attr("global_symbol", "main")
                library = tvm.tirx.build(tvm.IRModule({"main": main}), target=tvm_target(BACKEND.target))
                code = library.inspect_source("ll")
                assert "masked.gather" not in code
                divided.update(re.findall(r"fdiv.*? (float|<\d+ x float>)", code))
    assert divided == {f"<{MACHINE.lanes} x float>"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    channels=st.sampled_from([1, 3, 4, 8, 12, 16, 20, 32]),
    filters=st.sampled_from([8, 12, 16, 24, 48]),
    size=st.tuples(st.integers(5, 13), st.integers(5, 13)),
    window=st.sampled_from([1, 2, 3, 5]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
)
def test_first_candidates_of_any_convolution(
    channels: int, filters: int, size: tuple[int, int], window: int, stride: int, padding: int
) -> None:
    network = nn.Sequential(nn.Conv2d(channels, filters, window, stride, min(padding, window - 1)), nn.ReLU())
    torch.manual_seed(0)
    example = torch.randn(1, channels, *size)
    compiled = BACKEND.compile(trace(network.eval(), example))
    with torch.no_grad():
        expected = network(example).numpy()
    assert np.abs(compiled.run(example.numpy()) - expected).max() <= 1e-5 * np.abs(expected).max() + 1e-7


#: Machines that this one is not: how code for them is asked for, and what our target for them looks like.
ELSEWHERE = {
    "avx2": ({"kind": "llvm", "mcpu": "haswell"}, replace(BACKEND.target, mcpu="haswell", features=("avx2", "fma"))),
    "neon": ({"kind": "llvm", "mtriple": "aarch64-linux-gnu"}, replace(BACKEND.target, mcpu="", arch="aarch64")),
}


@pytest.mark.parametrize("where", ELSEWHERE)
@pytest.mark.parametrize("name", ["pointwise", "three by three, strided", "first layer", "depthwise", "joined", "head"])
def test_candidates_generate_code_for_other_machines(name: str, where: str) -> None:
    tvm = import_tvm()
    network, shape, _ = KERNELS[name]
    words, target = ELSEWHERE[where]
    for function in kernels_of(network, shape, target):
        found = candidates(function, Machine.of(target))
        assert found
        for candidate in found[:2]:
            main = scheduled(function, candidate).mod["main"].with_attr("global_symbol", "main")
            library = tvm.tirx.build(tvm.IRModule({"main": main}), target=tvm.target.Target(words))
            assert library is not None
