"""Convolutions and matrix products: accumulators of a tile stay in registers while the sum runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.contraction import Contraction
from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.stages import Axis, step_of
from netcut_fx.backends.tvm.schedules.surroundings import inline_neighbours, vectorize_inner
from netcut_fx.backends.tvm.schedules.tile import Tile, tiles

#: A sum over so few channels is unrolled, with as much of its window as stays below so many steps. Where that is all of
#: it, padding is inlined: which elements lie outside is known when code is made, but for the tiles at the border.
_FEW_CHANNELS, _UNROLLED_STEPS = 4, 32
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Plan:
    """One way to compute a contraction."""

    tile: Tile
    channels_outermost: bool


def plans(kernel: Kernel, machine: Machine) -> tuple[Plan, ...]:
    """Ways to compute the contraction of `kernel`, best first."""
    found = kernel.contraction
    if found is None or found.kind != "dense":
        return ()
    lanes = found.weight.shape[-1]
    if not found.channel.extent or found.group % lanes or not _packed(found):
        return ()
    rows = [axis for axis in found.rows if axis.extent > 1]
    width = rows[-1].extent if rows else 1
    height = rows[-2].extent if len(rows) > 1 else 1
    stride = _row_bytes(found, rows[-1]) if rows else 0
    first = channels_first_pays(found, machine)
    ranked = tiles(height, width, found.group, lanes, machine, stride)
    return tuple(Plan(tile, order) for tile in ranked for order in (first, not first))


def channels_first_pays(found: Contraction, machine: Machine) -> bool:
    """Whether weights should be read once and the data again for each panel of channels, or the other way round."""
    weight_bytes = found.channel.extent * found.depth * _FLOAT_BYTES
    data_bytes = _FLOAT_BYTES
    for n in found.data.shape:
        data_bytes *= n
    panels = -(-found.channel.extent // (2 * machine.lanes))
    positions = max(1, _product(found.rows) // 14)
    again = data_bytes * panels if data_bytes > machine.l2_bytes // 2 else data_bytes
    weights_again = weight_bytes * positions if weight_bytes > machine.l2_bytes // 2 else weight_bytes
    return weight_bytes + again <= data_bytes + weights_again


def apply_tile(schedule: Any, kernel: Kernel, plan: Plan, machine: Machine) -> None:
    """Schedule `kernel` by `plan`."""
    found = kernel.contraction
    assert found is not None
    stage, tile = found.stage, plan.tile
    few = found.sums[-1].extent <= _FEW_CHANNELS
    producers = inline_neighbours(schedule, kernel, everything=few and found.depth <= _UNROLLED_STEPS)
    block = schedule.get_sblock(stage.name)
    last, place = result_block(schedule, kernel, block)
    loops = dict(zip(stage.axes, schedule.get_loops(block), strict=True))
    outer, inner = _split(schedule, loops, found, tile)
    sums = [loops[axis] for axis in found.sums]
    rest = [loops[axis] for axis in stage.axes if axis not in (found.channel, *found.rows, *found.sums)]
    row_loops, channel_loop = outer
    order = [channel_loop, *row_loops] if plan.channels_outermost else [*row_loops, channel_loop]
    schedule.reorder(*rest, *order, *sums, *inner)
    at = order[-1]
    schedule.reverse_compute_at(last, at, preserve_unit_loops=True)
    own = schedule.get_loops(last)[len(rest) + len(order) :]
    _finish_tile(schedule, last, own, place, tile.lanes)
    steps = 1
    for axis in reversed(found.sums) if few else ():
        steps *= axis.extent
        if steps > _UNROLLED_STEPS:
            break
        schedule.unroll(loops[axis])
    schedule.vectorize(inner[-1])
    for loop in inner[:-1]:
        schedule.unroll(loop)
    first = schedule.decompose_reduction(block, sums[0])
    started = schedule.get_loops(first)[-len(inner) :]
    schedule.vectorize(started[-1])
    for loop in started[:-1]:
        schedule.unroll(loop)
    if machine.threads > 1:
        schedule.parallel(schedule.fuse(*order) if len(order) > 1 else order[0])
    for producer in producers:
        vectorize_inner(schedule, producer, machine)


def _split(schedule: Any, loops: dict[Axis, Any], found: Contraction, tile: Tile) -> tuple[Any, list[Any]]:
    """Split rows and channels into loops over tiles and loops within one."""
    panel, vector, lane = schedule.split(loops[found.channel], [None, tile.vectors, tile.lanes])
    rows = [axis for axis in found.rows if axis.extent > 1]
    outer = [loops[axis] for axis in found.rows if axis.extent == 1]
    within: list[Any] = []
    for n, axis in enumerate(rows):
        extent = tile.width if n == len(rows) - 1 else tile.height if n == len(rows) - 2 else 1
        if extent == 1:
            outer.append(loops[axis])
            continue
        tiles_loop, inside = schedule.split(loops[axis], [None, extent])
        if axis.extent % extent:
            # The last tile is smaller: code of its own for it, so that the others ask nothing.
            schedule.annotate(tiles_loop, "pragma_loop_partition_hint", 1)
        outer.append(tiles_loop)
        within.append(inside)
    return (outer, panel), [*within, vector, lane]


def _finish_tile(schedule: Any, block: Any, loops: list[Any], place: int, lanes: int) -> None:
    """Write the tile's result: channels as vectors, everything unrolled."""
    vectors, lane = schedule.split(loops[place], [None, lanes])
    others = [loop for n, loop in enumerate(loops) if n != place]
    schedule.reorder(*others, vectors, lane)
    schedule.vectorize(lane)
    for loop in (*others, vectors):
        schedule.unroll(loop)


def result_block(schedule: Any, kernel: Kernel, block: Any) -> tuple[Any, int]:
    """Keep the sums of `block` in registers; gives the block that writes the result, and its loop over channels."""
    found = kernel.contraction
    assert found is not None
    store = found.stage.store
    dimension = next(i for i, index in enumerate(store.indices) if found.stage.axis_of(index) is found.channel)
    if not kernel.after:
        # The copy's loops are the dimensions of the buffer.
        return schedule.cache_write(block, 0, "local"), dimension
    schedule.set_scope(block, 0, "local")
    # What comes after is element-wise, so that its nests have the same loops in the same order.
    first = kernel.after[0]
    (read,) = (load for load in first.loads if load.buffer.same_as(store.buffer))
    axis = first.axis_of(read.indices[dimension])
    assert axis is not None
    return schedule.get_sblock(kernel.last.name), first.axes.index(axis)


def _packed(found: Contraction) -> bool:
    """Whether the weights lie in panels, the channels of one innermost."""
    lane = found.weight.indices[-1]
    whole = found.stage.axis_of(lane) is found.channel and found.channel.extent == found.weight.shape[-1]
    return len(found.weight.shape) > 1 and (whole or isinstance(lane, _floor_mod()))


def _floor_mod() -> Any:
    from tvm import tirx

    return tirx.FloorMod


def _row_bytes(found: Contraction, axis: Axis) -> int:
    """Bytes between what neighbouring output positions read."""
    distance, width = 0, 1
    for index, extent in zip(reversed(found.data.indices), reversed(found.data.shape), strict=True):
        distance += width * (step_of(index, axis.var) or 0)
        width *= extent
    return distance * _FLOAT_BYTES


def _product(axes: tuple[Axis, ...]) -> int:
    product = 1
    for axis in axes:
        product *= axis.extent
    return product

