"""The words of lowering: tensors, ATen calls, primitive operations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of the lowered program; compared by identity.

    Parameters
    ----------
    shape : tuple of int
    dtype : str
        ``"float32"``.
    role : str
        ``"activation"`` for what depends on the input, ``"parameter"`` for weights and what is computed from them
        alone, ``"constant"`` for buffers, literals and what is computed from them alone.
    """

    shape: tuple[int, ...]
    dtype: str
    role: str

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class AtenCall:
    """One call of an ATen operator.

    Parameters
    ----------
    op : str
        Name without namespace, the in-place underscore dropped: ``"convolution"``, ``"add.Tensor"``. Operators of other
        namespaces keep theirs (``"mylib::foo"``); a node torch cannot run without storage is ``"?name"``.
    args, kwargs
        As torch passes them, with `Value` in place of tensors.
    outputs : tuple of Value
    node_name : str
        fx name of the node that asked for it.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]
    node_name: str


@dataclass(frozen=True)
class AtenProgram:
    """All calls of a network in execution order, the values it returns, and the tensors each node yields."""

    calls: tuple[AtenCall, ...]
    outputs: tuple[Value, ...]
    node_values: dict[str, tuple[Value, ...]]


class Pattern(IntEnum):
    """TVM's classes of operators, from easy to hard to fuse (``OpPatternKind``).

    Notes
    -----
    TVM reads the class off the loop nest: it is *element-wise* if some operand is read at the very index that is
    written, *broadcast* if operands are read at a subset of the indices in order, *injective* if indices are computed
    from those written, *reduction* if the reduced indices are read as they are, and *out-element-wise-fusable* for
    multiply-add and for a reduction with something around it (pooling, mean, softmax).
    """

    ELEMENTWISE = 0
    BROADCAST = 1
    INJECTIVE = 2
    REDUCTION = 3
    OUT_FUSABLE = 4
    TUPLE = 7
    OPAQUE = 8


@dataclass(frozen=True, eq=False)
class Primitive:
    """One operation after legalisation; its name is TVM's without ``tir_`` and without running number.

    Parameters
    ----------
    op : str
        ``"conv2d"``, ``"add"``, ``"clip"``; ``"opaque:<operation>"`` for one that is not in the table.
    kind : str
        Family for the cost models, see `cost_models.kernel.MODELLED_KINDS`.
    pattern : Pattern
    inputs : tuple of Value
        Tensors read; scalar literals are part of the code and do not count.
    outputs : tuple of Value
        One, but for operations that yield several.
    flops : int
        A multiply-add is two; exponentials and the like are one.
    node_name : str
        fx name of the node it stems from.
    is_view : bool
        Whether the result holds the same elements in the same order as the one input: on its own, the compiler then
        makes it a view.
    detail : str
        See `cost_models.Kernel`.
    adds_zeros : bool
        Whether it puts zeros around images and does nothing else: a convolution can do that itself.
    """

    op: str
    kind: str
    pattern: Pattern
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    flops: int
    node_name: str
    is_view: bool = False
    detail: str = ""
    adds_zeros: bool = False

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the (first) output."""
        return self.outputs[0].shape
