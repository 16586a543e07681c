"""Which nodes yield just what comes in, in a network that is not being trained."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from netcut_fx.effects import observe
from netcut_fx.graph import TracedModule
from netcut_fx.passes.inplace import written_memory
from netcut_fx.passes.observing import Observation
from netcut_fx.passes.rewriting import argument

_NO_OP_MODULES = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
#: Modules of other packages that drop whole branches while training; known by the names their papers gave them, before
#: which transformers sets the name of the network (``SwinDropPath``).
_NO_OP_MODULE_NAMES = ("StochasticDepth", "DropPath", "DropBlock2d", "DropBlock3d")
#: Functions that only act in training, and where their flag stands (None: by name only).
_TRAINING_FLAG: dict[Any, int] = {
    functional.dropout: 2,
    functional.dropout1d: 2,
    functional.dropout2d: 2,
    functional.dropout3d: 2,
    functional.alpha_dropout: 2,
    functional.feature_alpha_dropout: 2,
    torch.ops.aten.dropout.default: 2,
    torch.ops.aten.alpha_dropout.default: 2,
    torch.ops.aten.feature_dropout.default: 2,
    torch.ops.aten.feature_alpha_dropout.default: 2,
}
_TRAINING_FUNCTION_NAMES = {"stochastic_depth": 3, "drop_path": 2}
_CASTS = {"to", "float", "double", "half", "bfloat16", "type", "type_as"}
_RESHAPES = {"view", "reshape", "flatten", "expand", "expand_as", "squeeze", "view_as", "reshape_as"}
_COPIES = {"clone"}


def is_no_op(graph_module: fx.GraphModule, node: fx.Node, observed: Observation | None) -> bool:
    """Whether `node` yields its first input, unchanged and perhaps in other memory."""
    if not node.args or not isinstance(node.args[0], fx.Node):
        return False
    if node.op == "call_module":
        module = graph_module.get_submodule(str(node.target))
        if isinstance(module, _NO_OP_MODULES) or type(module).__name__.endswith(_NO_OP_MODULE_NAMES):
            return True
        return type(module) is nn.Flatten and _same_shape(node, observed)
    name = str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", ""))
    if node.op == "call_function":
        if node.target in _TRAINING_FLAG:
            return argument(node, _TRAINING_FLAG[node.target], "training", True) is False
        if name in _TRAINING_FUNCTION_NAMES:
            return argument(node, _TRAINING_FUNCTION_NAMES[name], "training", True) is False
        if node.target not in (torch.detach, torch.clone, torch.flatten, torch.reshape, torch.squeeze):
            return False
    elif node.op != "call_method":
        return False
    if name == "detach" or name in _COPIES:
        return True
    return name in _CASTS | _RESHAPES and _same_shape(node, observed)


def removable(traced: TracedModule, nodes: Collection[fx.Node]) -> list[fx.Node]:
    """Those of the no-ops `nodes` that may go: a copy protects what is written in place later, so it stays."""
    storages, written = observe(traced).storages, written_memory(traced)
    return [
        node
        for node in nodes
        if not _copies(node)
        or not any(memory in written for part in (node, *node.all_input_nodes) for memory in storages[part.name])
    ]


def droppable_contiguous(node: fx.Node, observed: Observation | None) -> bool:
    """Whether a ``.contiguous()`` does nothing, or serves only reshapes, which can copy for themselves."""
    if node.op != "call_method" or node.target != "contiguous" or len(node.args) != 1 or observed is None:
        return False
    source = node.args[0]
    if node.kwargs.get("memory_format", torch.contiguous_format) is not torch.contiguous_format:
        return False
    if isinstance(source, fx.Node) and all(seen.contiguous for seen in observed.runs(source.name)):
        return True
    return bool(node.users) and all(_reshapes(user) and user.args[0] is node for user in node.users)


def _reshapes(user: fx.Node) -> bool:
    return (user.op == "call_method" and user.target in ("view", "reshape")) or user.target in (
        torch.reshape,
        torch.flatten,
    )


def _copies(node: fx.Node) -> bool:
    return str(getattr(node.target, "__name__", node.target)) in {*_COPIES, "contiguous"}


def _same_shape(node: fx.Node, observed: Observation | None) -> bool:
    source = node.args[0]
    return observed is not None and isinstance(source, fx.Node) and observed.same_shape(node.name, source.name)
