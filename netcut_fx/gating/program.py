"""What a compiled gated network is made of, and which path an input takes through it. Needs numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from netcut_fx.gating.paths import Paths

#: Arrays that compiled code reads begin at multiples of this many float32.
_ALIGNED = 16

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Scale:
    """One scale that a path takes: which of the gate networks' numbers, and in which shape."""

    columns: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """The entry, then one of the paths.

    Parameters
    ----------
    total : int
        Number of saliences, with which the entry's numbers begin.
    paths : Paths
        What there is to choose from.
    scales : tuple of tuples of (int, shape)
        For each path, where each of its scales begins among the entry's numbers, and its shape.
    """

    total: int
    paths: Paths
    scales: tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]

    def given(self, path: int, numbers: Array) -> list[Array]:
        """The scales of a path, from the entry's numbers: views."""
        return [numbers[start : start + _size(shape)].reshape(shape) for start, shape in self.scales[path]]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        scales = [[[start, list(shape)] for start, shape in one] for one in self.scales]
        return {"total": self.total, "paths": self.paths.to_json(), "scales": scales}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        scales = tuple(tuple((start, tuple(shape)) for start, shape in one) for one in value["scales"])
        return cls(value["total"], Paths.from_json(value["paths"]), scales)


def lay_out(total: int, paths: Paths, scales: Sequence[Sequence[Scale]]) -> tuple[Program, tuple[int, ...]]:
    """Put the numbers that the paths take one behind the other, each scale where an array may begin.

    Returns
    -------
    program : Program
    columns : tuple of int
        Which of the gate networks' numbers the entry returns, in order.
    """
    columns = list(range(total))
    starts: dict[Scale, int] = {}
    for scale in (scale for one in scales for scale in one):
        if scale not in starts:
            columns += [0] * (-len(columns) % _ALIGNED)
            starts[scale] = len(columns)
            columns += scale.columns
    found = tuple(tuple((starts[scale], scale.shape) for scale in one) for one in scales)
    return Program(total, paths, found), tuple(columns)


class Dispatcher:
    """Runs one input at a time: decides, and calls one path.

    Parameters
    ----------
    program : Program
        What there is to call.
    entry : callable
        From an image to the numbers and the early features.
    path : callable
        From the number of a path, the early features and its scales to the answer.
    budget : int, optional
        No path that costs more is taken.
    fill : bool
        See `Paths.choose`.
    """

    def __init__(
        self,
        program: Program,
        entry: Callable[[Any], tuple[Array, Any]],
        path: Callable[[int, Any, list[Array]], Array],
        *,
        budget: int | None = None,
        fill: bool = False,
    ) -> None:
        self.program, self.budget, self.fill = program, budget, fill
        self._entry, self._path = entry, path

    def __call__(self, image: Any) -> tuple[Array, int]:
        """Logits ``(1, classes)`` and the number of the path."""
        numbers, early = self._entry(image)
        chosen = self.program.paths.choose(numbers[: self.program.total], self.budget, fill=self.fill)
        return self._path(chosen, early, self.program.given(chosen, numbers)), chosen


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))
