"""Kernels of several reductions along the rows of one tensor (softmax, layer norm): row by row, in vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.stages import Axis, Stage, read_stages


def pad_sums(function: Any, machine: Machine) -> Any:
    """`function` whose sums along innermost dimensions take whole vectors, the last filled up with neutral elements."""
    import tvm_ffi
    from tvm import ir, s_tir, tirx

    found = read_row_wise(function)
    if found is None:
        return function
    ends: dict[Any, int] = {}
    loops: dict[Any, int] = {}
    for stage in found.stages:
        axis = stage.axes[-1]
        combines = isinstance(stage.value, (tirx.Add, tirx.Max, tirx.Min))
        if combines and axis.reduces and axis.extent > machine.lanes and axis.extent % machine.lanes:
            ends[axis.var] = axis.extent + -axis.extent % machine.lanes

    def see(realize: Any) -> None:
        for value, own in zip(realize.iter_values, realize.block.iter_vars, strict=True):
            if own.var in ends:
                loops[value] = ends[own.var]

    def block(nest: Any) -> Any:
        own = nest.iter_vars[-1] if len(nest.iter_vars) else None
        if own is None or own.var not in ends:
            return nest
        value, start = nest.body.value, nest.init.value
        guarded = tirx.if_then_else(own.var < own.dom.extent, value.b, start)
        body = tirx.BufferStore(nest.body.buffer, type(value)(value.a, guarded), nest.body.indices)
        domain = ir.Range(own.dom.min, tirx.IntImm(own.dom.extent.ty, ends[own.var]))
        variables = [*nest.iter_vars[:-1], tirx.IterVar(domain, own.var, own.iter_type)]
        reads = [_whole(region, own) for region in nest.reads]
        return s_tir.SBlock(
            variables, reads, nest.writes, nest.name_hint, body, nest.init, annotations=nest.annotations
        )

    def loop(nest: Any) -> Any:
        if nest.loop_var not in loops:
            return nest
        extent = tirx.IntImm(nest.extent.ty, loops[nest.loop_var])
        return tirx.For(nest.loop_var, nest.min, extent, nest.kind, nest.body)

    tvm_ffi.structural_walk(function.body, (s_tir.SBlockRealize, see))
    return function.with_body(tvm_ffi.structural_map(function.body, ((s_tir.SBlock, block), (tirx.For, loop))))


def _whole(region: Any, own: Any) -> Any:
    """A region that reads up to the old end of loop `own`, and not to its new one."""
    from tvm import ir

    ranges = [ir.Range(own.dom.min, own.dom.extent) if r.min.same_as(own.var) else r for r in region.region]
    return type(region)(region.source, ranges, region.ty)


@dataclass(frozen=True, eq=False)
class RowWise:
    """A kernel whose nests all walk the same rows.

    Parameters
    ----------
    stages : tuple of Stage
        Its nests, the last of them element-wise.
    rows : int
        How many outermost loops they share.
    """

    stages: tuple[Stage, ...]
    rows: int


def read_row_wise(function: Any) -> RowWise | None:
    """Read a kernel as row-wise; None if it is not, or reduces less than twice."""
    stages = read_stages(function)
    written = [s for s in stages if any(s.store.buffer.same_as(p) for p in function.params)]
    if len(written) != 1 or written[0] is not stages[-1] or stages[-1].reduces:
        return None
    if sum(stage.reduces for stage in stages) < 2:
        return None
    inner = {stage.store.buffer for stage in stages}
    rows = min(_leading(stage, stages[-1], inner) for stage in stages)
    return RowWise(stages, rows) if rows > 0 else None


def _leading(stage: Stage, last: Stage, inner: set[Any]) -> int:
    """How many outermost loops of `stage` walk the same dimensions as in `last`, in all that nests hand on."""
    accesses = [stage.store, *(load for load in stage.loads if load.buffer in inner)]
    for place, (axis, like) in enumerate(zip(stage.axes[:-1], last.axes[:-1], strict=False)):
        walked = all(len(a.indices) > place and _is(a.indices[place], axis) for a in accesses)
        if axis.reduces or axis.extent != like.extent or not walked:
            return place
    return min(len(stage.axes), len(last.axes)) - 1


def _is(index: Any, axis: Axis) -> bool:
    return index.same_as(axis.var) or axis.extent == 1


def apply_row_wise(schedule: Any, kernel: RowWise, machine: Machine) -> None:
    """Schedule `kernel`: nests that one row needs follow each other, sums in as many parts as a vector has lanes."""
    kept: list[tuple[Stage, Any, Any]] = []
    for stage in kernel.stages[:-1]:
        block = schedule.get_sblock(stage.name)
        if stage.reduces:
            kept.append((stage, block, _in_parts(schedule, stage, machine)))
        elif len([s for s in kernel.stages if any(r.buffer.same_as(stage.store.buffer) for r in s.loads)]) > 1:
            kept.append((stage, block, None))
        else:
            schedule.compute_inline(block)
    last = schedule.get_sblock(kernel.stages[-1].name)
    row = schedule.fuse(*schedule.get_loops(last)[: kernel.rows])
    for _, block, parts in reversed(kept):
        for each in (block, parts):
            if each is not None:
                schedule.compute_at(each, row, preserve_unit_loops=True)
    if machine.threads > 1:
        schedule.parallel(row)
    for stage, block, parts in kept:
        if parts is not None:
            # Moving a nest puts its loops in the order of the block's variables: the lanes first.
            lane, *_, steps = schedule.get_loops(parts)[1:]
            schedule.reorder(steps, lane)
            # The last vector may ask where its sum ends: code of its own for it.
            schedule.annotate(steps, "pragma_loop_partition_hint", 1)
            schedule.vectorize(lane)
            started = schedule.decompose_reduction(parts, steps)
            schedule.vectorize(schedule.get_loops(started)[-1])
        elif not stage.reduces:
            _vectors(schedule, block, stage.axes[-1].extent, machine)
    _vectors(schedule, last, kernel.stages[-1].axes[-1].extent, machine)


def _in_parts(schedule: Any, stage: Stage, machine: Machine) -> Any | None:
    """Split a sum along the innermost dimension into one for each lane of a vector; gives what sums these."""
    axis = stage.axes[-1]
    if not axis.reduces or axis.extent % machine.lanes:
        return None
    loop = schedule.get_loops(schedule.get_sblock(stage.name))[-1]
    parts = schedule.rfactor(schedule.split(loop, [None, machine.lanes])[1], len(stage.store.indices))
    schedule.set_scope(parts, 0, "local")
    return parts


def _vectors(schedule: Any, block: Any, extent: int, machine: Machine) -> None:
    """Make the innermost loop of an element-wise nest vectors, with code of its own for what is left over."""
    if extent < machine.lanes:
        return
    steps, lane = schedule.split(schedule.get_loops(block)[-1], [None, machine.lanes])
    if extent % machine.lanes:
        schedule.annotate(steps, "pragma_loop_partition_hint", 1)
    schedule.vectorize(lane)
