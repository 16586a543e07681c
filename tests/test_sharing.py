"""What the threads of a kernel share."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netcut_fx.backends.tvm.schedules.candidates import candidates, scheduled
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.sharing import evenness
from tests.test_schedules import MACHINE, image, kernels_of

pytest.importorskip("tvm")


@given(st.integers(1, 1000), st.integers(1, 64))
def test_evenness_is_the_share_of_time_that_threads_work(extent: int, threads: int) -> None:
    pieces = [len(range(thread, extent, threads)) for thread in range(threads)]

    assert evenness(extent, threads) == pytest.approx(sum(pieces) / (threads * max(pieces)))


def parallel_loops(network: nn.Module, shape: tuple[int, ...], machine: Machine) -> list[int]:
    """Extents of the parallel loops of our best schedule of each kernel."""
    ways = [(function, candidates(function, machine)) for function in kernels_of(network, shape)]
    script = "".join(str(scheduled(function, found[0]).mod.script()) for function, found in ways if found)
    assert "for " in script
    assert "fused" not in script
    return [int(extent) for extent in re.findall(r"T\.parallel\((\d+)\)", script)]


@pytest.mark.parametrize(
    ("network", "shape", "threads", "shared"),
    [
        (nn.Conv2d(32, 32, 3, padding=1, groups=32), image(32, 14), 2, 2),
        (nn.Conv2d(32, 32, 3, padding=1, groups=32), image(32, 7), 2, 7),
        (nn.Conv2d(64, 256, 1), image(64, 14), 2, 2),
        (nn.Conv2d(64, 256, 1), image(64, 15), 4, 15),
        (nn.Conv2d(64, 128, 1), image(64, 7), 2, 2),
        (nn.Sequential(nn.Conv2d(32, 32, 1), nn.AvgPool2d(2)), image(32, 12), 3, 3),
    ],
    ids=["depthwise", "depthwise, few lines", "lines", "lines left over", "panels", "pooling"],
)
def test_one_loop_is_shared_and_none_is_fused(
    network: nn.Module, shape: tuple[int, ...], threads: int, shared: int
) -> None:
    assert parallel_loops(network, shape, replace(MACHINE, threads=threads))[-1] == shared


def test_one_thread_shares_nothing() -> None:
    assert parallel_loops(nn.Conv2d(64, 256, 1), image(64, 14), MACHINE) == []
