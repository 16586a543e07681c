"""Schedules of Winograd's algorithm: a block of tiles is transformed, multiplied and written while it lies in cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.registers import unroll_tile
from netcut_fx.backends.tvm.schedules.stages import FLOAT_BYTES, Stage
from netcut_fx.backends.tvm.schedules.tile import Tile, tiles
from netcut_fx.backends.tvm.schedules.winograd import SPAN, TILE
from netcut_fx.backends.tvm.schedules.winograd_nests import COLUMNS, DATA, LINES, PRODUCTS, RESULT, SUMS

#: Register tiles and block heights that are worth trying.
_TILES, _BLOCKS = 3, 2


@dataclass(frozen=True)
class WinogradPlan:
    """One way to compute a convolution by Winograd's algorithm.

    Parameters
    ----------
    lines : int
        Lines of tiles in a block.
    tile : Tile
        What the registers hold of the products: tiles of the block by output channels.
    """

    lines: int
    tile: Tile


def winograd_plans(kernel: Kernel, machine: Machine) -> tuple[WinogradPlan, ...]:
    """Ways to compute `kernel`, best first; none if it is not what `with_winograd` makes."""
    stage = kernel.anchor
    if stage.name != PRODUCTS:
        return ()
    out, inner = stage.axes[-2].extent, stage.axes[-1].extent
    images, down, across = (axis.extent for axis in stage.axes[2:5])
    found: list[WinogradPlan] = []
    for lines in _block_heights(images, down, across, inner, out, machine)[:_BLOCKS]:
        ranked = tiles(1, lines * across, out, machine.lanes, machine, inner * FLOAT_BYTES)
        found.extend(WinogradPlan(lines, tile) for tile in ranked[:_TILES])
    return tuple(sorted(found, key=lambda plan: found.index(plan) % _TILES))


def _block_heights(images: int, down: int, across: int, inner: int, out: int, machine: Machine) -> list[int]:
    """Lines of tiles in a block, best first: weights should be read seldom, and a block stay in cache."""
    line_bytes = SPAN * SPAN * across * (inner + out) * FLOAT_BYTES
    weight_bytes = SPAN * SPAN * inner * out * FLOAT_BYTES
    shares = [n for n in range(1, down + 1) if down % n == 0 and images * (down // n) >= min(machine.threads, down)]

    def cost(lines: int) -> float:
        # Bytes that come from further away than the second cache, for all blocks.
        blocks = down // lines
        weights = weight_bytes * (blocks if weight_bytes > machine.l2_bytes // 2 else 1)
        block = 2 * line_bytes * down if lines * line_bytes > machine.l2_bytes // 2 else 0
        # Few rows use registers badly.
        return (weights + block) * (1 + 4 / (lines * across))

    return sorted(shares, key=cost)


def apply_winograd(schedule: Any, kernel: Kernel, plan: WinogradPlan, machine: Machine) -> None:
    """Schedule `kernel` by `plan`."""
    lanes = machine.lanes
    for stage in kernel.before:
        if stage.name not in (DATA, LINES, COLUMNS):
            schedule.compute_inline(schedule.get_sblock(stage.name))
    for stage in kernel.after[:-1]:
        if stage.name != SUMS:
            schedule.compute_inline(schedule.get_sblock(stage.name))
    blocks, panel = _result(schedule, kernel, plan, machine)
    _at(schedule, SUMS, panel)
    _products(schedule, blocks, plan)
    transformed = schedule.get_sblock(COLUMNS)
    schedule.compute_at(transformed, blocks, preserve_unit_loops=True)
    *_, i, j, n, y, x, c = schedule.get_loops(transformed)
    outer, c = schedule.split(c, [None, lanes])
    schedule.reorder(n, y, x, outer, i, j, c)
    schedule.vectorize(c)
    schedule.unroll(i)
    schedule.unroll(j)
    _at(schedule, LINES, outer)
    data = schedule.get_sblock(DATA)
    schedule.compute_at(data, blocks, preserve_unit_loops=True)
    schedule.vectorize(schedule.split(schedule.get_loops(data)[-1], [None, lanes])[1])


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
    if machine.threads > 1:
        blocks = schedule.fuse(images, blocks)
        schedule.parallel(blocks)
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


def _products(schedule: Any, blocks: Any, plan: WinogradPlan) -> None:
    """Products of a block: sums of a tile stay in registers."""
    block = schedule.get_sblock(PRODUCTS)
    schedule.compute_at(block, blocks, preserve_unit_loops=True)
    i, j, n, y, x, out, k = schedule.get_loops(block)[-7:]
    rows = schedule.fuse(n, y, x)
    extent, tile = int(schedule.get(rows).extent), plan.tile
    rows, row = schedule.split(rows, [None, tile.width])
    if extent % tile.width:
        # The last tile is smaller: code of its own for it, so that the others ask nothing.
        schedule.annotate(rows, "pragma_loop_partition_hint", 1)
    panel, vector, lane = schedule.split(out, [None, tile.vectors, tile.lanes])
    schedule.reorder(i, j, panel, rows, k, row, vector, lane)
    written = schedule.cache_write(block, 0, "local")
    schedule.reverse_compute_at(written, rows, preserve_unit_loops=True)
    *_, own_row, channel = schedule.get_loops(written)
    vectors, own_lane = schedule.split(channel, [None, tile.lanes])
    schedule.vectorize(own_lane)
    schedule.unroll(vectors)
    schedule.unroll(own_row)
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
