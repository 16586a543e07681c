"""The memory layout in which a network runs fastest on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def channels_last_(module: nn.Module, example: Sequence[Tensor]) -> bool:
    """Put the 4-d weights of `module` in channels-last order, in place, where the network works so.

    With weights in that order torch's CPU convolutions take and give channels-last tensors: EfficientNet-Lite0 at
    96x96, 2 threads, batch 32, is 1.3 times as fast forward, 1.5 times forward and backward, and equal within 3e-6. A
    network that views ``(N, C, H, W)`` as ``(N, C*H*W)`` cannot run so; it keeps its layout.

    Parameters
    ----------
    module : torch.nn.Module
        Changed only in the strides of its weights.
    example : sequence of Tensor
        Inputs to try it with.

    Returns
    -------
    bool
        Whether the layout was changed.
    """
    if not any(p.dim() == 4 for p in module.parameters()) or any(t.dim() == 5 for t in module.state_dict().values()):
        return False
    trial = copy.deepcopy(module).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    try:
        with torch.inference_mode():
            trial(*example)
    except RuntimeError:
        return False
    module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return True


def contiguous_(module: nn.Module) -> None:
    """Undo `channels_last_`."""
    to: Any = module.to
    to(memory_format=torch.contiguous_format)
