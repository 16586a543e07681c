"""Read the operations that one of TVM's functions computes off its name."""

from __future__ import annotations

import re

#: Names of TVM's functions, without the prefix ``tir_`` of intrinsics. Only with these at hand can a name be read:
#: ``conv2d10`` is the tenth ``conv2d``, ``fused_layer_norm_leaky_relu`` two operations and not four.
_NAMES = """
    conv1d conv2d conv3d conv1d_transpose conv2d_transpose conv3d_transpose matmul einsum
    add subtract multiply divide floor_divide floor_mod power maximum minimum atan2 negative sign square
    equal not_equal greater greater_equal less less_equal where logical_not logical_and logical_or bitwise_not
    cast clip relu leaky_relu prelu gelu gelu_tanh silu sigmoid softplus tanh
    exp log log2 log10 sqrt rsqrt abs erf sin cos floor ceil round
    softmax log_softmax layer_norm group_norm instance_norm rms_norm batch_norm
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean sum max min prod variance std cumsum topk
    reshape squeeze expand_dims transpose broadcast_to strided_slice pad reflect_pad replicate_pad circular_pad
    concatenate split take tile repeat flip resize2d full arange tril triu one_hot pixel_shuffle index_tensor
    gather_elements scatter_elements layout_transform te_layout_transform
""".split()  # noqa: SIM905 (one literal per name would be a page long)
_ONE_NAME = re.compile(
    rf"(?:tir_)?({'|'.join(sorted(_NAMES, key=len, reverse=True))})\d*(?=_|$)|(?:tir_)?([^_]+?)\d*(?=_|$)"
)


def normalise_op_name(function: str) -> tuple[str, ...]:
    """Read the primitive operations that one of TVM's functions computes off its name.

    The prefix ``fused_``, the prefix ``tir_`` of intrinsics and the numbers that make names unique go:
    ``"fused_conv2d10_add3_tir_clip1"`` is ``("conv2d", "add", "clip")``. Where a name is ambiguous the longest known
    one wins; an unknown one is taken up to the next underscore.
    """
    rest = function.removeprefix("fused_")
    names = [match[1] or match[2] for match in _ONE_NAME.finditer(rest)]
    return tuple(names)
