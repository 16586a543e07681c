"""Sums that stay in registers: where they are kept, started and written from."""

from __future__ import annotations

from typing import Any

from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.stages import Axis


def keep_in_registers(schedule: Any, kernel: Kernel, channel: Axis) -> tuple[Any, Any, int]:
    """Give the sums of `kernel` a buffer that code generation turns into registers.

    Returns
    -------
    block, last : SBlockRV
        What sums, and what writes the result.
    place : int
        Which loop of `last` walks `channel`, an axis of the nest that sums.
    """
    stage = kernel.anchor
    block = schedule.get_sblock(stage.name)
    dimension = next(i for i, index in enumerate(stage.store.indices) if stage.axis_of(index) is channel)
    if not kernel.after:
        # The copy's loops are the dimensions of the buffer.
        return block, schedule.cache_write(block, 0, "local"), dimension
    schedule.set_scope(block, 0, "local")
    # What comes after is element-wise, so that its nests have the same loops in the same order.
    first = kernel.after[0]
    read = next(load for load in first.loads if load.buffer.same_as(stage.store.buffer))
    axis = first.axis_of(read.indices[dimension])
    assert axis is not None
    return block, schedule.get_sblock(kernel.last.name), first.axes.index(axis)


def write_at(schedule: Any, last: Any, loop: Any, place: int, lanes: int) -> None:
    """Write the result below `loop`: channels as vectors, everything unrolled."""
    outside = 1 + next(n for n, own in enumerate(_extended(schedule, last, loop)) if own)
    loops = schedule.get_loops(last)[outside:]
    vectors, lane = schedule.split(loops[place], [None, lanes])
    others = [own for n, own in enumerate(loops) if n != place]
    schedule.reorder(*others, vectors, lane)
    schedule.vectorize(lane)
    for own in (*others, vectors):
        schedule.unroll(own)


def _extended(schedule: Any, last: Any, loop: Any) -> list[bool]:
    """Move `last` below `loop`; says for each loop around it whether it is that one."""
    schedule.reverse_compute_at(last, loop, preserve_unit_loops=True)
    wanted = schedule.get_sref(loop)
    return [schedule.get_sref(own).same_as(wanted) for own in schedule.get_loops(last)]


def unroll_tile(schedule: Any, block: Any, first_sum: Any, inner: list[Any]) -> None:
    """Unroll the loops `inner` of a tile, the last of them a vector, and start its sums before `first_sum`."""
    schedule.vectorize(inner[-1])
    for loop in inner[:-1]:
        schedule.unroll(loop)
    started = schedule.get_loops(schedule.decompose_reduction(block, first_sum))[-len(inner) :]
    schedule.vectorize(started[-1])
    for loop in started[:-1]:
        schedule.unroll(loop)
