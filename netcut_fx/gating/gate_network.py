"""The gate networks: L-Net for layers, C-Net for channel groups; from early features to decisions and scales.

Decisions are hard in inference. In training they are hard forwards and soft backwards: logistic noise is added to the
salience (a Gumbel-softmax of two classes) and the gradient is that of the sigmoid, as in Veit and Belongie,
"Convolutional Networks with Adaptive Inference Graphs" (ECCV 2018, arXiv 1711.11503). What is kept is scaled by a
number predicted along, as in Gao et al., "Dynamic Channel Pruning: Feature Boosting and Suppression" (ICLR 2019, arXiv
1810.05331).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from netcut_fx.gating.paths import Paths, gates_of_widths
from netcut_fx.gating.slots import Slots

#: Which decisions are made: the others are all "keep", with a scale of one.
Stage = Literal["none", "layers", "channels", "all"]

#: Positions per side that are left of early features before the gate network looks at them.
_MOST_POSITIONS = 8
#: At first every gate is open: a sigmoid of this is 0.95.
_OPEN = 3.0


class GateNet(nn.Module):
    """Saliences, and scales between 0 and 2, from early features.

    Parameters
    ----------
    shape : sequence of int
        Of the early features, batch included: ``(N, C, H, W)``, tokens ``(N, T, C)`` or ``(N, C)``.
    outputs : int
        How many of each.
    hidden : int
        Width of its two layers.
    """

    def __init__(self, shape: Sequence[int], outputs: int, hidden: int) -> None:
        super().__init__()
        self.rank = len(shape)
        if self.rank == 4:
            pool = max(1, min(shape[2:]) // _MOST_POSITIONS)
            self.pool: nn.Module = nn.AvgPool2d(pool)
            self.features: nn.Module = nn.Sequential(
                nn.Conv2d(shape[1], hidden, 3, 1, 1),
                nn.ReLU(),
                nn.Conv2d(hidden, hidden, 3, 2, 1),
                nn.ReLU(),
            )
        else:
            self.pool = nn.Identity()
            self.features = nn.Sequential(nn.Linear(shape[-1], hidden), nn.ReLU())
        self.salience = nn.Linear(hidden, outputs)
        self.scale = nn.Linear(hidden, outputs)
        # Every scale is exactly 1 and every gate open, so that gating by itself changes nothing.
        nn.init.zeros_(self.salience.weight)
        nn.init.constant_(self.salience.bias, _OPEN)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)

    def pooled(self, early: Tensor) -> Tensor:
        """What is left of early features before anything is learnt from them."""
        return self.pool(early.mean(1) if self.rank == 3 else early)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Saliences and scales, each ``(N, outputs)``."""
        x = self.features(pooled)
        x = x.mean((2, 3)) if self.rank == 4 else x
        return self.salience(x), 2 * torch.sigmoid(self.scale(x))


