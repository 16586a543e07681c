"""Rules for operators that compute: convolutions, products, normalisation, pooling, reductions, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from netcut_fx.lowering.step import Shape, Step, broadcast_shape
from netcut_fx.lowering.values import Pattern, Value

Rule = Callable[..., Any]


def convolution_kind(weight: Shape, groups: int) -> str:
    """Name the family of a convolution by its weight ``(O, I / groups, *kernel)``."""
    if groups == 1:
        return "pointwise_conv2d" if all(k == 1 for k in weight[2:]) else "conv2d"
    return "depthwise_conv2d" if weight[1] == 1 else "grouped_conv2d"


def window_detail(sizes: Shape) -> str:
    """Say which window a pooling has, for `cost_models.Kernel.detail`."""
    return f"window {'x'.join(str(n) for n in sizes)}"


def dilation_detail(steps: Shape) -> str:
    """Say how far apart the inputs of a convolution's window lie, for `cost_models.Kernel.detail`; "" for 1."""
    return f"dilation {'x'.join(str(n) for n in steps)}" if any(n > 1 for n in steps) else ""


def _sizes(given: Shape, spatial: int) -> tuple[int, ...]:
    """Give one number for each spatial dimension; torch takes one for all."""
    return tuple(given) if len(given) == spatial else (given[0],) * spatial


def convolution(step: Step, x: Value, weight: Value, bias: Value | None, *options: Any) -> Value:
    """Lower any convolution; `options` are stride, padding, dilation, transposed, output padding, groups."""
    transposed, groups, detail = options[3], options[5], ""
    spatial = len(x.shape) - 2
    if transposed:
        # Every input element meets every weight of its group.
        op, kind = f"conv{spatial}d_transpose", f"opaque:conv{spatial}d_transpose"
        flops = 2 * x.numel * math.prod(weight.shape[1:])
    else:
        op, kind = f"conv{spatial}d", convolution_kind(weight.shape, groups)
        flops = 2 * step.out.numel * math.prod(weight.shape[1:])
        detail = dilation_detail(_sizes(options[2], spatial))
    result = step.emit(op, kind, Pattern.OUT_FUSABLE, (x, weight), flops=flops, detail=detail)
    if bias is None:
        return result
    return step.broadcast("add", result, step.reshape(bias, (1, bias.numel, *(1,) * spatial)))


