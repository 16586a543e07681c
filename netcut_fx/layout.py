"""The memory layout in which a network runs fastest on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

#: A strided 1x1 convolution of fewer channels, channels last, writes beyond its memory in the backward pass with two
#: threads and an odd batch (oneDNN in torch 2.13 on AVX-512: 27 images of 8 channels end the process).
_LEAST_CHANNELS_STRIDED = 16


def channels_last_(module: nn.Module, example: Sequence[Tensor]) -> bool:
    """Put the 4-d weights of `module` in channels-last order, in place, where the network works so.

    With weights in that order torch's CPU convolutions take and give channels-last tensors: EfficientNet-Lite0 at
    96x96, 2 threads, batch 32, is 1.3 times as fast forward, 1.5 times forward and backward, and equal within 3e-6. A
    network that views ``(N, C, H, W)`` as ``(N, C*H*W)`` cannot run so; it keeps its layout. So does one with a strided
    1x1 convolution of fewer than 16 channels, whose backward pass could crash.

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
    seen = _Convolutions()
    try:
        with torch.no_grad(), seen:
            trial(*example)
    except RuntimeError:
        return False
    if seen.unsafe:
        return False
    module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return True


def contiguous_(module: nn.Module) -> None:
    """Undo `channels_last_`."""
    to: Any = module.to
    to(memory_format=torch.contiguous_format)


class _Convolutions(TorchDispatchMode):
    """Watches for convolutions whose backward pass torch gets wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.unsafe = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            weight, stride = args[1], args[3]
            strided = weight.dim() == 4 and weight.shape[2:] == (1, 1) and max(stride) > 1
            self.unsafe |= strided and weight.shape[1] < _LEAST_CHANNELS_STRIDED
        return func(*args, **(kwargs or {}))
