"""A module with only some of its channels: what a narrower variant of a cell calls."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from netcut_fx.gating.gated_cell import GatedCell


@dataclass
class Dropped:
    """Channels that one module loses."""

    read: list[Tensor] = field(default_factory=list[Tensor])
    made: list[Tensor] = field(default_factory=list[Tensor])


def dropped_channels(cell: GatedCell, width: int) -> Mapping[str, Dropped]:
    """By qualified name, the channels that the nodes of `cell` lose where `width` groups are kept."""
    found: dict[str, Dropped] = {}
    for i, one in enumerate(cell.cell.sets):
        gone = (cell.group_of(i) >= width).nonzero().flatten()
        for name in one.producers:
            found.setdefault(name, Dropped()).made.append(gone)
        for name, offset in one.consumers:
            found.setdefault(name, Dropped()).read.append(gone + offset)
        for name, offset in one.through:
            found.setdefault(name, Dropped()).read.append(gone + offset)
    return found


def narrowed(module: nn.Module, dropped: Dropped | None) -> nn.Module:
    """Copy `module` without the channels that it loses."""
    own = copy.deepcopy(module)
    if dropped is None:
        return own
    if isinstance(own, nn.Conv2d):
        if own.groups > 1:  # depthwise: what it reads is what it makes
            kept = _kept(own.out_channels, dropped.read)
            _select(own, kept)
            own.groups = own.in_channels = own.out_channels = len(kept)
            return own
        made, read = _kept(own.out_channels, dropped.made), _kept(own.in_channels, dropped.read)
        _select(own, made)
        own.weight = nn.Parameter(own.weight.detach()[:, read].contiguous())
        own.out_channels, own.in_channels = len(made), len(read)
    elif isinstance(own, nn.Linear):
        kept = _kept(own.in_features, dropped.read)
        own.weight = nn.Parameter(own.weight.detach()[:, kept].contiguous())
        own.in_features = len(kept)
    elif isinstance(own, nn.BatchNorm2d):
        kept = _kept(own.num_features, dropped.read)
        _select(own, kept)
        own.num_features = len(kept)
    return own


def _kept(count: int, dropped: list[Tensor]) -> Tensor:
    keep = torch.ones(count, dtype=torch.bool)
    for index in dropped:
        keep[index] = False
    return keep.nonzero().flatten()


def _select(module: nn.Module, kept: Tensor) -> None:
    """Keep the rows `kept` of every tensor that has one for each channel."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(parameter.detach()[kept].contiguous()))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.dim():
            setattr(module, name, buffer[kept].contiguous())
