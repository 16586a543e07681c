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
            self.features: nn.Module = nn.Sequential(
                nn.AvgPool2d(pool),
                nn.Conv2d(shape[1], hidden, 3, 1, 1),
                nn.ReLU(),
                nn.Conv2d(hidden, hidden, 3, 2, 1),
                nn.ReLU(),
            )
        else:
            self.features = nn.Sequential(nn.Linear(shape[-1], hidden), nn.ReLU())
        self.salience = nn.Linear(hidden, outputs)
        self.scale = nn.Linear(hidden, outputs)
        # Every scale is exactly 1 and every gate open, so that gating by itself changes nothing.
        nn.init.zeros_(self.salience.weight)
        nn.init.constant_(self.salience.bias, _OPEN)
        nn.init.zeros_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)

    def forward(self, early: Tensor) -> tuple[Tensor, Tensor]:
        """Saliences and scales, each ``(N, outputs)``."""
        x = self.features(early.mean(1) if self.rank == 3 else early)
        x = x.mean((2, 3)) if self.rank == 4 else x
        return self.salience(x), 2 * torch.sigmoid(self.scale(x))


class Gates(nn.Module):
    """All decisions about one input, made once from early features.

    Parameters
    ----------
    shape : sequence of int
        Of the early features.
    layers, grouped, groups : int
        Skippable cells; cells with channel sets; groups of each.
    hidden : int
        Width of the gate networks.
    scales : bool
        Whether what is kept is scaled.

    Notes
    -----
    The groups of a cell are nested: one is kept if it and all before it are salient. The first is always kept.
    """

    def __init__(
        self, shape: Sequence[int], *, layers: int, grouped: int, groups: int, hidden: int, scales: bool = True
    ) -> None:
        super().__init__()
        self.layers, self.grouped, self.groups, self.scales = layers, grouped, groups, scales
        self.stage: Stage = "all"
        self.temperature = 1.0
        #: Gates of the last batch in training, ``(N, total)``: what the loss looks at.
        self.last: Tensor | None = None
        self.l_net = GateNet(shape, layers, hidden) if layers else None
        self.c_net = GateNet(shape, grouped * groups, hidden) if grouped else None

    @property
    def total(self) -> int:
        """Number of saliences."""
        return self.layers + self.grouped * self.groups

    def raw(self, early: Tensor) -> Tensor:
        """Saliences, and scales behind them unless they are off: ``(N, total)`` or ``(N, 2 * total)``."""
        answers = [net(early) for net in (self.l_net, self.c_net) if net is not None]
        parts = [salience for salience, _ in answers]
        return torch.cat([*parts, *(scale for _, scale in answers)] if self.scales else parts, 1)

    def forward(self, early: Tensor) -> Tensor:
        """Gates (0 or 1) and scales: ``(N, 2 * total)``."""
        raw = self.raw(early)
        gates = self._nested(self._hard(raw[:, : self.total]))
        scales = raw[:, self.total :] if self.scales else torch.ones_like(gates)
        open_layers, open_groups = self.stage in ("none", "channels"), self.stage in ("none", "layers")
        gates, scales = (self._opened(t, open_layers, open_groups) for t in (gates, scales))
        if self.training:
            self.last = gates
        return torch.cat([gates, scales], 1)

    def _hard(self, salience: Tensor) -> Tensor:
        if not self.training:
            return (salience > 0).to(salience.dtype)
        uniform = torch.rand_like(salience).clamp(1e-6, 1 - 1e-6)
        soft = torch.sigmoid((salience + torch.log(uniform) - torch.log1p(-uniform)) / self.temperature)
        hard = (soft > 0.5).to(soft.dtype)
        return hard + soft - soft.detach()

    def _nested(self, gates: Tensor) -> Tensor:
        if not self.grouped:
            return gates
        groups = gates[:, self.layers :].reshape(-1, self.grouped, self.groups)
        groups = torch.cat([torch.ones_like(groups[:, :, :1]), groups[:, :, 1:]], 2).cumprod(2)
        return torch.cat([gates[:, : self.layers], groups.reshape(-1, self.grouped * self.groups)], 1)

    def _opened(self, values: Tensor, layers: bool, groups: bool) -> Tensor:
        first, rest = values[:, : self.layers], values[:, self.layers :]
        return torch.cat([torch.ones_like(first) if layers else first, torch.ones_like(rest) if groups else rest], 1)

    def __getstate__(self) -> dict[str, Any]:
        # The last gates belong to a computation, which cannot be copied.
        return {**self.__dict__, "last": None}

    def extra_repr(self) -> str:
        """What it decides about."""
        stage = "" if self.stage == "all" else f", stage={self.stage}"
        return f"layers={self.layers}, grouped={self.grouped}, groups={self.groups}, scales={self.scales}{stage}"
