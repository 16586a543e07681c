"""Small edits of an fx graph that several passes need, keeping what is known about the nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg

#: Key in ``node.meta``: qualified names, in order, of the source nodes whose work this node now does.
ORIGIN = "origin"


def origin(node: fx.Node) -> tuple[str, ...]:
    """Qualified names of the source nodes that `node` stands for; without any rewriting, its own."""
    return node.meta.get(ORIGIN, (node.meta["qualname"],))


def absorb_following(keeper: fx.Node, gone: fx.Node) -> None:
    """`keeper` now yields what `gone`, one of its users, yielded; `gone` disappears."""
    keeper.meta[ORIGIN] = (*origin(keeper), *origin(gone))
    bypass(gone, keeper)


def absorb_preceding(keeper: fx.Node, gone: fx.Node, source: fx.Node) -> None:
    """`keeper` now does the work of its input `gone`, reading `source` itself; `gone` disappears."""
    keeper.meta[ORIGIN] = (*origin(gone), *origin(keeper))
    bypass(gone, source)


def bypass(gone: fx.Node, source: fx.Node) -> None:
    """Users of `gone` read `source`; `gone` disappears."""
    gone.replace_all_uses_with(source)
    gone.graph.erase_node(gone)


def substitute_constant(node: fx.Node, value: Any) -> None:
    """Users of `node` hold the constant `value` instead."""

    def replaced(argument: fx.Node) -> Any:
        return value if argument is node else argument

    for user in tuple(node.users):
        user.args = map_arg(user.args, replaced)  # pyright: ignore[reportAttributeAccessIssue]
        user.kwargs = map_arg(user.kwargs, replaced)  # pyright: ignore[reportAttributeAccessIssue]


def argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument that may be given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def set_argument(node: fx.Node, position: int, name: str, value: Any) -> None:
    """Set an argument in the place where it is given; by name if it is not given yet."""
    if len(node.args) > position:
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


def tensor_at(graph_module: fx.GraphModule, target: str) -> torch.Tensor:
    """The parameter or buffer with this path."""
    owner, _, attribute = target.rpartition(".")
    return getattr(graph_module.get_submodule(owner), attribute)


def set_parameter(graph_module: fx.GraphModule, target: str, value: torch.Tensor, *, trainable: bool) -> nn.Parameter:
    """Put a parameter at this path, in place of what is there, and return it."""
    owner, _, attribute = target.rpartition(".")
    module = graph_module.get_submodule(owner)
    if hasattr(module, attribute):
        delattr(module, attribute)
    parameter = nn.Parameter(value.detach(), requires_grad=trainable)
    module.register_parameter(attribute, parameter)
    return parameter
