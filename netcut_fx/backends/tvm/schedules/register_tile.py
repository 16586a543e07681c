"""Convolutions and matrix products: accumulators of a tile stay in registers while the sum runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.contraction import Contraction
from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.registers import keep_in_registers, unroll_tile, write_at
from netcut_fx.backends.tvm.schedules.stages import FLOAT_BYTES, Axis, step_of
from netcut_fx.backends.tvm.schedules.surroundings import inline_neighbours, vectorize_inner
from netcut_fx.backends.tvm.schedules.tile import Tile, tiles
from netcut_fx.backends.tvm.toolchain import import_tvm

#: A sum over so few channels is unrolled, and a window of so few products with it. Padding is then inlined: which
#: elements lie outside is known when code is made, but for the tiles at the border.
_FEW_CHANNELS, _UNROLLED_WINDOW = 4, 32
#: Positions of a usual tile, to reckon how often weights are read.
_USUAL_ROWS = 14


@dataclass(frozen=True)
class TilePlan:
    """One way to compute a contraction: its tile, and whether panels of channels are the outermost loop."""

    tile: Tile
    channels_outermost: bool


def tile_plans(kernel: Kernel, machine: Machine) -> tuple[TilePlan, ...]:
    """Ways to compute the contraction of `kernel`, best first."""
    found = kernel.contraction
    if found is None or found.kind != "dense" or not _packed(found):
        return ()
    lanes = found.weight.shape[-1]
    rows = [axis for axis in found.rows if axis.extent > 1]
    width = rows[-1].extent if rows else 1
    height = rows[-2].extent if len(rows) > 1 else 1
    stride = _row_bytes(found, rows[-1]) if rows else 0
    ranked = tiles(height, width, found.group, lanes, machine, stride)
    first = channels_first_pays(found, machine)
    return tuple(TilePlan(tile, order) for tile in ranked for order in (first, not first))


def channels_first_pays(found: Contraction, machine: Machine) -> bool:
    """Whether weights should be read once and the data again for each panel of channels, or the other way round."""
    weights, data = found.weight.bytes, found.data.bytes
    panels = -(-found.channel.extent // (2 * machine.lanes))
    positions = math.prod(axis.extent for axis in found.rows)
    # What fits the cache beside the other's stream is read from memory once.
    data_again = data * panels if data > machine.l2_bytes // 2 else data
    weights_again = weights * -(-positions // _USUAL_ROWS) if weights > machine.l2_bytes // 2 else weights
    return weights + data_again <= data + weights_again


def apply_tile(schedule: Any, kernel: Kernel, plan: TilePlan, machine: Machine) -> None:
    """Schedule `kernel` by `plan`."""
    found = kernel.contraction
    assert found is not None
    axes, unrolled = found.stage.axes, _unrolled_sums(found)
    producers = inline_neighbours(schedule, kernel, everything=unrolled == found.sums)
    block, last, place = keep_in_registers(schedule, kernel, found.channel)
    loops = dict(zip(axes, schedule.get_loops(block), strict=True))
    panel, vector, lane = schedule.split(loops[found.channel], [None, plan.tile.vectors, plan.tile.lanes])
    if kernel.after and kernel.last.axes[place].extent < found.channel.extent and machine.threads == 1:
        # The last panel is written in part: code of its own for it, so that the others ask nothing.
        schedule.annotate(panel, "pragma_loop_partition_hint", 1)
    outer, within = _split_rows(schedule, loops, found, plan.tile)
    rest = [loops[axis] for axis in axes if axis not in (found.channel, *found.rows, *found.sums)]
    # A loop with a smaller last tile is no part of a parallel one, so it is then the innermost.
    serial = 1 if _is_ragged(found, plan.tile) else 0
    channels_outermost = plan.channels_outermost or (machine.threads > 1 and serial)
    order = [*rest, panel, *outer] if channels_outermost else [*rest, *outer, panel]
    sums = [loops[axis] for axis in found.sums]
    inner = [*within, vector, lane]
    schedule.reorder(*order, *sums, *inner)
    write_at(schedule, last, order[-1], place, plan.tile.lanes)
    # Before the sums are split from their start: what is left then is no reduction that may run in parallel.
    if machine.threads > 1:
        schedule.parallel(schedule.fuse(*order[: len(order) - serial]))
    for axis in unrolled:
        schedule.unroll(loops[axis])
    unroll_tile(schedule, block, sums[0], inner)
    for producer in producers:
        vectorize_inner(schedule, producer, machine)


def _unrolled_sums(found: Contraction) -> tuple[Axis, ...]:
    """Loops over products that are unrolled: all, the innermost, or none."""
    if found.sums[-1].extent > _FEW_CHANNELS:
        return ()
    return found.sums if found.depth <= _UNROLLED_WINDOW else found.sums[-1:]


def _split_rows(schedule: Any, loops: dict[Axis, Any], found: Contraction, tile: Tile) -> tuple[list[Any], list[Any]]:
    """Split rows into loops over tiles and loops within one."""
    outer = [loops[axis] for axis in found.rows if axis.extent == 1]
    within: list[Any] = []
    rows = [axis for axis in found.rows if axis.extent > 1]
    extents = [*[1] * len(rows), tile.height, tile.width][-len(rows) :] if rows else []
    for axis, extent in zip(rows, extents, strict=True):
        if extent == 1:
            outer.append(loops[axis])
            continue
        tiles_loop, inside = schedule.split(loops[axis], [None, extent])
        if axis.extent % extent:
            # The last tile is smaller: code of its own for it, so that the others ask nothing.
            schedule.annotate(tiles_loop, "pragma_loop_partition_hint", 1)
        outer.append(tiles_loop)
        within.append(inside)
    return outer, within


def _is_ragged(found: Contraction, tile: Tile) -> bool:
    """Whether the last tile of a line is smaller than the others."""
    rows = [axis for axis in found.rows if axis.extent > 1]
    return bool(rows) and rows[-1].extent % tile.width > 0


def _packed(found: Contraction) -> bool:
    """Whether the weights lie in panels that cut the channels of a group evenly."""
    import_tvm()
    from tvm import tirx

    lane = found.weight.indices[-1]
    # A single panel has no index of its own: the dimension of the panels has one element.
    single = found.stage.axis_of(lane) is found.channel and found.weight.shape[0] == 1
    return (single or isinstance(lane, tirx.FloorMod)) and found.group % found.weight.shape[-1] == 0


def _row_bytes(found: Contraction, axis: Axis) -> int:
    """Bytes between what neighbouring output positions read."""
    distance, width = 0, 1
    for index, extent in zip(reversed(found.data.indices), reversed(found.data.shape), strict=True):
        distance += width * (step_of(index, axis.var) or 0)
        width *= extent
    return distance * FLOAT_BYTES
