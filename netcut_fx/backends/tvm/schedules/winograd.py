"""Winograd's minimal filtering for 3x3 windows: which convolutions it suits, its matrices, its weights.

An output tile of 4 x 4 takes 36 products a channel instead of 144; a transformation of the data before and one of the
sums behind are additions, few against the products where there are many channels. Winograd, "Arithmetic complexity of
computations", 1980; Lavin and Gray, arXiv 1509.09308.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.polynomial.polynomial import polyfromroots

from netcut_fx.backends.tvm.schedules.contraction import Contraction
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.stages import Axis, step_of

#: Width of the window, and of an output tile.
WINDOW, TILE = 3, 4
#: What a tile reads in each direction.
SPAN = TILE + WINDOW - 1
#: Of opposite points of about one rounding errors are smaller than of the usual (0, 1, -1, 2, -2); these and their
#: squares are exact in binary.
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
#: With fewer channels the transformations are most of the work.
LEAST_CHANNELS = 16


@dataclass(frozen=True)
class Winograd:
    """The order of transformed weights: ``[SPAN][SPAN][channels / lanes][channels of the data][lanes]``.

    Parameters
    ----------
    order : tuple of int
        Dimensions of the weights: output channel, channel of the data, line and column of the window.
    lanes : int
        Width of a panel of output channels.
    """

    order: tuple[int, ...]
    lanes: int

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the transformed weights."""
        out, inner = old[self.order[0]], old[self.order[1]]
        return (SPAN, SPAN, out // self.lanes, inner, self.lanes)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Transform weights; computed in double precision."""
        _, filters, _ = matrices()
        weights = array.transpose(self.order).astype(np.float64)
        moved = np.einsum("ax,ocxy,by->abco", filters, weights, filters)
        panels = moved.reshape(SPAN, SPAN, moved.shape[2], -1, self.lanes).swapaxes(2, 3)
        return np.ascontiguousarray(panels, dtype=array.dtype)


@dataclass(frozen=True, eq=False)
class Window:
    """The loops of a convolution by what they walk: the plane of the output, and the window in the same order."""

    lines: Axis
    columns: Axis
    window: tuple[Axis, Axis]
    inner: Axis


def window_of(found: Contraction) -> Window | None:
    """Read `found` as a convolution with a dense 3x3 window in steps of one; None if it is something else."""
    *window, inner = found.sums
    if found.kind != "dense" or found.group != found.channel.extent or len(window) != 2:
        return None
    pairs: list[tuple[Axis, Axis]] = []
    for index in found.data.indices:
        rows = [axis for axis in found.rows if step_of(index, axis.var) == 1]
        sums = [axis for axis in window if step_of(index, axis.var) == 1]
        if len(rows) == len(sums) == 1 and len(found.stage.used_by((index,))) == 2:
            pairs.append((rows[0], sums[0]))
    if len(pairs) != 2 or any(axis.extent != WINDOW for axis in window):
        return None
    (lines, first), (columns, second) = pairs
    return Window(lines, columns, (first, second), inner)


def winograd_weights(found: Contraction, machine: Machine) -> Winograd | None:
    """How the weights of `found` have to be transformed; None where the window is computed as it stands."""
    window = window_of(found)
    if window is None:
        return None
    # A plane of a single tile, or of a line or two, is mostly border.
    plane = sorted((window.lines.extent, window.columns.extent))
    if plane[0] < WINDOW or plane[1] <= TILE:
        return None
    channels = (window.inner.extent, found.channel.extent)
    if any(count % machine.lanes for count in channels) or min(channels) < LEAST_CHANNELS:
        return None
    walked = [found.stage.axis_of(index) for index in found.weight.indices]
    wanted = (found.channel, window.inner, *window.window)
    if any(axis not in walked for axis in wanted):
        return None
    return Winograd(tuple(walked.index(axis) for axis in wanted), machine.lanes)


@cache
def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices of the sums (TILE x SPAN), the weights (SPAN x WINDOW) and the data (SPAN x SPAN).

    Toom and Cook's construction over finite points and infinity, transposed. The data's coefficients are those of
    polynomials that vanish in all points but one, exact in binary; what they are off by stands in the weights.
    """
    data = np.zeros((SPAN, SPAN))
    weights, sums = np.zeros((SPAN, WINDOW)), np.zeros((TILE, SPAN))
    for place, point in enumerate(_POINTS):
        others = [other for other in _POINTS if other != point]
        data[place, : len(_POINTS)] = polyfromroots(others)
        weights[place] = point ** np.arange(WINDOW) / np.prod([point - other for other in others])
        sums[:, place] = point ** np.arange(TILE)
    data[-1] = polyfromroots(_POINTS)
    weights[-1, -1] = sums[-1, -1] = 1.0
    return sums, weights, data
