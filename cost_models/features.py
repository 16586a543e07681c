"""What of a kernel decides its time, as numbers: the input of every model that was not given the kernel itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cost_models.kernel import MODELLED_KINDS, Kernel

Array = NDArray[np.float64]

#: Dense convolutions with a 3x3 window in steps of one: Winograd's algorithm (arXiv 1509.09308) takes fewer products.
WINOGRAD = "conv2d 3x3"
#: Elementwise kernels that read in another order than they write: their reads or writes are no vectors.
REORDERED = "elementwise reordered"
#: Kinds in a fixed order, for one-hot columns.
KINDS: tuple[str, ...] = tuple(sorted({*MODELLED_KINDS, WINOGRAD, REORDERED}))
#: Names of the columns of `log_features`.
LOG_FEATURES = ("flops", "channels", "pixels", "reduction", "activation_bytes", "weight_bytes", "ops")

#: Winograd's algorithm is taken where both channels are whole vectors, which multiples of this are everywhere.
_WINOGRAD_CHANNELS = 16
#: Channels are filled up to whole vectors rather than cut into shorter ones where they are at most so many times more.
_LITTLE_MORE = 1.15
#: Numbers in the shortest vector that is worth it.
_SHORTEST = 4
#: What an operation on each number takes beyond one, in additions: exponentials are polynomials, divisions are slow.
_SLOW = {**dict.fromkeys(("sigmoid", "tanh", "exp", "erf", "gelu", "silu", "softmax"), 32), "divide": 16}
_REORDERING = frozenset({"transpose", "strided_slice"})
_ANCHORED = ("conv2d", "pointwise_conv2d", "depthwise_conv2d", "grouped_conv2d", "matmul")


@dataclass(frozen=True)
class KernelFacts:
    """One kernel in numbers.

    Parameters
    ----------
    kind : str
        That of the kernel, but `WINOGRAD` apart from other convolutions, and `REORDERED` from other elementwise ones.
    flops : float
        At least one for each number written: nothing is free.
    work : float
        The same, but exponentials and divisions count for what they take.
    channels : int
        Extent of the output that vectors run along: channels of an image, the last dimension of anything else.
    unbroken : int
        Of the channels, those that one vector can run along: those of a group.
    pixels : int
        Numbers written for each channel.
    reduction : float
        Work for each number written, a multiply-add being two.
    activation_bytes, weight_bytes : float
        Read and written.
    ops : int
        Primitive operations fused into it.
    """

    kind: str
    flops: float
    work: float
    channels: int
    unbroken: int
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
        work = flops + written * sum(_SLOW.get(op, 0) for op in kernel.ops)
        return cls(
            model_kind(kernel),
            flops,
            work,
            channels,
            max(1, channels // _groups(kernel)),
            max(1, written // channels),
            work / written,
            max(1.0, kernel.bytes - weight_bytes),
            weight_bytes,
            len(kernel.ops),
        )


def _groups(kernel: Kernel) -> int:
    """Of a grouped convolution; a depthwise one, whose vectors run across its groups, has one."""
    if kernel.kind != "grouped_conv2d" or len(kernel.input_shapes) < 2 or min(map(len, kernel.input_shapes[:2])) < 4:
        return 1
    data, weight = kernel.input_shapes[:2]
    return max(1, data[1] // max(1, weight[1]))


def model_kind(kernel: Kernel) -> str:
    """`KernelFacts.kind` of a kernel."""
    if kernel.kind == "elementwise" and _REORDERING & set(kernel.ops):
        return REORDERED
    if kernel.kind != "conv2d" or len(kernel.input_shapes) < 2 or kernel.detail:
        return kernel.kind
    data, weight, out = kernel.input_shapes[0], kernel.input_shapes[1], kernel.output_shapes[0]
    if len(data) != 4 or len(out) != 4 or weight[2:] != (3, 3):
        return kernel.kind
    if any(channels % _WINOGRAD_CHANNELS for channels in weight[:2]):
        return kernel.kind
    # Without padding a window of three takes two pixels off each edge; a step of two takes half of them.
    planes = zip(data[2:], out[2:], strict=True)
    in_steps_of_one = all(after >= before - 2 and 2 * after > before + 1 for before, after in planes)
    return WINOGRAD if in_steps_of_one else kernel.kind


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
    """Share of the lanes of all vectors that do work, a column.

    The last vector is filled up with channels that nobody asked for where this adds little or where there is no other
    way; else vectors are shorter, where that cuts the channels evenly. Groups cannot be filled up.
    """
    return np.asarray([[_filled(f, lanes)] for f in facts], dtype=np.float64).reshape(len(facts), 1)


def _filled(facts: KernelFacts, lanes: int) -> float:
    count = facts.unbroken
    even = math.gcd(count, lanes)
    vectors = even >= max(_SHORTEST, lanes // 4)
    if count < facts.channels:
        return even / lanes if vectors else 1 / lanes
    whole = count / (math.ceil(count / lanes) * lanes)
    return even / lanes if vectors and whole * _LITTLE_MORE < 1 else whole
