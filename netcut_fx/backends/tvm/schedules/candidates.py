"""The schedules that are worth trying for a kernel, best first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from netcut_fx.backends.tvm.schedules.depthwise import apply_depthwise, depthwise_plans
from netcut_fx.backends.tvm.schedules.injective import apply_injective, is_injective
from netcut_fx.backends.tvm.schedules.kernel import Kernel, read_kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.products import apply_product, product_plans
from netcut_fx.backends.tvm.schedules.register_tile import apply_tile, tile_plans
from netcut_fx.backends.tvm.schedules.row_wise import apply_row_wise, read_row_wise
from netcut_fx.backends.tvm.schedules.windows import apply_window, window_plans
from netcut_fx.backends.tvm.schedules.winograd_nests import RESULT, SUMS
from netcut_fx.backends.tvm.schedules.winograd_tiles import apply_winograd, winograd_plans
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
    return tuple(_candidates(function, machine))


def _candidates(function: Any, machine: Machine) -> Iterator[Candidate]:
    kernel = read_kernel(function)
    if kernel is None:
        rows = read_row_wise(function)
        if rows is not None:
            yield Candidate("rows", partial(apply_row_wise, kernel=rows, machine=machine))
        return
    if not _is_written_in_place(kernel):
        return
    kinds = (
        (tile_plans, apply_tile),
        (winograd_plans, apply_winograd),
        (product_plans, apply_product),
        (depthwise_plans, apply_depthwise),
        (window_plans, apply_window),
    )
    for ways, use in kinds:
        for plan in ways(kernel, machine):
            yield Candidate(str(plan), partial(use, kernel=kernel, plan=plan, machine=machine))
    if is_injective(kernel):
        yield Candidate("vectors", partial(apply_injective, kernel=kernel, machine=machine))


def _is_written_in_place(kernel: Kernel) -> bool:
    """Whether what follows the sums has no more elements than they: a padding has, and loses its border."""
    made = next((s for s in kernel.after if s.name == RESULT), kernel.anchor)
    return all(stage.points <= made.written for stage in kernel.after if stage.name != SUMS)


def scheduled(function: Any, candidate: Candidate) -> Any:
    """A `tvm.s_tir.Schedule` of `function` with `candidate` applied."""
    import_tvm()
    from tvm import s_tir

    schedule = s_tir.Schedule(function)
    candidate.apply(schedule)
    return schedule
