"""Pass ``fold-batch-norm``: a frozen batch-norm behind a convolution or linear layer becomes part of its weights.

With gamma, beta the affine weights and mean, var the running statistics, ``BN(W x + b) = W' x + b'`` where
``W' = W * s``, ``b' = (b - mean) * s + beta`` and ``s = gamma / sqrt(var + eps)``, one s per output channel
(Jacob et al., 2018, arXiv 1712.05877, section 3.2).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from netcut_fx.errors import PassError
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.passes.base import Pass
from netcut_fx.passes.copying import copy_traced, tensors
from netcut_fx.passes.dead_code import drop_unused_weights
from netcut_fx.passes.rewriting import (
    ORIGIN,
    absorb_following,
    argument,
    origin,
    set_argument,
    set_parameter,
    tensor_at,
)
from netcut_fx.tracing import retrace

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTION_FUNCTIONS: frozenset[Any] = frozenset(
    {torch.conv1d, torch.conv2d, torch.conv3d, functional.conv1d, functional.conv2d, functional.conv3d}
)


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold batch-norm modules in eval mode into the layer in front of them.

    Layers are convolutions (also transposed) and linear layers, called as a module or, but for transposed ones, as a
    function on a weight. A norm stays where someone else uses what the layer yields or the weights of the layer.
    """

    name: ClassVar[str] = "fold-batch-norm"

    def call(self, traced: TracedModule) -> TracedModule:
        """Fold, in execution order, so that two norms in a row both go."""
        work = copy_traced(traced)
        graph_module = work.graph_module
        uses = _weight_uses(graph_module)
        for node in work.nodes:
            layer = _foldable_layer(graph_module, node, uses)
            if layer is not None:
                new = _fold(graph_module, layer, node)
                uses.update({_key(tensor): 1 - uses[_key(tensor)] for tensor in new})
        drop_unused_weights(graph_module)
        return retrace(graph_module, traced.name, traced.input_specs)

    def ensures(self, before: TracedModule, after: TracedModule) -> None:
        """Nothing that could be folded is left."""
        uses = _weight_uses(after.graph_module)
        for node in after.nodes:
            if _foldable_layer(after.graph_module, node, uses) is not None:
                raise PassError(
                    f"fold-batch-norm left {node.meta['qualname']} in {after.name} although it can be folded"
                )


def _foldable_layer(graph_module: fx.GraphModule, norm: fx.Node, uses: Counter[int]) -> fx.Node | None:
    """The layer in front of `norm` if the two can become one."""
    if norm.op != "call_module" or len(norm.args) != 1 or not isinstance(norm.args[0], fx.Node):
        return None
    module, layer = graph_module.get_submodule(str(norm.target)), norm.args[0]
    if type(module) not in _NORMS or getattr(module, "running_mean", None) is None or len(layer.users) != 1:
        return None
    if layer.op == "call_module":
        held = graph_module.get_submodule(str(layer.target))
        if type(held) in _CONVOLUTIONS or type(held) in _TRANSPOSED or (type(held) is nn.Linear and _rows(layer)):
            return layer if all(uses[_key(p)] == 1 for p in held.parameters(recurse=False)) else None
    elif layer.op == "call_function" and (
        layer.target in _CONVOLUTION_FUNCTIONS or (layer.target is functional.linear and _rows(layer))
    ):
        weight, bias = argument(layer, 1, "weight"), argument(layer, 2, "bias")
        own = [read for read in (weight, bias) if read is not None]
        if all(_is_own(graph_module, read, uses) for read in own):
            return layer
    return None


