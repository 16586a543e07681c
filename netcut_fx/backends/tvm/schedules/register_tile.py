"""Convolutions and matrix products: accumulators of a tile stay in registers while the sum runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.contraction import Contraction
from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.stages import Axis, step_of
from netcut_fx.backends.tvm.schedules.surroundings import finish_producers, inline_neighbours, vectorize_inner
from netcut_fx.backends.tvm.schedules.tile import Tile, tiles

#: A sum over so few channels is unrolled: the loop would cost more than its body.
_UNROLLED_SUM = 4
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


def apply(schedule: Any, kernel: Kernel, plan: Plan, machine: Machine) -> None:
    """Schedule `kernel` by `plan`."""
    found = kernel.contraction
    assert found is not None
    stage, tile = found.stage, plan.tile
    producers = inline_neighbours(schedule, kernel)
    block = schedule.get_sblock(stage.name)
    if kernel.after:
        schedule.set_scope(block, 0, "local")
        last, layout = schedule.get_sblock(kernel.last.name), kernel.last
        place = _channel_axis(kernel)
    else:
        last, layout = schedule.cache_write(block, 0, "local"), None
        # The copy's loops are the dimensions of the buffer.
        place = next(i for i, index in enumerate(stage.store.indices) if stage.axis_of(index) is found.channel)
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
    for axis in reversed(found.sums):
        if axis.extent > _UNROLLED_SUM:
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
    finish_producers(schedule, producers, machine)


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


def _channel_axis(kernel: Kernel) -> int:
    """Which loop of the last nest walks the channels of the contraction."""
    found = kernel.contraction
    assert found is not None
    dimension = next(i for i, x in enumerate(found.stage.store.indices) if found.stage.axis_of(x) is found.channel)
    shape = found.stage.store.shape
    # Every nest between is element-wise on the same positions.
    for load in kernel.after[0].loads:
        if load.buffer.same_as(found.stage.store.buffer):
            axis = kernel.after[0].axis_of(load.indices[dimension])
            assert axis is not None
            place = kernel.after[0].axes.index(axis)
            assert len(kernel.last.axes) == len(kernel.after[0].axes), shape
            return place
    raise AssertionError("nothing reads the contraction")


def _packed(found: Contraction) -> bool:
    from tvm import tirx

    return isinstance(found.weight.indices[-1], tirx.FloorMod)


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


Apply = Callable[[Any], None]
