"""What of a kernel decides its time, as numbers: the input of every model that was not given the kernel itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cost_models.kernel import MODELLED_KINDS, Kernel

Array = NDArray[np.float64]

#: Kinds in a fixed order, for one-hot columns.
KINDS: tuple[str, ...] = tuple(sorted(MODELLED_KINDS))
#: Names of the columns of `log_features`.
LOG_FEATURES = ("flops", "channels", "pixels", "reduction", "activation_bytes", "weight_bytes", "ops")

_ANCHORED = ("conv2d", "pointwise_conv2d", "depthwise_conv2d", "grouped_conv2d", "matmul")


@dataclass(frozen=True)
class KernelFacts:
    """One kernel in numbers.

    Parameters
    ----------
    kind : str
    flops : float
        At least one for each number written: nothing is free.
    channels : int
        Extent of the output that vectors run along: channels of an image, the last dimension of anything else.
    pixels : int
        Numbers written for each channel.
    reduction : float
        Operations for each number written, a multiply-add being two.
    activation_bytes, weight_bytes : float
        Read and written.
    ops : int
        Primitive operations fused into it.
    """

    kind: str
    flops: float
    channels: int
    pixels: int
    reduction: float
    activation_bytes: float
    weight_bytes: float
    ops: int

    @classmethod
    def of(cls, kernel: Kernel) -> KernelFacts:
        """Read them off the shapes."""
        out = kernel.output_shapes[0] if kernel.output_shapes else ()
        written = max(1, sum(math.prod(shape) for shape in kernel.output_shapes))
        channels = max(1, out[1] if len(out) >= 4 else out[-1] if out else 1)
        numbers = written + sum(math.prod(shape) for shape in kernel.input_shapes)
        weights = 0
        if kernel.kind in _ANCHORED and len(kernel.input_shapes) > 1:
            second = kernel.input_shapes[1]
            # The second operand of a product of two activations is a stack of matrices; a weight is one matrix.
            weights = math.prod(second) if kernel.kind != "matmul" or len(second) == 2 else 0
        weight_bytes = kernel.bytes * weights / max(1, numbers)
        flops = float(max(kernel.flops, written))
        return cls(
            kernel.kind,
            flops,
            channels,
            max(1, written // channels),
            flops / written,
            max(1.0, kernel.bytes - weight_bytes),
            weight_bytes,
            len(kernel.ops),
        )


def log_features(facts: Sequence[KernelFacts]) -> Array:
    """Base-2 logarithms, a row for each kernel, columns as in `LOG_FEATURES`."""
    return np.log2(
        np.asarray(
            [
                (f.flops, f.channels, f.pixels, f.reduction, f.activation_bytes, f.weight_bytes + 1.0, f.ops)
                for f in facts
            ],
            dtype=np.float64,
        ).reshape(len(facts), len(LOG_FEATURES))
    )


def kind_columns(facts: Sequence[KernelFacts]) -> Array:
    """One-hot columns for `KINDS`."""
    columns = np.zeros((len(facts), len(KINDS)))
    for row, fact in enumerate(facts):
        if fact.kind in KINDS:
            columns[row, KINDS.index(fact.kind)] = 1.0
    return columns


def remainder_columns(facts: Sequence[KernelFacts], lanes: int) -> Array:
    """Share of vector lanes that do work in the last vector of the channels, counted over all vectors."""
    return np.asarray([[f.channels / (math.ceil(f.channels / lanes) * lanes)] for f in facts], dtype=np.float64)
