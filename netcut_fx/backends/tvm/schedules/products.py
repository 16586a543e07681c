"""Products of two activations, as in attention: in the tiles of constant weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from netcut_fx.backends.tvm.schedules.contraction import Contraction, sums_products
from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.padding import apart, pad_channels
from netcut_fx.backends.tvm.schedules.register_tile import TilePlan, apply_tile
from netcut_fx.backends.tvm.schedules.stages import FLOAT_BYTES, Stage, read_stages
from netcut_fx.backends.tvm.schedules.tile import tiles
from netcut_fx.backends.tvm.toolchain import import_tvm


def product_plans(kernel: Kernel, machine: Machine) -> tuple[TilePlan, ...]:
    """Ways to compute the product of two activations that `kernel` is, best first."""
    found = recognise_product(kernel.anchor) if kernel.contraction is None else None
    if found is None:
        return ()
    lanes = machine.lanes_for(found.channel.extent)
    if lanes == 1:
        return ()
    height = found.rows[-1].extent if found.rows else 1
    ranked = tiles(1, height, found.channel.extent, lanes, machine, found.depth * FLOAT_BYTES)
    return tuple(TilePlan(tile, order) for tile in ranked for order in (True, False))


def apply_product(schedule: Any, kernel: Kernel, plan: TilePlan, machine: Machine) -> None:
    """Schedule `kernel` by `plan`."""
    apply_tile(schedule, replace(kernel, contraction=recognise_product(kernel.anchor)), plan, machine)


def recognise_product(stage: Stage) -> Contraction | None:
    """Read `stage` as ``out[.., m, n] += a[.., m, k] * b[.., k, n]``; None if it is something else."""
    if not sums_products(stage):
        return None
    column = stage.axis_of(stage.store.indices[-1])
    sums = tuple(axis for axis in stage.axes if axis.reduces)
    inner = [load for load in stage.loads if column is not None and stage.axis_of(load.indices[-1]) is column]
    if column is None or column.reduces or len(inner) != 1:
        return None
    (right,) = inner
    (left,) = (load for load in stage.loads if load is not right)
    if column in stage.used_by(left.indices) or right.buffer.same_as(left.buffer):
        return None
    in_right = stage.used_by(right.indices)
    rows = tuple(a for a in stage.axes if not a.reduces and a not in in_right and a.extent > 1)
    return Contraction("dense", stage, left, right, column, rows, sums, column.extent)


def pad_product(function: Any, machine: Machine) -> Any:
    """`function` with the columns of a product of two activations padded to whole vectors, in a copy of one of them."""
    import_tvm()
    from tvm import s_tir

    if _odd_product(function, machine) is None:
        return function
    function = apart(function, read_stages(function), function.params)
    found = _odd_product(function, machine)
    assert found is not None
    schedule = s_tir.Schedule(function)
    block = schedule.get_sblock(found.stage.name)
    factors = [region.source for region in schedule.get(block).reads]
    schedule.cache_read(block, next(i for i, b in enumerate(factors) if b.same_as(found.weight.buffer)), "global")
    function = schedule.mod["main"]
    found = _odd_product(function, machine)
    assert found is not None
    longer = found.channel.extent + -found.channel.extent % machine.lanes
    buffers = (found.weight.buffer, found.stage.store.buffer)
    padded = {buffer: (len(buffer.ty.shape) - 1, longer) for buffer in buffers}
    return pad_channels(function, read_stages(function), padded, frozenset(buffers[:1]))


def _odd_product(function: Any, machine: Machine) -> Contraction | None:
    """The product of two activations in a kernel without constants whose columns make no vectors."""
    stages = read_stages(function)
    sums = [stage for stage in stages if stage.reduces]
    found = recognise_product(sums[0]) if len(sums) == 1 else None
    if found is None or machine.lanes_for(found.channel.extent) > 1 or found.channel.extent < machine.lanes:
        return None
    return found
