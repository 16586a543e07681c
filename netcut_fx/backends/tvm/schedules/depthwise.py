"""Depthwise convolutions: channels are vectors, several columns at once so that their inputs are shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.register_tile import result_block
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
    width, data_bytes = found.rows[-1].extent, 4
    for n in found.data.shape:
        data_bytes *= n
    # Channels outermost keep the lines of a window in the nearest cache, and jump through memory.
    first = data_bytes > machine.l2_bytes
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
    stage = found.stage
    inline_neighbours(schedule, kernel, everything=True)
    block = schedule.get_sblock(stage.name)
    last, place = result_block(schedule, kernel, block)
    loops = dict(zip(stage.axes, schedule.get_loops(block), strict=True))
    panel, vector, lane = schedule.split(loops[found.channel], [None, plan.vectors, plan.lanes])
    *rows, column_axis = found.rows
    column, inside = schedule.split(loops[column_axis], [None, plan.columns])
    lines = [loops[axis] for axis in rows]
    order = [*lines, panel, column] if plan.lines_outermost else [panel, *lines, column]
    sums = [loops[axis] for axis in found.sums]
    rest = [loops[axis] for axis in stage.axes if axis not in (found.channel, *found.rows, *found.sums)]
    schedule.reorder(*rest, *order, *sums, inside, vector, lane)
    schedule.reverse_compute_at(last, order[-1], preserve_unit_loops=True)
    own = schedule.get_loops(last)[len(rest) + len(order) :]
    vectors, own_lane = schedule.split(own[place], [None, plan.lanes])
    others = [loop for n, loop in enumerate(own) if n != place]
    schedule.reorder(*others, vectors, own_lane)
    schedule.vectorize(own_lane)
    for loop in (*others, vectors):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    for loop in (*sums, inside, vector):
        schedule.unroll(loop)
    first = schedule.decompose_reduction(block, sums[0])
    started = schedule.get_loops(first)[-3:]
    schedule.vectorize(started[-1])
    for loop in started[:-1]:
        schedule.unroll(loop)
    if machine.threads > 1:
        schedule.parallel(schedule.fuse(*order[:-1]) if len(order) > 2 else order[0])
