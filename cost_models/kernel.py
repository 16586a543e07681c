"""A kernel: one loop nest that the compiler really runs, after fusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Shape = tuple[int, ...]

#: Kinds that the analytical models know. A kernel of any other kind has no model: its estimate is *unknown*.
MODELLED_KINDS = frozenset(
    {
        "conv2d",
        "pointwise_conv2d",
        "depthwise_conv2d",
        "grouped_conv2d",
        "matmul",
        "pool",
        "reduce",
        "elementwise",
        "data_movement",
    }
)


@dataclass(frozen=True)
class Kernel:
    """One fused kernel.

    Parameters
    ----------
    kind : str
        The family a cost model keys on: one of `MODELLED_KINDS`, or ``"opaque:<operation>"`` for an operation that no
        analytical model covers.
    ops : tuple of str
        Primitive operations in the order the compiler runs them, in the compiler's own words, for instance
        ``("conv2d", "add", "clip")``. The first heavy one is the anchor, the rest its prologue and epilogue.
    input_shapes : tuple of shapes
        Every tensor read from memory: activations, weights, biases.
    output_shapes : tuple of shapes
        Every tensor written.
    dtype : str
        Element type of the output, ``"float32"``.
    flops : int
        Floating-point operations; a multiply-add counts as two.
    bytes : int
        Bytes that have to cross memory at least once: all inputs and outputs.
    origin : tuple of str
        Qualified node names that this kernel computes; not part of its identity.
    detail : str
        What decides its time and does not follow from the shapes: ``"window 3x3"`` of a pooling, ``"dilation 2x2"`` of
        a convolution. Empty for all others.
    """

    kind: str
    ops: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    dtype: str
    flops: int
    bytes: int
    origin: tuple[str, ...] = field(default=(), compare=False)
    detail: str = ""

    @cached_property
    def key(self) -> str:
        """Identity of the workload, equal for two kernels that run the same code on the same shapes."""
        return kernel_key(self.ops, self.input_shapes, self.output_shapes, self.dtype, self.detail)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without `origin`."""
        return {
            "kind": self.kind,
            "ops": list(self.ops),
            "input_shapes": [list(shape) for shape in self.input_shapes],
            "output_shapes": [list(shape) for shape in self.output_shapes],
            "dtype": self.dtype,
            "flops": self.flops,
            "bytes": self.bytes,
            "detail": self.detail,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Kernel:
        """Read what `to_json` wrote."""
        return cls(
            str(data["kind"]),
            tuple(str(op) for op in data["ops"]),
            tuple(tuple(int(n) for n in shape) for shape in data["input_shapes"]),
            tuple(tuple(int(n) for n in shape) for shape in data["output_shapes"]),
            str(data["dtype"]),
            int(data["flops"]),
            int(data["bytes"]),
            detail=str(data["detail"]),
        )

    @property
    def modelled(self) -> bool:
        """Whether an analytical model may predict this kernel."""
        return self.kind in MODELLED_KINDS


def kernel_key(
    ops: tuple[str, ...],
    input_shapes: tuple[Shape, ...],
    output_shapes: tuple[Shape, ...],
    dtype: str,
    detail: str = "",
) -> str:
    """Text key of a workload: operations, then input shapes (sorted: compilers reorder arguments), then output shapes.

    Strides, groups and the window of a convolution follow from the shapes. The window of a pooling and the dilation of
    a convolution do not: those are the `detail`, which stands at the end where there is one.
    """

    def text(shapes: tuple[Shape, ...]) -> str:
        return ",".join("x".join(str(n) for n in shape) or "scalar" for shape in shapes)

    key = f"{'+'.join(ops)}|{text(tuple(sorted(input_shapes)))}->{text(output_shapes)}|{dtype}"
    return f"{key}|{detail}" if detail else key
