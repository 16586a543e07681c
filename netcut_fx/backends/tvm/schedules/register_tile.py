"""Convolutions and matrix products: accumulators of a tile stay in registers while the sum runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.contraction import Contraction
from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.registers import keep_in_registers, unroll_tile, write_at
from netcut_fx.backends.tvm.schedules.sharing import EVEN, EVENLY_OR_ANY, evenness, share
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
    """One way to compute a contraction.

    Its tile, whether panels of channels are the outermost loop, and whether it is panels that threads share.
    """

    tile: Tile
    channels_outermost: bool
    panels_shared: bool = False


def tile_plans(kernel: Kernel, machine: Machine) -> tuple[TilePlan, ...]:
    """Ways to compute the contraction of `kernel`, best first."""
    found = kernel.contraction
    if found is None or found.kind != "dense" or not _packed(found):
        return ()
    lanes = found.weight.shape[-1]
    rows = _rows(found)
    width = rows[-1].extent if rows else 1
    height = rows[-2].extent if len(rows) > 1 else 1
    stride = _row_bytes(found, rows[-1]) if rows else 0
    ranked = tiles(height, width, found.group, lanes, machine, stride)
    if machine.threads == 1:
        first = channels_first_pays(found, machine)
        return tuple(TilePlan(tile, order) for tile in ranked for order in (first, not first))
    shared = [TilePlan(tile, *way) for tile in ranked for way in _ways_to_share(found, tile, machine)]
    return tuple(shared) or tuple(TilePlan(tile, False) for tile in ranked)


def _ways_to_share(found: Contraction, tile: Tile, machine: Machine) -> list[tuple[bool, bool]]:
    """Whether channels come first and whether threads share panels, best first; none where nothing can be shared."""
    rows = _rows(found)
    counts = [axis.extent // size for axis, size in zip(rows, _sizes(rows, tile), strict=True)]
    if _is_ragged(found, tile):
        counts.pop()
    if max(*counts, found.channel.extent // tile.channels, 1) < machine.threads:
        return []
    even = any(evenness(n, machine.threads) >= EVEN for n in counts)
    # Threads that share lines all read all weights.
    first = not even or found.weight.bytes > machine.l2_bytes // 2
    # Where panels are shared, the other loop order keeps a panel's weights near; where lines are, a line's data.
    return [(first, first), (not first, first), (not first, not first)]


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
    # A loop with a smaller last tile cannot be shared.
    outer = [*rest, *outer]
    whole, last_loop = (outer[:-1], outer[-1:]) if _is_ragged(found, plan.tile) else (outer, [])
    if plan.panels_shared:
        shared, panels, whole = share(schedule, [[panel], whole], machine.threads, EVENLY_OR_ANY)
    else:
        shared, whole, panels = share(schedule, [whole, [panel]], machine.threads, EVENLY_OR_ANY)
    outer = [*whole, *last_loop]
    order = [*shared, *panels, *outer] if plan.channels_outermost else [*shared, *outer, *panels]
    sums = [loops[axis] for axis in found.sums]
    inner = [*within, vector, lane]
    schedule.reorder(*order, *sums, *inner)
    write_at(schedule, last, order[-1], place, plan.tile.lanes)
    # Before the sums are split from their start: what is left then is no reduction that may run in parallel.
    for loop in shared:
        schedule.parallel(loop)
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
    rows = _rows(found)
    for axis, extent in zip(rows, _sizes(rows, tile), strict=True):
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


def _rows(found: Contraction) -> list[Axis]:
    return [axis for axis in found.rows if axis.extent > 1]


def _sizes(rows: list[Axis], tile: Tile) -> list[int]:
    """Positions of a tile along each of `rows`."""
    return [*[1] * len(rows), tile.height, tile.width][-len(rows) :] if rows else []


def _is_ragged(found: Contraction, tile: Tile) -> bool:
    """Whether the last tile of a line is smaller than the others."""
    rows = _rows(found)
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
