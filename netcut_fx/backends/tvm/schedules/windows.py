"""Poolings and other sums over dimensions that are not innermost: channels are vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.surroundings import inline_neighbours

#: A window of so many elements is unrolled.
_UNROLLED_WINDOW = 25


@dataclass(frozen=True)
class WindowPlan:
    """Channel vectors and columns that are accumulated together."""

    columns: int
    vectors: int
    lanes: int


def window_plans(kernel: Kernel, machine: Machine) -> tuple[WindowPlan, ...]:
    """Ways to compute the reduction of `kernel`, best first; none where it runs along the innermost dimension."""
    stage = kernel.anchor
    if kernel.contraction is not None or not stage.reduces or len(stage.loads) != 1:
        return ()
    channel = stage.axis_of(stage.loads[0].indices[-1])
    if channel is None or channel.reduces or stage.axis_of(stage.store.indices[-1]) is not channel:
        # A mean over the whole plane writes its channels before dimensions of one element.
        if channel is None or channel.reduces or not any(stage.axis_of(i) is channel for i in stage.store.indices):
            return ()
    lanes = machine.lanes_for(channel.extent)
    if lanes == 1:
        return ()
    rows = [axis for axis in stage.axes if not axis.reduces and axis is not channel and axis.extent > 1]
    width = rows[-1].extent if rows else 1
    found: list[WindowPlan] = []
    for columns, vectors in ((4, 1), (2, 2), (1, 4), (1, 8), (7, 1), (2, 1), (1, 2), (1, 1)):
        if width % columns == 0 and channel.extent % (vectors * lanes) == 0 and (columns > 1 or not rows or vectors < 4):
            found.append(WindowPlan(columns, vectors, lanes))
    return tuple(found)


def apply_window(schedule: Any, kernel: Kernel, plan: WindowPlan, machine: Machine) -> None:
    """Schedule `kernel` by `plan`."""
    stage = kernel.anchor
    channel = stage.axis_of(stage.loads[0].indices[-1])
    inline_neighbours(schedule, kernel, everything=True)
    block = schedule.get_sblock(stage.name)
    place = next(i for i, index in enumerate(stage.store.indices) if stage.axis_of(index) is channel)
    if kernel.after:
        schedule.set_scope(block, 0, "local")
        last = schedule.get_sblock(kernel.last.name)
        (read,) = (load for load in kernel.after[0].loads if load.buffer.same_as(stage.store.buffer))
        place = kernel.after[0].axes.index(kernel.after[0].axis_of(read.indices[place]))
    else:
        last = schedule.cache_write(block, 0, "local")
    loops = dict(zip(stage.axes, schedule.get_loops(block), strict=True))
    panel, vector, lane = schedule.split(loops[channel], [None, plan.vectors, plan.lanes])
    rows = [axis for axis in stage.axes if not axis.reduces and axis is not channel]
    sums = [axis for axis in stage.axes if axis.reduces]
    outer, inside = [loops[axis] for axis in rows], []
    if plan.columns > 1:
        wide = max(n for n, axis in enumerate(rows) if axis.extent > 1)
        outer[wide], column = schedule.split(outer[wide], [None, plan.columns])
        inside.append(column)
    order = [*outer, panel]
    inner = [*inside, vector, lane]
    schedule.reorder(*order, *[loops[axis] for axis in sums], *inner)
    schedule.reverse_compute_at(last, order[-1], preserve_unit_loops=True)
    own = schedule.get_loops(last)[len(order) :]
    vectors, own_lane = schedule.split(own[place], [None, plan.lanes])
    others = [loop for n, loop in enumerate(own) if n != place]
    schedule.reorder(*others, vectors, own_lane)
    schedule.vectorize(own_lane)
    for loop in (*others, vectors):
        schedule.unroll(loop)
    steps = 1
    for axis in sums:
        steps *= axis.extent
    if steps <= _UNROLLED_WINDOW:
        for axis in sums:
            schedule.unroll(loops[axis])
    schedule.vectorize(lane)
    for loop in inner[:-1]:
        schedule.unroll(loop)
    first = schedule.decompose_reduction(block, loops[sums[0]])
    started = schedule.get_loops(first)[-len(inner) :]
    schedule.vectorize(started[-1])
    for loop in started[:-1]:
        schedule.unroll(loop)
    if machine.threads > 1:
        schedule.parallel(schedule.fuse(*order))
