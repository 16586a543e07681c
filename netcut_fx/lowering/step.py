"""What rules lower a call with: a `Step` collects primitive operations, with patterns, shapes and flops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from netcut_fx.lowering.values import AtenCall, Pattern, Primitive, Value

Shape = Sequence[int]

#: Floating-point operations per element of element-wise operations that take more than one.
_UNARY_FLOPS = {"gelu": 5, "gelu_tanh": 8, "leaky_relu": 2, "clip": 2}


class Step:
    """Collects the primitives of one ATen call.

    What needs no input, or only weights, is computed once before the network runs: it yields a new weight or constant
    and no primitive.
    """

    def __init__(self, call: AtenCall) -> None:
        self.call = call
        self.primitives: list[Primitive] = []

    @property
    def out(self) -> Value:
        """First result as torch sees it: shape and type."""
        return self.call.outputs[0]

    def emit(
        self,
        op: str,
        kind: str,
        pattern: Pattern,
        inputs: Sequence[Value],
        shape: Shape | None = None,
        *,
        flops: int = 0,
        dtype: str | None = None,
        is_view: bool = False,
        detail: str = "",
    ) -> Value:
        """Add a primitive with one output, by default shaped like the call's."""
        spec = (tuple(self.out.shape if shape is None else shape), dtype or self.out.dtype)
        return self.emit_many(op, kind, pattern, inputs, (spec,), flops=flops, is_view=is_view, detail=detail)[0]

    def emit_many(
        self,
        op: str,
        kind: str,
        pattern: Pattern,
        inputs: Sequence[Value],
        specs: Sequence[tuple[tuple[int, ...], str]],
        *,
        flops: int = 0,
        is_view: bool = False,
        detail: str = "",
    ) -> tuple[Value, ...]:
        """Add a primitive with an output for each (shape, type)."""
        role = role_of(inputs)
        outputs = tuple(Value(shape, dtype, role) for shape, dtype in specs)
        if role == "activation":
            self.primitives.append(
                Primitive(op, kind, pattern, tuple(inputs), outputs, flops, self.call.node_name, is_view, detail)
            )
        return outputs

    def unary(self, op: str, x: Value, *, dtype: str | None = None) -> Value:
        """Add an operation on each element."""
        flops = _UNARY_FLOPS.get(op, 1) * x.numel
        return self.emit(op, "elementwise", Pattern.ELEMENTWISE, (x,), x.shape, flops=flops, dtype=dtype or x.dtype)

    def broadcast(self, op: str, *operands: Any, dtype: str | None = None) -> Value:
        """Add an operation on operands that broadcast; numbers and constants without dimensions are inlined."""
        tensors = [v for v in operands if isinstance(v, Value) and not (v.role == "constant" and not v.shape)]
        shape = broadcast_shape(*(v.shape for v in tensors))
        in_place = any(v.shape == shape for v in tensors)
        pattern = Pattern.ELEMENTWISE if in_place else Pattern.BROADCAST
        return self.emit(
            op, "elementwise", pattern, tensors, shape, flops=math.prod(shape), dtype=dtype or tensors[-1].dtype
        )

    def move(self, op: str, x: Value, shape: Shape, pattern: Pattern, *, is_view: bool = False) -> Value:
        """Add an operation that rearranges one tensor."""
        return self.emit(op, "data_movement", pattern, (x,), shape, dtype=x.dtype, is_view=is_view)

    def reshape(self, x: Value, shape: Shape) -> Value:
        """Give the elements a new shape; nothing at all if it is the old one."""
        if tuple(shape) == x.shape:
            return x
        pattern = Pattern.BROADCAST if x.numel == 1 else Pattern.INJECTIVE
        return self.move("reshape", x, shape, pattern, is_view=True)


def role_of(values: Sequence[Value]) -> str:
    """Tell what a result computed from `values` is."""
    roles = {v.role for v in values}
    return next((r for r in ("activation", "parameter") if r in roles), "constant")


def broadcast_shape(*shapes: Shape) -> tuple[int, ...]:
    """Compute the shape of the result of broadcasting."""
    rank = max((len(s) for s in shapes), default=0)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    return tuple(max(sizes) if min(sizes) > 0 else 0 for sizes in zip(*padded, strict=True))
