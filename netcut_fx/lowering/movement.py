"""Rules for operators that rearrange, repeat or make data, or do nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from netcut_fx.lowering.step import Shape, Step
from netcut_fx.lowering.values import Pattern, Primitive, Value

#: TVM keeps larger fills out of its constants.
_MAX_FOLDED_NUMEL = 1024
#: Dimensions of a batch of images, and paddings of their planes.
_IMAGES, _PLANE = 4, 4
#: How torch writes a slice without end.
_NO_END = 2**63 - 1


def cast(step: Step, x: Value, *rest: Any, **named: Any) -> Value:
    """Lower a copy in another type; in the same type it is nothing."""
    return x if step.out.dtype == x.dtype else step.unary("cast", x, dtype=step.out.dtype)


def same(step: Step, x: Value, *rest: Any, **named: Any) -> Value:
    """Lower what does nothing."""
    return x


def constant(step: Step, *args: Any, **named: Any) -> Value:
    """Lower what is computed once, before the network runs."""
    return Value(step.out.shape, step.out.dtype, "constant")


def full(step: Step, *args: Any, **named: Any) -> Value:
    """Lower a fill: computed when the network runs if it is too large to be kept with the code."""
    role = "constant" if step.out.numel <= _MAX_FOLDED_NUMEL else "activation"
    value = Value(step.out.shape, step.out.dtype, role)
    if role == "activation":
        step.primitives.append(
            Primitive("full", "data_movement", Pattern.ELEMENTWISE, (), (value,), 0, step.call.node_name)
        )
    return value


def view(step: Step, x: Value, *rest: Any) -> Value:
    """Lower a reshape."""
    return step.reshape(x, step.out.shape)


def as_strided(step: Step, x: Value, *rest: Any) -> Value:
    """Lower a change of strides, which the importer takes for a reshape, even to the same shape."""
    return step.move("reshape", x, step.out.shape, Pattern.INJECTIVE, is_view=True)


def squeeze(step: Step, x: Value, *rest: Any) -> Value:
    """Lower the removal of dimensions of size 1."""
    pattern = Pattern.ELEMENTWISE if step.out.shape == x.shape else Pattern.BROADCAST
    return step.move("squeeze", x, step.out.shape, pattern, is_view=True)


def unsqueeze(step: Step, x: Value, *rest: Any) -> Value:
    """Lower the insertion of a dimension of size 1."""
    return step.move("expand_dims", x, step.out.shape, Pattern.BROADCAST, is_view=True)


def permute(step: Step, x: Value, dims: Shape) -> Value:
    """Lower a permutation; it is a view where only dimensions of size 1 move."""
    order = [d % len(x.shape) for d in dims]
    long = [d for d in order if x.shape[d] != 1]
    pattern = Pattern.ELEMENTWISE if order == sorted(order) else Pattern.INJECTIVE
    return step.move("transpose", x, step.out.shape, pattern, is_view=long == sorted(long))


def expand(step: Step, x: Value, *rest: Any, **named: Any) -> Value:
    """Lower an expansion, which the compiler keeps even where nothing is to expand."""
    same = step.out.shape == x.shape
    pattern = Pattern.ELEMENTWISE if same else Pattern.BROADCAST
    return step.move("broadcast_to", x, step.out.shape, pattern, is_view=step.out.numel == x.numel)


def slice_axis(step: Step, x: Value, dim: int = 0, *bounds: int | None) -> Value:
    """Lower a slice; one from the beginning keeps the indices."""
    start, end, stride = (*bounds, *(None, None, 1)[len(bounds) :])
    if not start and (end is None or end >= _NO_END) and stride == 1:
        return x
    first = max(start + x.shape[dim], 0) if start and start < 0 else start or 0
    pattern = Pattern.ELEMENTWISE if first == 0 and stride == 1 else Pattern.INJECTIVE
    return step.move("strided_slice", x, step.out.shape, pattern, is_view=step.out.shape == x.shape)


def select(step: Step, x: Value, *rest: Any) -> Value:
    """Lower the choice of one index: a gather, to TVM."""
    return take(step, x, Value((), "int64", "constant"))


def take(step: Step, x: Value, index: Value) -> Value:
    """Gather along a dimension; TVM fuses nothing with these."""
    return step.emit("take", "data_movement", Pattern.OPAQUE, (x, index))


def index_select(step: Step, x: Value, dim: int, index: Value) -> Value:
    """Lower a gather along a dimension."""
    return take(step, x, index)


def index(step: Step, x: Value, indices: Sequence[Value | None]) -> Any:
    """Lower indexing with tensors, along one dimension only."""
    given = [i for i in indices if i is not None]
    return take(step, x, given[0]) if len(given) == 1 else NotImplemented


def pad(step: Step, x: Value, widths: Shape, value: float = 0.0, *rest: Any) -> Value:
    """Lower padding with a constant, which the backend fuses with nothing; `widths` has the last dimension first."""
    result = step.move("pad", x, step.out.shape, Pattern.OPAQUE, is_view=not any(widths))
    around_images = len(x.shape) == _IMAGES and len(widths) <= _PLANE and min(widths, default=0) >= 0
    if around_images and any(widths) and value == 0:
        step.primitives[-1] = replace(step.primitives[-1], adds_zeros=True)
    return result


def concatenate(step: Step, tensors: Sequence[Value], *rest: Any) -> Value:
    """Lower a concatenation."""
    return step.emit("concatenate", "data_movement", Pattern.INJECTIVE, tensors)


def split(step: Step, x: Value, *rest: Any) -> tuple[Value, ...]:
    """Lower a split into several tensors."""
    specs = [(v.shape, v.dtype) for v in step.call.outputs]
    pattern = Pattern.INJECTIVE if len(specs) > 1 else Pattern.ELEMENTWISE
    return step.emit_many("split", "data_movement", pattern, (x,), specs)


def repeat(step: Step, x: Value, *rest: Any) -> Value:
    """Lower a repetition."""
    return step.move("tile", x, step.out.shape, Pattern.INJECTIVE)
