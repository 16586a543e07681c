"""What stands around the nest that matters: inlined, or computed as vectors before it."""

from __future__ import annotations

from typing import Any

from netcut_fx.backends.tvm.schedules.kernel import Kernel, channel_place, is_copy
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.sharing import EVEN, share
from netcut_fx.backends.tvm.schedules.stages import Stage


def inline_neighbours(schedule: Any, kernel: Kernel, *, everything: bool = False) -> tuple[Stage, ...]:
    """Inline all nests but the anchor, the last, and what would be computed again and again; gives the latter.

    Parameters
    ----------
    schedule : tvm.s_tir.Schedule
        Of the whole kernel.
    kernel : Kernel
        What it was read as.
    everything : bool
        Inline the anchor's operands too, though each of their elements is then computed several times.
    """
    for stage in kernel.after[:-1]:
        schedule.compute_inline(schedule.get_sblock(stage.name))
    read = [load.buffer for load in kernel.anchor.loads]
    kept: list[Stage] = []
    for stage in kernel.before:
        direct = any(stage.store.buffer.same_as(buffer) for buffer in read)
        alone = stage is kernel.before[0] and is_copy(stage)
        if direct and not everything and not alone:
            kept.append(stage)
        else:
            schedule.compute_inline(schedule.get_sblock(stage.name))
    return tuple(kept)


def vectorize_inner(schedule: Any, stage: Stage, machine: Machine, part: int = 0) -> None:
    """Order the loops of an element-wise nest as its result lies in memory, and make the innermost one vectors.

    `part` is a length into whose multiples the innermost loop falls, each of them different from the others.
    """
    block = schedule.get_sblock(stage.name)
    loops = schedule.get_loops(block)
    place = channel_place(stage)
    if place is None or len(loops) != len(stage.axes):
        return
    walked = [stage.axis_of(index) for index in stage.store.indices]
    order = [loops[stage.axes.index(axis)] for axis in walked if axis is not None]
    if len(order) > 1:
        schedule.reorder(*order)
    *outer, inner = order
    if part:
        # Which operand a part comes from is known once parts are unrolled; vectors, made before, need the hint.
        whole, inner = schedule.split(inner, [None, part])
        schedule.unroll(whole)
        schedule.annotate(whole, "pragma_loop_partition_hint", 1)
    lanes = machine.lanes_for(part or stage.axes[place].extent)
    if lanes > 1:
        schedule.vectorize(schedule.split(inner, [None, lanes])[1])
    if machine.threads > 1 and outer:
        shared, others = share(schedule, [outer], machine.threads, (EVEN,))
        if shared:
            schedule.reorder(*shared, *others)
        schedule.parallel(shared[0] if shared else schedule.fuse(*outer))
