"""Element-wise kernels and rearrangements: one pass over the result, its innermost dimension as vectors."""

from __future__ import annotations

import math
from typing import Any

from netcut_fx.backends.tvm.schedules.axes import KernelAxes, links_of
from netcut_fx.backends.tvm.schedules.kernel import Kernel, channel_place
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.stages import Axis, Stage, step_of
from netcut_fx.backends.tvm.schedules.surroundings import vectorize_inner

#: A concatenation of more parts stays a loop that asks for each of them where it is.
_UNROLLED_PARTS = 128


def is_injective(kernel: Kernel) -> bool:
    """Whether nothing in `kernel` reduces."""
    return not any(stage.reduces for stage in kernel.stages)


def apply_injective(schedule: Any, kernel: Kernel, machine: Machine) -> None:
    """Inline everything into the last nest and make that one vectors, operands of a concatenation one by one."""
    for stage in kernel.stages[:-1]:
        schedule.compute_inline(schedule.get_sblock(stage.name))
    vectorize_inner(schedule, kernel.last, machine, common_part(kernel, machine))


def common_part(kernel: Kernel, machine: Machine) -> int:
    """Length whose multiples are the seams of a concatenation along the innermost dimension; 0 without one.

    A vector's, where the loop over parts does not get too long: within longer parts the compiler sometimes does not see
    that all lanes of a vector come from the same operand, and goes through them one by one.
    """
    last = kernel.last
    place = channel_place(last)
    if place is None:
        return 0
    extent = last.axes[place].extent
    walks = KernelAxes(kernel.stages, None, (), links_of(kernel.stages))
    innermost = walks.spread({last.store.buffer: len(last.store.indices) - 1}, frozenset())
    starts = {0}
    for stage in kernel.stages:
        dimension = innermost.get(stage.store.buffer)
        # Only where the dimension is whole do seams of this nest lie at the same places in the result.
        if dimension is not None and stage.store.shape[dimension] == extent:
            starts.update(_starts(stage, stage.axis_of(stage.store.indices[dimension]), extent))
    part = math.gcd(extent, *starts)
    lanes = machine.lanes_for(part)
    if part == extent or lanes == 1:
        return 0
    part = lanes if extent <= lanes * _UNROLLED_PARTS else part
    return part if extent <= part * _UNROLLED_PARTS else 0


def _starts(stage: Stage, axis: Axis | None, extent: int) -> set[int]:
    """Where the operands of `stage` start along `axis`, if they are shorter than its `extent`."""
    found: set[int] = set()
    for load in stage.loads:
        for index, length in zip(load.indices, load.shape, strict=True):
            if axis is None or stage.axis_of(index) is not axis or length >= extent:
                continue
            start = _start(index, axis.var)
            if start is not None and 0 <= start < extent:
                found.update({start, min(start + length, extent)})
    return found - {extent}


def _start(index: Any, var: Any) -> int | None:
    """Value of `var` at which `index` is zero, for indices of the form ``var - constant``."""
    from tvm import tirx

    if isinstance(index, tirx.Var):
        return 0
    if isinstance(index, tirx.Sub) and isinstance(index.b, tirx.IntImm) and step_of(index.a, var) == 1:
        inner = _start(index.a, var)
        return None if inner is None else inner + int(index.b)
    return None
