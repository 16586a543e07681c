"""Depthwise convolutions: channels are vectors, several columns at once so that their inputs are shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.registers import keep_in_registers, unroll_tile, write_at
from netcut_fx.backends.tvm.schedules.sharing import ANY, share
from netcut_fx.backends.tvm.schedules.surroundings import inline_neighbours

#: More accumulators than this leave no registers for the weights and inputs of a whole window.
_ACCUMULATORS = 8


@dataclass(frozen=True)
class DepthwisePlan:
    """One way to compute a depthwise convolution: columns and channel vectors of a tile, and whether lines come first.

    Padding is always inlined: in an unrolled window only tiles at the border ask for it.
    """

    columns: int
    vectors: int
    lanes: int
    lines_outermost: bool


def depthwise_plans(kernel: Kernel, machine: Machine) -> tuple[DepthwisePlan, ...]:
    """Ways to compute the depthwise convolution of `kernel`, best first."""
    found = kernel.contraction
    if found is None or found.kind != "depthwise" or found.weight.shape[-1] != found.channel.extent:
        return ()
    lanes = machine.lanes_for(found.channel.extent)
    if lanes == 1:
        return ()
    # Channels outermost keep the lines of a window in the nearest cache, and jump through memory.
    first = found.data.bytes > machine.l2_bytes
    width = found.rows[-1].extent
    return tuple(
        DepthwisePlan(columns, vectors, lanes, lines)
        for vectors in (1, 2)
        if found.channel.extent % (lanes * vectors) == 0
        for columns in range(min(width, _ACCUMULATORS // vectors), 0, -1)
        if width % columns == 0
        for lines in (first, not first)
    )


def apply_depthwise(schedule: Any, kernel: Kernel, plan: DepthwisePlan, machine: Machine) -> None:
    """Schedule `kernel` by `plan`."""
    found = kernel.contraction
    assert found is not None
    axes = found.stage.axes
    inline_neighbours(schedule, kernel, everything=True)
    block, last, place = keep_in_registers(schedule, kernel, found.channel)
    loops = dict(zip(axes, schedule.get_loops(block), strict=True))
    panel, vector, lane = schedule.split(loops[found.channel], [None, plan.vectors, plan.lanes])
    *lines, width = [loops[axis] for axis in found.rows]
    column, inside = schedule.split(width, [None, plan.columns])
    sums = [loops[axis] for axis in found.sums]
    rest = [loops[axis] for axis in axes if axis not in (found.channel, *found.rows, *found.sums)]
    shared, outer, panels = share(schedule, [[*rest, *lines], [panel]], machine.threads, ANY)
    order = [*shared, *outer, *panels, column] if plan.lines_outermost else [*shared, *panels, *outer, column]
    schedule.reorder(*order, *sums, inside, vector, lane)
    write_at(schedule, last, column, place, plan.lanes)
    # Before the sums are split from their start: what is left then is no reduction that may run in parallel.
    for loop in shared:
        schedule.parallel(loop)
    for loop in sums:
        schedule.unroll(loop)
    unroll_tile(schedule, block, sums[0], [inside, vector, lane])
