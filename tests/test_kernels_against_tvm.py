"""Our kernels against those TVM really makes: the same workloads, each as often, for whole networks and fragments."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from netcut_fx.frontier import frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.passes import CutPass, HeadPass, Pipeline
from netcut_fx.tracing import trace
from tests.fragments import FRAGMENTS, Applied
from tests.zoo import ZOO, traced_zoo

pytest.importorskip("tvm")
from tvm import relax

from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.backends.tvm.lower import lower

BACKEND = TvmBackend("llvm")


def assert_same_kernels(traced: TracedModule) -> None:
    ours = Counter(kernel.key for kernel in kernels(traced))
    theirs = Counter(kernel.key for kernel in BACKEND.kernels(traced))
    assert ours, "a network without kernels proves nothing"
    assert (ours - theirs, theirs - ours) == (Counter(), Counter())


def is_kernel(value: Any) -> bool:
    """Whether a binding calls a kernel; anything but a view, packing or unpacking of tuples has to be one."""
    if not isinstance(value, relax.Call):
        assert isinstance(value, relax.Var | relax.Tuple | relax.TupleGetItem), value
        return False
    assert value.op.name in ("relax.reshape", "relax.call_tir"), value
    return bool(value.op.name == "relax.call_tir")


@pytest.mark.parametrize("name", ZOO)
def test_networks(name: str) -> None:
    assert_same_kernels(traced_zoo(name))


@pytest.mark.parametrize("name", ["inception", "functional", "two_inputs", "dict_output", "transformer"])
def test_the_compiler_lists_every_call_of_its_program(name: str) -> None:
    """Else a call that it left out could be missing in our list as well, and both would agree."""
    lowered = lower(traced_zoo(name), BACKEND.target)
    bindings = [binding for block in lowered.module["main"].body.blocks for binding in block.bindings]
    called = [str(b.value.args[0].name_hint) for b in bindings if is_kernel(b.value)]
    assert called == [call.function for call in lowered.calls]
    assert called == [kernel.name for kernel in BACKEND.kernels(traced_zoo(name))]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments(name: str) -> None:
    function, size, layers = FRAGMENTS[name]
    assert_same_kernels(trace(Applied(function, *layers), torch.zeros(size)))


def test_efficientnet_lite() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    network = package.EfficientNet.from_name("efficientnet-lite0")
    assert_same_kernels(trace(network, torch.zeros(1, 3, 96, 96)))


@pytest.mark.parametrize("name", ["inverted_residual", "dense", "transformer"])
def test_a_cut_with_a_head(name: str) -> None:
    traced = traced_zoo(name)
    found = frontiers(traced, max_width=4)
    cut = Pipeline((CutPass(at=found[len(found) // 2].name), HeadPass(classes=3)))(traced)
    assert_same_kernels(cut)
