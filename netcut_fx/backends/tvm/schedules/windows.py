"""Poolings and other sums over dimensions that are not innermost: channels are vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.registers import keep_in_registers, unroll_tile, write_at
from netcut_fx.backends.tvm.schedules.sharing import ANY, share
from netcut_fx.backends.tvm.schedules.stages import Axis
from netcut_fx.backends.tvm.schedules.surroundings import inline_neighbours

#: A window of so many elements is unrolled.
_UNROLLED_WINDOW = 25
#: Columns and vectors of a tile, in the order in which they are worth trying.
_SHAPES = ((4, 1), (2, 2), (7, 1), (1, 4), (1, 2), (1, 1))


@dataclass(frozen=True)
class WindowPlan:
    """Columns and channel vectors that are accumulated together."""

    columns: int
    vectors: int
    lanes: int


def window_plans(kernel: Kernel, machine: Machine) -> tuple[WindowPlan, ...]:
    """Ways to compute the reduction of `kernel`, best first; none where it runs along the innermost dimension."""
    channel = _channel(kernel)
    if channel is None:
        return ()
    lanes = machine.lanes_for(channel.extent)
    if lanes == 1:
        return ()
    columns = max((axis.extent for axis in _rows(kernel, channel)[-1:]), default=1)
    return tuple(
        WindowPlan(wide, vectors, lanes)
        for wide, vectors in _SHAPES
        if columns % wide == 0 and channel.extent % (vectors * lanes) == 0
    )


def apply_window(schedule: Any, kernel: Kernel, plan: WindowPlan, machine: Machine) -> None:
    """Schedule `kernel` by `plan`."""
    axes, channel = kernel.anchor.axes, _channel(kernel)
    assert channel is not None
    rows = _rows(kernel, channel)
    sums = [axis for axis in axes if axis.reduces]
    inline_neighbours(schedule, kernel, everything=True)
    block, last, place = keep_in_registers(schedule, kernel, channel)
    loops = dict(zip(axes, schedule.get_loops(block), strict=True))
    panel, vector, lane = schedule.split(loops[channel], [None, plan.vectors, plan.lanes])
    inner = [vector, lane]
    if rows:
        loops[rows[-1]], column = schedule.split(loops[rows[-1]], [None, plan.columns])
        inner = [column, vector, lane]
    outer = [loops[axis] for axis in axes if axis not in (channel, *sums)]
    shared, order = share(schedule, [[*outer, panel]], machine.threads, ANY)
    schedule.reorder(*shared, *order, *[loops[axis] for axis in sums], *inner)
    write_at(schedule, last, [*shared, *order][-1], place, plan.lanes)
    # Before the sums are split from their start: what is left then is no reduction that may run in parallel.
    for loop in shared:
        schedule.parallel(loop)
    if math.prod(axis.extent for axis in sums) <= _UNROLLED_WINDOW:
        for axis in sums:
            schedule.unroll(loops[axis])
    unroll_tile(schedule, block, loops[sums[0]], inner)


def _channel(kernel: Kernel) -> Axis | None:
    """The loop over the innermost dimension of the one operand, if it does not reduce."""
    stage = kernel.anchor
    if kernel.contraction is not None or not stage.reduces or len(stage.loads) != 1:
        return None
    channel = stage.axis_of(stage.loads[0].indices[-1])
    if channel is None or channel.reduces or not any(stage.axis_of(i) is channel for i in stage.store.indices):
        return None
    return channel


def _rows(kernel: Kernel, channel: Axis) -> list[Axis]:
    return [a for a in kernel.anchor.axes if not a.reduces and a is not channel and a.extent > 1]
