"""Gated networks whose decisions a test sets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.gate_network import Gates
from netcut_fx.gating.gated_cell import GatedCell
from netcut_fx.gating.path_norm import PathNorm
from netcut_fx.graph import TracedModule


def gates_of(traced: TracedModule) -> Gates:
    return next(m for m in traced.graph_module.modules() if isinstance(m, Gates))


def cells_of(traced: TracedModule) -> list[GatedCell]:
    return [m for m in traced.graph_module.modules() if isinstance(m, GatedCell)]


def decide(traced: TracedModule, **columns: float) -> None:
    """Let saliences depend on nothing: those named ``layer_3`` or ``group_0`` get a value."""
    gates = gates_of(traced)
    for name, value in columns.items():
        kind, _, column = name.partition("_")
        net = gates.l_net if kind == "layer" else gates.c_net
        assert net is not None
        net.salience.bias.data[int(column)] = value


def vary(traced: TracedModule, inputs: Tensor) -> None:
    """Let decisions and scales differ from input to input, each gate open for about half of `inputs`."""
    gates, early = gates_of(traced), list[Tensor]()
    for net in (gates.l_net, gates.c_net):
        if net is not None:
            net.salience.weight.data.normal_(0, 30)
            net.scale.weight.data.normal_(0, 3)
    hook = gates.register_forward_pre_hook(lambda _, given: early.append(given[0]))
    with torch.no_grad():
        traced.graph_module(inputs)
        hook.remove()
        for net in (gates.l_net, gates.c_net):
            if net is not None:
                net.salience.bias.data -= net(gates.pooled(early[0]))[0].mean(0)


def disturb_norms(traced: TracedModule) -> None:
    """Let the batch-norms of each path differ."""
    for module in traced.graph_module.modules():
        if isinstance(module, PathNorm):
            norms: list[Any] = list(module.norms)
            for i, norm in enumerate(norms):
                norm.running_mean += 0.1 * i * torch.randn_like(norm.running_mean)
                norm.running_var *= 1 + 0.5 * i
                norm.weight.data *= 1 + 0.2 * i


def wanted_paths(table: CostTable, saliences: NDArray[np.float32], count: int) -> tuple[tuple[int, ...], ...]:
    """The cheapest choice, the dearest, and those that most inputs would make."""
    ends = [tuple(bound(costs) for costs in table.cells) for bound in (min, max)]
    wanted = Counter(tuple(salient_widths(table, row)) for row in saliences).most_common()
    chosen = list(dict.fromkeys([*ends, *(one for one, _ in wanted)]))[:count]
    return tuple(sorted(chosen, key=lambda one: (table.total(one), one)))


def salient_widths(table: CostTable, saliences: NDArray[np.float32]) -> list[int]:
    """The width of each cell: steps are taken as long as they are salient."""
    taken = [list(saliences[list(slots.columns)] > 0) for slots in table.slots]
    return [
        s.widths[0] + (one.index(False) if False in one else len(one))
        for s, one in zip(table.slots, taken, strict=True)
    ]