class Gates(nn.Module):
    """All decisions about one input, made once from early features.

    Parameters
    ----------
    shape : sequence of int
        Of the early features.
    slots : sequence of Slots
        Where the decisions about each cell stand.
    layers : int
        How many cells are skippable.
    hidden : int
        Width of the gate networks.
    scales : bool
        Whether what is kept is scaled.

    Notes
    -----
    The groups of a cell are nested: one is kept if it and all before it are salient. The first is always kept. Once
    `paths` are set, the decision is one of them: that with the largest sum of saliences (see `Paths.choose`).
    """

    def __init__(
        self, shape: Sequence[int], *, slots: Sequence[Slots], layers: int, hidden: int, scales: bool = True
    ) -> None:
        super().__init__()
        self.slots, self.layers, self.scales = tuple(slots), layers, scales
        self.total = layers + sum(s.groups for s in slots if s.first_group is not None)
        self.stage: Stage = "all"
        self.temperature = 1.0
        #: Share of the inputs of a batch in training that take any path, whatever the gates say.
        self.explore = 0.0
        #: What can be chosen from; None while every combination can.
        self.paths: Paths | None = None
        #: Whether every step counts as worth taking; see `Paths.choose`.
        self.fill = False
        #: Gates of the last batch in training, ``(N, total)``: what the loss looks at.
        self.last: Tensor | None = None
        #: Whether early features have channels and positions.
        self.image = len(shape) == 4
        self.l_net = GateNet(shape, layers, hidden) if layers else None
        self.c_net = GateNet(shape, self.total - layers, hidden) if self.total > layers else None

    def raw(self, early: Tensor) -> Tensor:
        """Saliences, and scales behind them unless they are off: ``(N, total)`` or ``(N, 2 * total)``."""
        return self.from_pooled(self.pooled(early))

    def pooled(self, early: Tensor) -> Tensor:
        """What both gate networks read."""
        net = self.l_net or self.c_net
        assert net is not None  # there is something to decide about
        return net.pooled(early)

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """`raw` of what `pooled` gave."""
        answers = [net(pooled) for net in (self.l_net, self.c_net) if net is not None]
        parts = [salience for salience, _ in answers]
        return torch.cat([*parts, *(scale for _, scale in answers)] if self.scales else parts, 1)

    def forward(self, early: Tensor) -> Tensor:
        """Gates (0 or 1), scales, and the number of the path (-1 without paths): ``(N, 2 * total + 1)``."""
        raw = self.raw(early)
        saliences = raw[:, : self.total]
        if self.paths is None:
            gates, path = self._nested(self._hard(saliences)), saliences.new_full((len(saliences), 1), -1)
        else:
            gates, path = self._path(saliences, self.paths)
        scales = raw[:, self.total :] if self.scales else torch.ones_like(gates)
        open_layers, open_groups = self.stage in ("none", "channels"), self.stage in ("none", "layers")
        gates, scales = (self._opened(t, open_layers, open_groups) for t in (gates, scales))
        if self.training:
            self.last = gates
        return torch.cat([gates, scales, path.to(gates.dtype)], 1)

    def _hard(self, salience: Tensor) -> Tensor:
        if not self.training:
            return (salience > 0).to(salience.dtype)
        uniform = torch.rand_like(salience).clamp(1e-6, 1 - 1e-6)
        soft = torch.sigmoid((salience + torch.log(uniform) - torch.log1p(-uniform)) / self.temperature)
        hard = (soft > 0.5).to(soft.dtype)
        return hard + soft - soft.detach()

    def _nested(self, gates: Tensor) -> Tensor:
        columns = list(gates.split(1, 1))
        for slots in self.slots:
            first = slots.first_group
            if first is None:
                continue
            columns[first] = torch.ones_like(columns[first])
            for column in range(first + 1, first + slots.groups):
                columns[column] = columns[column - 1] * columns[column]
        return torch.cat(columns, 1)

    def _path(self, saliences: Tensor, paths: Paths) -> tuple[Tensor, Tensor]:
        """The gates ``(N, total)`` and the number ``(N, 1)`` of one path for each input.

        In training drawn with Gumbel noise, soft backwards, or explored. Where all inputs explore, all take the same
        path, which is then computed alone.
        """
        scores = self.scores(saliences, paths)
        gates = torch.from_numpy(gates_of_widths(paths.slots, paths.widths, self.total)).to(scores.dtype)
        if not self.training:
            chosen = scores.argmax(1)
            return gates[chosen], chosen[:, None]
        if self.explore == 1:
            chosen = torch.randint(len(gates), (1,)).expand(len(scores))
            return gates[chosen], chosen[:, None]
        noise = -torch.log(-torch.log(torch.rand_like(scores).clamp(1e-6, 1 - 1e-6)))
        soft = torch.softmax((scores + noise) / self.temperature, 1)
        drawn = soft.argmax(1)
        hard = nn.functional.one_hot(drawn, len(gates)).to(soft.dtype)
        decided = (hard + soft - soft.detach()) @ gates
        explored, any_path = torch.rand(len(scores)) < self.explore, torch.randint(len(gates), (len(scores),))
        found = torch.where(explored[:, None], gates[any_path], decided)
        return found, torch.where(explored, any_path, drawn)[:, None]

    def scores(self, saliences: Tensor, paths: Paths) -> Tensor:
        """The sum of saliences of each path, ``(N, paths)``."""
        steps = saliences[:, torch.from_numpy(paths.columns)].cummin(2).values.flatten(1)
        if self.fill:
            steps = steps - steps.min(1, keepdim=True).values + 1
        return steps @ torch.from_numpy(paths.kept).to(steps.dtype).T

    def _opened(self, values: Tensor, layers: bool, groups: bool) -> Tensor:
        first, rest = values[:, : self.layers], values[:, self.layers :]
        return torch.cat([torch.ones_like(first) if layers else first, torch.ones_like(rest) if groups else rest], 1)

    def __getstate__(self) -> dict[str, Any]:
        # The last gates belong to a computation, which cannot be copied.
        return {**self.__dict__, "last": None}

    def extra_repr(self) -> str:
        """What it decides about."""
        stage = "" if self.stage == "all" else f", stage={self.stage}"
        paths = "" if self.paths is None else f", paths={len(self.paths.widths)}"
        return f"layers={self.layers}, groups={self.total - self.layers}, scales={self.scales}{stage}{paths}"
