"""Attention in the form that `torch.export` gives it, also without storage."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def _attention(query: Tensor, key: Tensor, value: Tensor, *more: Any, **named: Any) -> Tensor:
    """Attention as `torch.export` sees it, for the CPU; without storage torch would choose another formula."""
    given = {**dict(zip(("attn_mask", "dropout_p", "is_causal"), more, strict=False)), **named}
    same = all(t.dim() == 4 and t.shape[-1] == query.shape[-1] for t in (query, key, value))
    if not same or given.get("enable_gqa", False):
        return functional.scaled_dot_product_attention(query, key, value, *more, **named)
    options = {name: given[name] for name in ("attn_mask", "scale") if name in given}
    causal: bool = given.get("is_causal", False)
    flash: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    return flash(query, key, value, 0.0, causal, **options)[0]


#: The function behind `torch.nn.MultiheadAttention`, with that attention inside.
_multi_head_attention = FunctionType(
    functional.multi_head_attention_forward.__code__,
    {**vars(functional), "scaled_dot_product_attention": _attention},
    argdefs=functional.multi_head_attention_forward.__defaults__,
)
_multi_head_attention.__globals__["multi_head_attention_forward"] = _multi_head_attention
_REPLACED: dict[Any, Any] = {
    functional.scaled_dot_product_attention: _attention,
    functional.multi_head_attention_forward: _multi_head_attention,
}


class AttentionAsExported(TorchFunctionMode):
    """Puts the two functions above in place of torch's."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _REPLACED.get(func, func)(*args, **(kwargs or {}))
