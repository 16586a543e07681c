"""How the features of a frontier become one vector for each image, as the source network itself suggests.

The head is the same behind every cut; what is in front of it has many forms. Positions are averaged, wherever the
channels are; where the network goes on to read one token alone, that token is taken.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, fx

from netcut_fx.channel_axis import channels_are_last
from netcut_fx.class_token import class_tokens
from netcut_fx.errors import PassError
from netcut_fx.graph import TensorSpec, TracedModule

#: ``"none"``: features ``(N, C)`` as they are. ``"channels-first"``: mean over all but batch and dimension 1.
#: ``"channels-last"``: mean over all but batch and last dimension. ``"class-token"``: the first of ``(N, T, C)``.
Pool = Literal["none", "channels-first", "channels-last", "class-token"]

#: ``"auto"``: what the network suggests. ``"mean"``: never a class token. ``"class-token"``: always one.
PoolOption = Literal["auto", "mean", "class-token"]


def pool_of(traced: TracedModule, node: fx.Node) -> Pool:
    """What the network itself suggests for the tensor that `node` yields.

    Where the network reads one token behind `node` (index 0 of tokens ``(N, T, C)``, which a concatenation with a
    learnt token began), and that token has seen the image already, it is ``"class-token"``; otherwise the mean over
    positions. Where the channels are follows from the operations before and behind: see `netcut_fx.channel_axis`. A
    cut network remembers at its crossing nodes (``node.meta["pool"]``) what its source suggested.

    Linear time for a whole network: the sweeps over the graph are kept with it.

    Parameters
    ----------
    traced : TracedModule
    node : torch.fx.Node
        One of its nodes.
    """
    spec = node.meta["spec"]
    if not isinstance(spec, TensorSpec) or len(spec.shape) < 3:
        return "none"
    recorded: Pool | None = node.meta.get("pool")
    if recorded is not None:
        return recorded
    if len(spec.shape) == 3 and class_tokens(traced).suggested(node):
        return "class-token"
    return "channels-last" if channels_are_last(traced, node) else "channels-first"


def chosen_pool(traced: TracedModule, node: fx.Node, option: PoolOption) -> Pool:
    """What to do with the tensor that `node` yields, given what the user chose; ``(N, C)`` stays as it is.

    Raises
    ------
    PassError
        If a class token is asked for where there is none, or for an unknown option.
    """
    check_pool_option(option)
    suggested = pool_of(traced, node)
    if option == "auto" or suggested == "none":
        return suggested
    if option == "mean":
        return "channels-last" if suggested == "class-token" else suggested
    if suggested == "class-token" or class_tokens(traced).holds(node):
        return "class-token"
    where = f"cannot take a class token at {node.meta['qualname']} of {traced.name}"
    spec: TensorSpec = node.meta["spec"]
    if len(spec.shape) != 3 or suggested == "channels-first":
        raise PassError(
            f"{where}: {spec} is no sequence of tokens (N, T, C); use pool=auto or pool=mean, or cut where tokens cross"
        )
    raise PassError(
        f"{where}: no learnt token was put in front of its tokens {spec}; use pool=auto or pool=mean to average them"
    )


def check_pool_option(option: str) -> None:
    """Refuse what is no `PoolOption`.

    Raises
    ------
    PassError
        Naming those there are.
    """
    if option not in get_args(PoolOption):
        raise PassError(f"pool {option!r} is unknown; use one of {', '.join(get_args(PoolOption))}")


def pool(value: Tensor, kind: Pool) -> Tensor:
    """Pool one crossing tensor: ``(N, ...)`` to ``(N, C)``. The result may share memory with `value`."""
    if kind == "class-token":
        return torch.select(value, 1, 0)
    dimensions = averaged_dimensions(value.dim(), kind)
    return torch.mean(value, dimensions) if dimensions else value


def averaged_dimensions(rank: int, kind: Pool) -> tuple[int, ...]:
    """The dimensions that pooling a tensor of `rank` averages over; empty for those it does not average."""
    if kind == "channels-first":
        return tuple(range(2, rank))
    return tuple(range(1, rank - 1)) if kind == "channels-last" else ()


def pooled_channels(spec: TensorSpec, kind: Pool) -> int:
    """How many features pooling leaves for each image."""
    return spec.shape[1] if kind in ("none", "channels-first") else spec.shape[-1]


def can_be_pooled(spec: object) -> bool:
    """Whether a node with this spec yields features: one floating-point tensor with a batch and a channel dimension."""
    return isinstance(spec, TensorSpec) and spec.dtype.is_floating_point and len(spec.shape) > 1
