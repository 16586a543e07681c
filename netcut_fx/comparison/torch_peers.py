"""Torch as a peer: compiled with frozen weights, and eager with channels last and batch-norm folded."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from netcut_fx.network_files import read_program

_CONVOLUTION = torch.ops.aten.conv2d.default
_BATCH_NORM = torch.ops.aten.batch_norm.default


class TorchPeer:
    """A ``.pt2`` program in torch.

    Parameters
    ----------
    network : Path
        ``.pt2``.
    threads : int
        Of torch's pool, for the whole process.
    shape : tuple of int
        Of the input.
    compiled : bool
        ``torch.compile`` with freezing; otherwise eager.
    """

    def __init__(self, network: Path, threads: int, shape: tuple[int, ...], *, compiled: bool) -> None:
        torch.set_num_threads(threads)
        module = read_program(network).module(check_guards=False)
        fold_batch_norm(module)
        cast(Any, module).to(memory_format=torch.channels_last)
        self._input = torch.zeros(shape).to(memory_format=torch.channels_last)
        if compiled:
            # Freezing folds batch-norm and packs weights when it compiles, at the first call.
            cast(Any, importlib.import_module("torch._inductor.config")).freezing = True
        self._module: Any = torch.compile(module) if compiled else module
        self.call()

    def answer(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `netcut_fx.comparison.peers.Served`."""
        self._input.copy_(torch.from_numpy(np.ascontiguousarray(inputs)))
        found = self.call()
        return (found if isinstance(found, Tensor) else found[0]).numpy()

    @torch.inference_mode()
    def call(self) -> Any:
        """See `netcut_fx.comparison.peers.Served`."""
        return self._module(self._input)


@torch.no_grad()
def fold_batch_norm(module: fx.GraphModule) -> int:
    """Fold each batch-norm that follows a convolution into its weights, in place; how many there were.

    Parameters
    ----------
    module : fx.GraphModule
        Of an exported program, in ATen's operators. Weights that several convolutions share are left as they are.
    """
    folded = 0
    for norm in [node for node in module.graph.nodes if node.target is _BATCH_NORM]:
        convolution = norm.args[0]
        if not isinstance(convolution, fx.Node) or convolution.target is not _CONVOLUTION or len(convolution.users) > 1:
            continue
        image, weight, *rest = convolution.args
        bias = rest[0] if rest else None
        held = [weight, bias, *norm.args[1:5]]
        if any(isinstance(node, fx.Node) and (node.op != "get_attr" or len(node.users) > 1) for node in held):
            continue
        values = [_value(module, node) for node in held]
        w, b, scale, shift, mean, variance = values
        assert w is not None
        assert mean is not None
        assert variance is not None
        new_weight, new_bias = fuse_conv_bn_weights(
            w, b, mean, variance, float(cast(float, norm.args[7])), scale, shift
        )
        names = [f"_folded_{folded}_weight", f"_folded_{folded}_bias"]
        for name, value in zip(names, (new_weight, new_bias), strict=True):
            module.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))
        with module.graph.inserting_before(convolution):
            new = [module.graph.get_attr(name) for name in names]
        convolution.args = (image, *new, *rest[1:])
        norm.replace_all_uses_with(convolution)
        module.graph.erase_node(norm)
        folded += 1
    module.graph.eliminate_dead_code()
    module.recompile()
    return folded


def _value(module: fx.GraphModule, node: object) -> Tensor | None:
    if not isinstance(node, fx.Node):
        return None
    owner: Any = module
    for part in str(node.target).split("."):
        owner = getattr(owner, part)
    return cast(Tensor, owner)
