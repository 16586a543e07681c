"""The schedules that are worth trying for a kernel, best first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules import register_tile
from netcut_fx.backends.tvm.schedules.kernel import Kernel, read_kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.toolchain import import_tvm


@dataclass(frozen=True)
class Candidate:
    """A schedule: what it is called, and what it does to a fresh `tvm.s_tir.Schedule`."""

    name: str
    apply: Callable[[Any], None]


def candidates(function: Any, machine: Machine) -> tuple[Candidate, ...]:
    """Schedules for a fused kernel, those first that should be fastest; none where we know no better than TVM.

    Parameters
    ----------
    function : tvm.tirx.PrimFunc
        Not scheduled; its constant arguments named by `AttachAttrLayoutFreeBuffers`.
    machine : Machine
        What it is compiled for.
    """
    kernel = read_kernel(function)
    if kernel is None:
        return ()
    return tuple(_register_tiles(kernel, machine))


def _register_tiles(kernel: Kernel, machine: Machine) -> list[Candidate]:
    def bound(plan: register_tile.Plan) -> Callable[[Any], None]:
        return lambda schedule: register_tile.apply(schedule, kernel, plan, machine)

    return [Candidate(str(plan), bound(plan)) for plan in register_tile.plans(kernel, machine)]


def scheduled(function: Any, candidate: Candidate) -> Any:
    """A `tvm.s_tir.Schedule` of `function` with `candidate` applied."""
    import_tvm()
    from tvm import s_tir

    schedule = s_tir.Schedule(function)
    candidate.apply(schedule)
    return schedule