def matmul(step: Step, a: Value, b: Value) -> Value:
    """Lower a product of matrices, or of two stacks of them."""
    batch = broadcast_shape(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    flops = 2 * math.prod(shape) * a.shape[-1]
    return step.emit("matmul", "matmul", Pattern.OUT_FUSABLE, (a, b), shape, flops=flops)


def addmm(step: Step, bias: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    """Lower a product of matrices with something added: the heart of a linear layer."""
    product = matmul(step, a, b)
    if alpha != 1:
        product = step.broadcast("multiply", product, alpha)
    if beta != 1:
        bias = step.broadcast("multiply", bias, beta)
    return step.broadcast("add", bias, product)


def batch_norm(step: Step, x: Value, *state: Any) -> Value:
    """Lower a batch-norm that could not be folded: per channel, with statistics prepared beforehand.

    `state` is weight, bias, mean, variance, then options that change no shape.
    """
    weight, bias, mean, var = state[:4]
    column = (1, x.shape[1], *(1,) * (len(x.shape) - 2))

    def channels(value: Value | None) -> Value:
        return Value(column, x.dtype, "constant") if value is None else step.reshape(value, column)

    result = step.broadcast("divide", step.broadcast("subtract", x, channels(mean)), channels(var))
    if weight is not None:
        result = step.broadcast("multiply", result, channels(weight))
    return result if bias is None else step.broadcast("add", result, channels(bias))


def normalisation(op: str) -> Rule:
    """Make the rule of a normalisation: mean and variance, then scale and shift, 8 operations per element."""

    def rule(step: Step, x: Value, weight: Value | None, bias: Value | None, size: Shape) -> Value:
        ones, zeros = (Value(tuple(size), x.dtype, "constant") for _ in range(2))
        inputs = (x, weight or ones, bias or zeros)
        return step.emit(op, "reduce", Pattern.OUT_FUSABLE, inputs, x.shape, flops=8 * x.numel)

    return rule


def layer_norm(step: Step, x: Value, size: Shape, weight: Value | None, bias: Value | None, *rest: Any) -> Value:
    """Lower layer-norm."""
    return normalisation("layer_norm")(step, x, weight, bias, size)


def group_norm(step: Step, x: Value, weight: Value | None, bias: Value | None, *rest: Any) -> Value:
    """Lower group-norm."""
    return normalisation("group_norm")(step, x, weight, bias, (x.shape[1],))


def instance_norm(step: Step, x: Value, weight: Value | None, bias: Value | None, *rest: Any) -> Value:
    """Lower instance-norm, which torch expresses as batch-norm without statistics."""
    return normalisation("instance_norm")(step, x, weight, bias, (x.shape[1],))


def softmax(op: str) -> Rule:
    """Make the rule of a softmax: maximum, difference, exponential, sum, quotient, 5 operations per element."""

    def rule(step: Step, x: Value, *rest: Any) -> Value:
        return step.emit(op, "reduce", Pattern.OUT_FUSABLE, (x,), flops=5 * x.numel)

    return rule


def pool(op: str, spatial: int) -> Rule:
    """Make the rule of a pooling with a window, which also takes inputs without a batch."""

    def rule(step: Step, x: Value, kernel: Shape, *rest: Any, **named: Any) -> Value:
        window = _sizes(kernel, spatial)
        batched = len(x.shape) == spatial + 2
        if not batched:
            x = step.move("expand_dims", x, (1, *x.shape), Pattern.BROADCAST, is_view=True)
        shape = step.out.shape if batched else (1, *step.out.shape)
        flops = math.prod(window) * math.prod(shape)
        result = step.emit(op, "pool", Pattern.OUT_FUSABLE, (x,), shape, flops=flops, detail=window_detail(window))
        return result if batched else step.move("squeeze", result, step.out.shape, Pattern.BROADCAST, is_view=True)

    return rule


def adaptive_pool(op: str, spatial: int) -> Rule:
    """Make the rule of a pooling whose windows depend on the position.

    Where windows differ in size along every dimension, TVM finds no reduction in the loop nest: it fuses nothing there.
    """

    def rule(step: Step, x: Value, *rest: Any) -> Value:
        ragged = sum(n % m != 0 for n, m in zip(x.shape[-spatial:], step.out.shape[-spatial:], strict=True))
        pattern = Pattern.OPAQUE if ragged == spatial else Pattern.OUT_FUSABLE
        return step.emit(op, "pool", pattern, (x,), flops=x.numel)

    return rule


def reduce(op: str, pattern: Pattern, flops_per_element: int = 1) -> Rule:
    """Make the rule of a reduction over some dimensions."""

    def rule(step: Step, x: Value, *rest: Any, **named: Any) -> Value:
        return step.emit(op, "reduce", pattern, (x,), flops=flops_per_element * x.numel)

    return rule


def variance(step: Step, x: Value, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Value:
    """Lower a variance; dividing by one less than the number of elements is a product more."""
    result = step.emit("variance", "reduce", Pattern.OUT_FUSABLE, (x,), flops=4 * x.numel)
    return result if correction == 0 else step.broadcast("multiply", result, 1.0)


def any_of(step: Step, x: Value, *rest: Any) -> Value:
    """Lower ``any``: the largest of numbers 0 and 1."""
    if x.dtype != "bool":
        return step.emit("max", "reduce", Pattern.REDUCTION, (x,), flops=x.numel, dtype=x.dtype)
    small = step.unary("cast", x, dtype="int8")
    largest = step.emit("max", "reduce", Pattern.REDUCTION, (small,), flops=x.numel, dtype="int8")
    return step.unary("cast", largest, dtype="bool")


def vector_norm(step: Step, x: Value, order: float = 2, *rest: Any, **named: Any) -> Value:
    """Lower the p-norm."""
    size = step.unary("abs", x)
    if math.isinf(order):
        return step.emit("max" if order > 0 else "min", "reduce", Pattern.REDUCTION, (size,), flops=x.numel)
    total = step.emit("sum", "reduce", Pattern.REDUCTION, (step.broadcast("power", size, order),), flops=x.numel)
    return step.broadcast("power", total, 1 / order)


def chain(*ops: str) -> Rule:
    """Make the rule of element-wise operations one after the other."""

    def rule(step: Step, x: Value, *rest: Any, **named: Any) -> Value:
        for op in ops:
            x = step.unary(op, x)
        return x

    return rule


def binary(op: str, dtype: str | None = None) -> Rule:
    """Make the rule of an element-wise operation on two operands."""

    def rule(step: Step, a: Any, b: Any, *, alpha: float = 1) -> Value:
        if alpha != 1 and isinstance(b, Value):
            b = step.broadcast("multiply", b, alpha)
        return step.broadcast(op, a, b, dtype=dtype)

    return rule


def gelu(step: Step, x: Value, *, approximate: str = "none") -> Value:
    """Lower GELU, exact or by its tanh formula."""
    return step.unary("gelu" if approximate == "none" else "gelu_tanh", x)


def elu(step: Step, x: Value, *rest: Any) -> Value:
    """Lower ELU as ``relu(x) - alpha * relu(1 - exp(x))``."""
    negative = step.unary("relu", step.broadcast("subtract", 1.0, step.unary("exp", x)))
    return step.broadcast("add", step.broadcast("multiply", -1.0, negative), step.unary("relu", x))


def log1p(step: Step, x: Value) -> Value:
    """Lower ``log(1 + x)``."""
    return step.unary("log", step.broadcast("add", x, 1.0))


def logical_not(step: Step, x: Value) -> Value:
    """Lower ``not``, which wants truth values."""
    return step.unary("logical_not", x if x.dtype == "bool" else step.unary("cast", x, dtype="bool"))


def reciprocal(step: Step, x: Value) -> Value:
    """Lower ``1 / x``."""
    return step.broadcast("divide", 1.0, x)


def resize(kind: str, flops_per_element: int) -> Rule:
    """Make the rule of an interpolation."""

    def rule(step: Step, x: Value, *rest: Any) -> Value:
        flops = flops_per_element * step.out.numel
        return step.emit("resize2d", kind, Pattern.INJECTIVE, (x,), flops=flops)

    return rule
