"""Schedules of Winograd's algorithm: a block of tiles is transformed, multiplied and written while it lies in cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.registers import unroll_tile
from netcut_fx.backends.tvm.schedules.stages import FLOAT_BYTES, Stage
from netcut_fx.backends.tvm.schedules.tile import Tile, cost, tiles
from netcut_fx.backends.tvm.schedules.winograd import SPAN, TILE
from netcut_fx.backends.tvm.schedules.winograd_nests import COLUMNS, DATA, LINES, PRODUCTS, RESULT, SUMS

#: What comes from further away than the second cache.
_FAR_BYTES_PER_CYCLE = 16.0
#: What it takes to start all threads for each of the steps of a block.
_LAUNCH_CYCLES = 30_000
_WORTH_TRYING = 8


@dataclass(frozen=True)
class WinogradPlan:
    """One way to compute a convolution by Winograd's algorithm.

    Parameters
    ----------
    lines : int
        Lines of tiles in a block.
    tile : Tile
        What the registers hold of the products: tiles of the block by output channels.
    shared : bool
        Whether all threads work on one block at a time, or each on one of its own.
    """

    lines: int
    tile: Tile
    shared: bool


def winograd_plans(kernel: Kernel, machine: Machine) -> tuple[WinogradPlan, ...]:
    """Ways to compute `kernel`, best first; none if it is not what `with_winograd` makes."""
    stage = kernel.anchor
    if stage.name != PRODUCTS:
        return ()
    out, inner = stage.axes[-2].extent, stage.axes[-1].extent
    images, down, across = (axis.extent for axis in stage.axes[2:5])
    products = SPAN * SPAN * images * down * across * inner * out
    stride_bytes = inner * FLOAT_BYTES
    found: dict[WinogradPlan, float] = {}
    for lines in (n for n in range(1, down + 1) if down % n == 0):
        rows, blocks = lines * across, images * (down // lines)
        far = _far_bytes(rows, inner, out, blocks, machine) / _FAR_BYTES_PER_CYCLE
        for tile in tiles(1, rows, out, machine.lanes, machine, stride_bytes):
            # Code for a smaller last tile would reach into the next block.
            if rows % tile.width:
                continue
            work = products * cost(tile, rows, machine, stride_bytes) + far
            for shared in (False, True)[: machine.threads]:
                share = 1 / machine.threads if shared else -(-blocks // machine.threads) / blocks
                launches = _LAUNCH_CYCLES * blocks if shared else 0
                found[WinogradPlan(lines, tile, shared)] = work * share + launches
    return tuple(sorted(found, key=lambda plan: found[plan])[:_WORTH_TRYING])


def _far_bytes(rows: int, inner: int, out: int, blocks: int, machine: Machine) -> int:
    """What is read from beyond the second cache if blocks of `rows` tiles are computed one after the other."""
    near = machine.l2_bytes // 2
    weights = SPAN * SPAN * inner * out * FLOAT_BYTES
    block = SPAN * SPAN * rows * (inner + out) * FLOAT_BYTES
    return weights * (blocks if weights > near else 1) + (2 * block * blocks if block > near else 0)


def apply_winograd(schedule: Any, kernel: Kernel, plan: WinogradPlan, machine: Machine) -> None:
    """Schedule `kernel` by `plan`."""
    lanes = machine.lanes
    _number_tiles(schedule, kernel)
    for stage in kernel.before:
        if stage.name not in (DATA, LINES, COLUMNS):
            schedule.compute_inline(schedule.get_sblock(stage.name))
    for stage in kernel.after[:-1]:
        if stage.name != SUMS:
            schedule.compute_inline(schedule.get_sblock(stage.name))
    blocks, panel = _result(schedule, kernel, plan, machine)
    _at(schedule, SUMS, panel)
    shared = plan.shared and machine.threads > 1
    _products(schedule, blocks, plan, shared)
    transformed = schedule.get_sblock(COLUMNS)
    schedule.compute_at(transformed, blocks, preserve_unit_loops=True)
    *_, i, j, n, y, x, c = schedule.get_loops(transformed)
    outer, c = schedule.split(c, [None, lanes])
    schedule.reorder(n, y, x, outer, i, j, c)
    schedule.vectorize(c)
    schedule.unroll(i)
    schedule.unroll(j)
    _at(schedule, LINES, outer)
    if shared:
        schedule.parallel(schedule.fuse(n, y, x))
    data = schedule.get_sblock(DATA)
    schedule.compute_at(data, blocks, preserve_unit_loops=True)
    *_, line, _, c = schedule.get_loops(data)
    schedule.vectorize(schedule.split(c, [None, lanes])[1])
    if shared:
        schedule.parallel(line)


def _result(schedule: Any, kernel: Kernel, plan: WinogradPlan, machine: Machine) -> tuple[Any, Any]:
    """Loops of what writes the result; gives those over blocks and over vectors of channels."""
    last = schedule.get_sblock(kernel.last.name)
    loops = schedule.get_loops(last)
    images, lines, columns, channels = (loops[place] for place in _walked(kernel))
    y, line = schedule.split(lines, [None, TILE])
    x, column = schedule.split(columns, [None, TILE])
    panel, lane = schedule.split(channels, [None, machine.lanes])
    blocks, y = schedule.split(y, [None, plan.lines])
    schedule.reorder(images, blocks, y, x, panel, line, column, lane)
    schedule.vectorize(lane)
    schedule.unroll(line)
    schedule.unroll(column)
    blocks = schedule.fuse(images, blocks)
    if machine.threads > 1:
        schedule.parallel(schedule.fuse(y, x) if plan.shared else blocks)
    return blocks, panel


def _walked(kernel: Kernel) -> list[int]:
    """Which loops of the last nest walk images, lines, columns and channels of the result."""
    place = next(n for n, stage in enumerate(kernel.after) if stage.name == RESULT)
    result = kernel.after[place]
    sums = result.loads[0]
    loops = [_loop(result, sums.indices[dimension]) for dimension in (0, 1, 2, -1)]
    if result is kernel.last:
        return loops
    # What follows is element-wise, so that its nests have the same loops in the same order.
    reader = kernel.after[place + 1]
    read = next(load for load in reader.loads if load.buffer.same_as(result.store.buffer))
    return [_loop(reader, read.indices[loop]) for loop in loops]


def _loop(stage: Stage, index: Any) -> int:
    (axis,) = stage.used_by((index,))
    return stage.axes.index(axis)


def _number_tiles(schedule: Any, kernel: Kernel) -> None:
    """Count the tiles of all images and lines by one loop, so that any number of them fills the registers."""
    _, _, _, down, across = (axis.extent for axis in kernel.anchor.axes[:5])

    def number(n: Any, y: Any, x: Any) -> Any:
        return (n * down + y) * across + x

    block = schedule.get_sblock(PRODUCTS)
    for access in (("read", 0), ("write", 0)):
        schedule.transform_layout(block, access, lambda i, j, n, y, x, c: (i, j, number(n, y, x), c))
    schedule.transform_block_layout(block, lambda i, j, n, y, x, o, k: (i, j, number(n, y, x), o, k))


def _products(schedule: Any, blocks: Any, plan: WinogradPlan, shared: bool) -> None:
    """Products of a block: sums of a register tile stay in registers."""
    block = schedule.get_sblock(PRODUCTS)
    schedule.compute_at(block, blocks, preserve_unit_loops=True)
    i, j, rows, out, k = schedule.get_loops(block)[-5:]
    tile = plan.tile
    rows, row = schedule.split(rows, [None, tile.width])
    panel, vector, lane = schedule.split(out, [None, tile.vectors, tile.lanes])
    schedule.reorder(i, j, panel, rows, k, row, vector, lane)
    written = schedule.cache_write(block, 0, "local")
    schedule.reverse_compute_at(written, rows, preserve_unit_loops=True)
    *_, own_row, channel = schedule.get_loops(written)
    vectors, own_lane = schedule.split(channel, [None, tile.lanes])
    schedule.vectorize(own_lane)
    schedule.unroll(vectors)
    schedule.unroll(own_row)
    # Before the sums are split from their start: what is left then is no reduction that may run in parallel.
    if shared:
        schedule.parallel(schedule.fuse(i, j))
    unroll_tile(schedule, block, k, [row, vector, lane])


def _at(schedule: Any, name: str, loop: Any) -> None:
    """Compute the nest `name` below `loop` in registers: everything unrolled, the innermost loop a vector."""
    block = schedule.get_sblock(name)
    schedule.compute_at(block, loop, preserve_unit_loops=True)
    schedule.set_scope(block, 0, "local")
    *_, i, j, lane = schedule.get_loops(block)
    schedule.vectorize(lane)
    schedule.unroll(i)
    schedule.unroll(j)
