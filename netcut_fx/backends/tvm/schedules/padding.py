"""Channels that are no multiple of a vector's lanes: their tensors end in a few more, so that all vectors are whole.

What is added holds nothing that anybody reads: the result of a convolution there is zero, since its weights are padded
with zeros. Only loops that walk channels from zero to their end can go on to the new end; the others stay as they are,
and leave it unwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from netcut_fx.backends.tvm.schedules.axes import KernelAxes
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.stages import Axis, Stage
from netcut_fx.backends.tvm.toolchain import import_tvm

#: At most so much may be added to channels that smaller vectors would cut evenly.
_WORTHWHILE = 1.15
#: A tile has no more vectors than this: what it cannot cut evenly gets one more.
_MOST_VECTORS = 8


def padded_extent(extent: int, machine: Machine) -> int:
    """How many channels a tensor of `extent` should have in memory."""
    if extent < 2 or extent % machine.lanes == 0:
        return extent
    lanes = machine.lanes
    if extent < lanes:
        while lanes > 4 and lanes // 2 >= extent:
            lanes //= 2
        return lanes if machine.lanes_for(extent) == 1 else extent
    vectors = -(-extent // lanes)
    while vectors > _MOST_VECTORS and all(vectors % n for n in range(2, _MOST_VECTORS + 1)):
        vectors += 1
    whole = vectors * lanes
    return whole if machine.lanes_for(extent) == 1 or whole <= _WORTHWHILE * extent else extent


def padded_buffers(axes: KernelAxes, known: Mapping[Any, int], machine: Machine) -> dict[Any, tuple[int, int]]:
    """Channel dimension and new length of every buffer of a kernel that would be padded, wherever it lies.

    Parameters
    ----------
    axes : KernelAxes
        Of the kernel.
    known : mapping
        Channel dimension of some buffers.
    machine : Machine
        What it is compiled for.
    """
    found: dict[Any, tuple[int, int]] = {}
    for buffer, dimension in axes.spread(known, frozenset()).items():
        extent = int(buffer.ty.shape[dimension])
        padded = padded_extent(extent, machine)
        if padded != extent:
            found[buffer] = (dimension, padded)
    return found


def apart(function: Any, stages: tuple[Stage, ...], results: Iterable[Any]) -> Any:
    """`function` in which no sum is written to `results` directly, so that it may be longer than they are."""
    import_tvm()
    from tvm import s_tir

    wanted = set(results)
    sums = [stage for stage in stages if stage.reduces and stage.store.buffer in wanted]
    if not sums:
        return function
    schedule = s_tir.Schedule(function)
    for stage in sums:
        schedule.cache_write(schedule.get_sblock(stage.name), 0, "global")
    return schedule.mod["main"]


def pad_channels(
    function: Any,
    stages: tuple[Stage, ...],
    padded: Mapping[Any, tuple[int, int]],
    zeroed: frozenset[Any] = frozenset(),
) -> Any:
    """`function` with longer buffers, and loops that fill them where they can.

    Parameters
    ----------
    function : tvm.tirx.PrimFunc
        Not scheduled.
    stages : tuple of Stage
        Its nests.
    padded : mapping of buffer to (int, int)
        A dimension of the buffer, and its new length.
    zeroed : frozenset of buffer
        Copies of what is not padded: they end in zeros.
    """
    import tvm_ffi

    import_tvm()
    from tvm import ir, s_tir, tirx

    extents = dict(_longer_axes(stages, padded, zeroed))
    buffers = {buffer: _longer(buffer, *change) for buffer, change in padded.items()}
    loops: dict[Any, int] = {}

    def renamed(var: Any) -> Any:
        return buffers.get(var, var)

    def bound(realize: Any) -> None:
        for value, own in zip(realize.iter_values, realize.block.iter_vars, strict=True):
            if own.var in extents:
                loops[value] = extents[own.var]

    def domain(own: Any) -> Any:
        if own.var not in extents:
            return own
        return tirx.IterVar(ir.Range(own.dom.min, _length(own.dom.extent, extents[own.var])), own.var, own.iter_type)

    def loop(nest: Any) -> Any:
        if nest.loop_var not in loops:
            return nest
        return tirx.For(
            nest.loop_var, nest.min, _length(nest.extent, loops[nest.loop_var]), nest.kind, nest.body, None, {}
        )

    new_zeroed = {buffers[buffer]: padded[buffer][0] for buffer in zeroed}
    old_lengths = {buffers[buffer]: buffer.ty.shape[padded[buffer][0]] for buffer in zeroed}

    def store(copy: Any) -> Any:
        if copy.buffer not in new_zeroed:
            return copy
        inside = copy.indices[new_zeroed[copy.buffer]] < old_lengths[copy.buffer]
        return tirx.BufferStore(
            copy.buffer, tirx.if_then_else(inside, copy.value, tirx.const(0, "float32")), copy.indices
        )

    tvm_ffi.structural_walk(function.body, (s_tir.SBlockRealize, bound))
    changes = ((tirx.IterVar, domain), (tirx.For, loop), (ir.Var, renamed), (tirx.BufferStore, store))
    body = tvm_ffi.structural_map(function.body, changes)
    return tirx.PrimFunc([buffers.get(p, p) for p in function.params], body, function.ret_type, function.attrs)


def _longer_axes(
    stages: tuple[Stage, ...], padded: Mapping[Any, tuple[int, int]], zeroed: frozenset[Any]
) -> list[tuple[Any, int]]:
    """Loop variables that can go on to the end of what they write, and how far."""
    found: list[tuple[Any, int]] = []
    # What a nest leaves unwritten, none that reads it may ask for: they are scheduled together.
    filled = dict(padded)
    for stage in stages:
        if stage.store.buffer not in padded:
            continue
        dimension, extent = padded[stage.store.buffer]
        index = stage.store.indices[dimension]
        axis = stage.axis_of(index)
        whole = axis is not None and _walks(stage, axis, index)
        if whole and (stage.store.buffer in zeroed or _reaches(stage, axis, extent, filled)):
            found.append((axis.var, extent))
        else:
            del filled[stage.store.buffer]
    return found


def _reaches(stage: Stage, axis: Axis, extent: int, padded: Mapping[Any, tuple[int, int]]) -> bool:
    """Whether `axis` can go on to `extent`: it indexes buffers that are long enough, from their start, and no more."""
    import tvm_ffi
    from tvm import ir

    uses: list[Any] = []
    lengths: list[int] = []

    def use(var: Any) -> None:
        if var.same_as(axis.var):
            uses.append(var)

    def load(read: Any) -> None:
        dimension, longer = padded.get(read.source, (-1, 0))
        for place, index in enumerate(read.indices):
            if _walks(stage, axis, index):
                lengths.append(longer if place == dimension else int(read.source.ty.shape[place]))

    tvm_ffi.structural_walk(stage.value, ((ir.Var, use), (ir.TensorLoad, load)))
    return len(uses) == len(lengths) and all(length >= extent for length in lengths)


def _walks(stage: Stage, axis: Axis, index: Any) -> bool:
    """Whether `index` is `axis` and nothing else."""
    from tvm import ir, sym

    if stage.axis_of(index) is not axis:
        return False
    analyzer = sym.Analyzer()
    for other in stage.axes:
        if other.extent == 1:
            analyzer.bind(other.var, ir.Range(0, 1))
    return analyzer.can_prove_equal(index, axis.var)


def _longer(buffer: Any, dimension: int, extent: int) -> Any:
    from tvm import tirx

    shape = [_length(n, extent) if i == dimension else n for i, n in enumerate(buffer.ty.shape)]
    return tirx.decl_buffer(shape, buffer.ty.dtype, buffer.name, scope=buffer.ty.storage_scope)


def _length(old: Any, new: int) -> Any:
    """`new` in the type of `old`."""
    from tvm import tirx

    return tirx.IntImm(old.ty, new)
