"""A cell behind its gate: computes what is kept for each input, and really calls nothing for what is not."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from netcut_fx.gating.cells import Cell
from netcut_fx.gating.path_norm import PathNorm
from netcut_fx.gating.slots import Slots


def keep_channels(value: Tensor, keep: Tensor, offset: int) -> Tensor:
    """Multiply the channels of `value` from `offset` on with `keep`, ``(N, channels)``."""
    rest = value.shape[1] - offset - keep.shape[1]
    if offset or rest:
        ones = keep.new_ones((keep.shape[0], 1))
        keep = torch.cat([ones.expand(-1, offset), keep, ones.expand(-1, rest)], 1)
    return value * keep.reshape(*keep.shape, *[1] * (value.dim() - 2))


class GatedCell(nn.Module):
    """One cell that is computed as far as its gates say.

    In training all is computed and multiplied by the gates, so that gradients reach them, unless all rows take the same
    path. In inference the rows whose gate is closed are left out; channel groups are multiplied by zero, which compiled
    variants of the cell save.

    Parameters
    ----------
    cell : Cell
        What it stands for.
    slots : Slots
        Where its decisions are.
    total : int
        Number of saliences of the network.
    body : torch.fx.GraphModule
        From the entry and a ``(N, channels)`` factor for each channel set to the body's value.
    group_of : sequence of tensors
        For each channel set, the group that each channel belongs to.
    scaled_set : int or None
        The set whose channels are scaled.
    """

    def __init__(
        self,
        cell: Cell,
        slots: Slots,
        total: int,
        body: fx.GraphModule,
        group_of: tuple[Tensor, ...],
        scaled_set: int | None,
    ) -> None:
        super().__init__()
        self.cell, self.slots, self.total, self.scaled_set = cell, slots, total, scaled_set
        self.body = body
        for i, groups in enumerate(group_of):
            self.register_buffer(f"group_of_{i}", groups)

    def group_of(self, index: int) -> Tensor:
        """The group that each channel of a set belongs to."""
        return self.get_buffer(f"group_of_{index}")

    def forward(self, entry: Tensor, *more: Tensor) -> Tensor:
        """Value of the cell.

        Parameters
        ----------
        entry : Tensor
            What the cell reads.
        *more : Tensor
            The shortcut, if it is skippable, and the decisions, ``(N, 2 * total + 1)``.
        """
        decisions = more[-1]
        if self.slots.layer is None:
            return self._body(entry, decisions)
        shortcut, gate = more[0], decisions[:, self.slots.layer]
        if entry.is_meta or (self.training and not self._one_path(decisions)):
            return shortcut + self._scaled(entry, decisions, gate)
        kept = gate > 0.5
        if bool(kept.all()):
            return shortcut + self._scaled(entry, decisions, None)
        if not bool(kept.any()):
            return shortcut
        rows = kept.nonzero().flatten()
        value = self._scaled(entry[rows], decisions[rows], None)
        return shortcut.index_add(0, rows, value)

    def _scaled(self, entry: Tensor, decisions: Tensor, gate: Tensor | None) -> Tensor:
        assert self.slots.layer is not None
        factor = decisions[:, self.total + self.slots.layer]
        factor = factor if gate is None else factor * gate
        value = self._body(entry, decisions)
        return value * factor.reshape(-1, *[1] * (value.dim() - 1))

    def _one_path(self, decisions: Tensor) -> bool:
        paths = decisions[:, -1]
        return bool(paths[0] >= 0) and bool((paths == paths[0]).all())

    def _body(self, entry: Tensor, decisions: Tensor) -> Tensor:
        paths = None if entry.is_meta or bool(decisions[0, -1] < 0) else decisions[:, -1].long()
        for norm in self.body.modules():
            if isinstance(norm, PathNorm):
                norm.rows = paths
        return self.body(entry, *self._factors(decisions))

    def _factors(self, decisions: Tensor) -> list[Tensor]:
        first = self.slots.first_group
        if first is None:
            return []
        gates = decisions[:, first : first + self.slots.groups]
        scales = decisions[:, self.total + first : self.total + first + self.slots.groups]
        return [
            (gates * scales if i == self.scaled_set else gates)[:, self.group_of(i)] for i in range(len(self.cell.sets))
        ]

    def extra_repr(self) -> str:
        """Name, and what may be left out."""
        channels = "+".join(str(s.channels) for s in self.cell.sets)
        groups = f", {channels} channels in {self.slots.groups} groups" if channels else ""
        return f"{self.cell.name}{', skippable' if self.cell.skippable else ''}{groups}"
