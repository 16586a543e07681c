"""Operations that look at the shape, type or place of a tensor, but never at its numbers."""

from __future__ import annotations

from torch import fx

from netcut_fx.node_names import operation_name

_QUERIES = frozenset(
    {"size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "element_size", "get_device", "len"}
    | {"is_floating_point", "is_complex", "is_contiguous", "sym_size", "sym_numel", "sym_stride", "sym_storage_offset"}
)
_NEW_TENSORS = frozenset(
    {"new_zeros", "new_ones", "new_empty", "new_empty_strided", "new_full", "new_tensor"}
    | {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"}
)
_ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad", "itemsize"})


def reads_shape_only(node: fx.Node) -> bool:
    """Whether what `node` yields depends on no number of what it reads."""
    if node.op not in ("call_function", "call_method"):
        return False
    if node.target is getattr:
        return str(node.args[1]) in _ATTRIBUTES
    name = operation_name(node)
    return name in _QUERIES or name in _NEW_TENSORS