def _fold(graph_module: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> tuple[Tensor, Tensor]:
    """Returns the new weight and bias, which only `layer` uses."""
    module: Any = graph_module.get_submodule(str(norm.target))
    scale, shift = _scale_and_shift(module)
    if layer.op == "call_module":
        held: Any = graph_module.get_submodule(str(layer.target))
        groups = held.groups if type(held) in _TRANSPOSED else None
        weight, bias = _folded(held.weight, held.bias, scale, shift, transposed_groups=groups)
        trainable = held.weight.requires_grad
        held.weight = nn.Parameter(weight, requires_grad=trainable)
        held.bias = nn.Parameter(bias, requires_grad=trainable)
        new = held.weight, held.bias
    else:
        read, read_bias = argument(layer, 1, "weight"), argument(layer, 2, "bias")
        target = str(read.target)
        old = tensor_at(graph_module, target)
        old_bias = None if read_bias is None else tensor_at(graph_module, str(read_bias.target))
        weight, bias = _folded(old, old_bias, scale, shift)
        if read_bias is None:
            read_bias = _new_bias(graph_module, layer, read)
        new = (
            set_parameter(graph_module, target, weight, trainable=old.requires_grad),
            set_parameter(graph_module, str(read_bias.target), bias, trainable=old.requires_grad),
        )
    absorb_following(layer, norm)
    return new


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """In double precision, so that folding adds no error of its own."""
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


def _folded(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor, *, transposed_groups: int | None = None
) -> tuple[Tensor, Tensor]:
    """New weight and bias; a transposed convolution keeps the channels of its output in the second dimension."""
    if transposed_groups is None:
        factor = scale.reshape(-1, *[1] * (weight.dim() - 1))
        new = weight.detach().double() * factor
    else:
        # Its weight is (inputs, outputs / groups, ...), where the inputs come group by group.
        groups = transposed_groups
        grouped = weight.detach().double().reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        new = (grouped * scale.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))).reshape(weight.shape)
    offset = shift if bias is None else shift + bias.detach().double() * scale
    return new.to(weight.dtype), offset.to(weight.dtype)


def _new_bias(graph_module: fx.GraphModule, layer: fx.Node, weight: fx.Node) -> fx.Node:
    """Give a functional convolution without bias one to read, beside its weight."""
    owner = str(weight.target).rpartition(".")[0]
    base = f"{owner}.bias" if owner else "bias"
    target, count = base, 1
    taken = {str(node.meta["qualname"]) for node in graph_module.graph.nodes}
    while target in taken or _exists(graph_module, target):
        count += 1
        target = f"{base}_{count}"
    # The value comes at once, but a node may only name a tensor that exists.
    set_parameter(graph_module, target, torch.empty(0), trainable=False)
    with graph_module.graph.inserting_before(layer):
        read = graph_module.graph.get_attr(target)
    read.meta.update(weight.meta)
    read.meta["qualname"] = target
    read.meta.pop(ORIGIN, None)
    set_argument(layer, 2, "bias", read)
    layer.meta[ORIGIN] = origin(layer)
    return read


def _weight_uses(graph_module: fx.GraphModule) -> Counter[int]:
    """How often the graph uses each tensor: by calling a module that holds it or by reading it."""
    uses: Counter[int] = Counter()
    for node in graph_module.graph.nodes:
        if node.op == "call_module":
            uses.update(_key(t) for t in tensors(graph_module.get_submodule(str(node.target))))
        elif node.op == "get_attr":
            uses[_key(tensor_at(graph_module, str(node.target)))] += len(node.users)
    return uses


def _key(tensor: Tensor) -> int:
    """The same for two tensors that share memory; on the meta device there is only the object itself."""
    return id(tensor) if tensor.is_meta else tensor.untyped_storage().data_ptr()


def _is_own(graph_module: fx.GraphModule, read: Any, uses: Counter[int]) -> bool:
    if not isinstance(read, fx.Node) or read.op != "get_attr":
        return False
    return uses[_key(tensor_at(graph_module, str(read.target)))] == 1


def _exists(graph_module: fx.GraphModule, target: str) -> bool:
    owner, _, attribute = target.rpartition(".")
    return hasattr(graph_module.get_submodule(owner), attribute)


def _rows(layer: fx.Node) -> bool:
    """A linear layer's channels are its last dimension, a norm's the second: the same only for ``(N, C)``."""
    spec = layer.meta.get("spec")
    return isinstance(spec, TensorSpec) and len(spec.shape) == 2
