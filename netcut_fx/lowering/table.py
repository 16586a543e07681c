"""The table: which rule lowers which ATen operator.

A rule gets a `Step` and the arguments of the call with tensors replaced by `Value`; it emits primitive operations and
returns what the call yields, or ``NotImplemented``. It mirrors what TVM's importer and legalisation do with that
operator, one for one.
"""

from __future__ import annotations

from netcut_fx.lowering import arithmetic, movement
from netcut_fx.lowering.arithmetic import Rule
from netcut_fx.lowering.values import Pattern

#: ATen operator -> rule. ``"mean.*"`` stands for all overloads.
_TABLE: dict[str, Rule] = {
    "convolution": arithmetic.convolution,
    "mm": arithmetic.matmul,
    "bmm": arithmetic.matmul,
    "addmm": arithmetic.addmm,
    "baddbmm": arithmetic.addmm,
    "native_batch_norm": arithmetic.batch_norm,
    "_native_batch_norm_legit_no_training": arithmetic.batch_norm,
    "_native_batch_norm_legit": arithmetic.batch_norm,
    "_native_batch_norm_legit.no_stats": arithmetic.instance_norm,
    "native_layer_norm": arithmetic.layer_norm,
    "native_group_norm": arithmetic.group_norm,
    "_softmax": arithmetic.softmax("softmax"),
    "_log_softmax": arithmetic.softmax("log_softmax"),
    "max_pool2d_with_indices": arithmetic.pool("max_pool2d", 2),
    "max_pool3d_with_indices": arithmetic.pool("max_pool3d", 3),
    "avg_pool1d": arithmetic.pool("avg_pool1d", 1),
    "avg_pool2d": arithmetic.pool("avg_pool2d", 2),
    "avg_pool3d": arithmetic.pool("avg_pool3d", 3),
    "_adaptive_avg_pool2d": arithmetic.adaptive_pool("adaptive_avg_pool2d", 2),
    "_adaptive_avg_pool3d": arithmetic.adaptive_pool("adaptive_avg_pool3d", 3),
    "mean.*": arithmetic.reduce("mean", Pattern.OUT_FUSABLE),
    "sum.*": arithmetic.reduce("sum", Pattern.REDUCTION),
    "max": arithmetic.reduce("max", Pattern.REDUCTION),
    "min": arithmetic.reduce("min", Pattern.REDUCTION),
    "prod": arithmetic.reduce("prod", Pattern.REDUCTION),
    "var.correction": arithmetic.variance,
    "any.*": arithmetic.any_of,
    "linalg_vector_norm": arithmetic.vector_norm,
    "gelu": arithmetic.gelu,
    "elu": arithmetic.elu,
    "hardtanh": arithmetic.chain("clip"),
    "clamp": arithmetic.chain("clip"),
    "log1p": arithmetic.log1p,
    "neg": arithmetic.chain("negative"),
    "maximum": arithmetic.binary("maximum"),
    "minimum": arithmetic.binary("minimum"),
    "logical_not": arithmetic.logical_not,
    "reciprocal": arithmetic.reciprocal,
    "_to_copy": movement.cast,
    "where.self": lambda step, condition, a, b: step.broadcast("where", condition, a, b),
    "pow.Tensor_Scalar": arithmetic.binary("power"),
    "pow.Tensor_Tensor": arithmetic.binary("power"),
    "view": movement.view,
    "_unsafe_view": movement.view,
    "as_strided": movement.as_strided,
    "squeeze.*": movement.squeeze,
    "unsqueeze": movement.unsqueeze,
    "permute": movement.permute,
    "expand": movement.expand,
    "slice.Tensor": movement.slice_axis,
    "select.int": movement.select,
    "index.Tensor": movement.index,
    "index_select": movement.index_select,
    "constant_pad_nd": movement.pad,
    "cat": movement.concatenate,
    "split.Tensor": movement.split,
    "split_with_sizes": movement.split,
    "repeat": movement.repeat,
    "upsample_nearest2d.vec": arithmetic.resize("data_movement", 0),
    "upsample_bilinear2d.vec": arithmetic.resize("elementwise", 7),
    "upsample_nearest2d": arithmetic.resize("data_movement", 0),
    "upsample_bilinear2d": arithmetic.resize("elementwise", 7),
    "clone": movement.same,
    "alias": movement.same,
    "contiguous": movement.same,
    "native_dropout": movement.same,
}
_TABLE.update(
    (name, arithmetic.chain(name))
    for name in (
        "relu", "leaky_relu", "sigmoid", "tanh", "exp", "log", "sqrt", "rsqrt", "abs", "erf", "sin", "cos", "floor",
        "ceil",
    )
)  # fmt: skip
_TABLE.update(
    (f"{aten}.{overload}", arithmetic.binary(name))
    for aten, name in {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide"}.items()
    for overload in ("Tensor", "Scalar")
)
_TABLE.update(
    (f"{aten}.{overload}", arithmetic.binary(name, "bool"))
    for aten, name in {
        "eq": "equal", "ne": "not_equal", "gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal",
    }.items()
    for overload in ("Tensor", "Scalar")
)  # fmt: skip
_TABLE.update(dict.fromkeys(("full", "full_like", "zeros", "zeros_like", "ones", "ones_like"), movement.full))
_TABLE.update(
    dict.fromkeys(
        ("arange", "arange.start", "arange.start_step", "empty.memory_format", "empty_like", "scalar_tensor"),
        movement.constant,
    )
)


def rule_for(op: str) -> Rule | None:
    """Find the rule of an ATen operator; None if the table does not know it."""
    return _TABLE.get(op) or _TABLE.get(op.partition(".")[0] + ".*")
