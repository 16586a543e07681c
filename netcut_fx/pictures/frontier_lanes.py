"""Lanes beside the boxes for tensors that pass by other rows: short ways inside, long ones outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netcut_fx.pictures.frontier_rows import Flow

#: No more lanes than this; what does not fit shares the outermost.
_LANES = 48
_FIRST, _WIDEST, _ROOM = 24.0, 11.0, 260.0


@dataclass(frozen=True)
class Lanes:
    """Which lane each flow takes, by its index, and how many there are."""

    of_flow: dict[int, int]
    count: int

    @classmethod
    def of(cls, flows: Sequence[Flow]) -> Lanes:
        """Give each flow that goes further than to the next row a lane that is free all the way."""
        far = [(f.targets[-1] - f.source, f.source, i) for i, f in enumerate(flows) if f.targets[-1] > f.source + 1]
        taken: list[list[tuple[int, int]]] = []
        found: dict[int, int] = {}
        for length, source, index in sorted(far):
            end = source + length
            # Ways in are above ways out, so that a lane is free again in the row where another ends.
            free = (n for n, spans in enumerate(taken) if all(end <= a or b <= source for a, b in spans))
            lane = next(free, min(len(taken), _LANES - 1))
            if lane == len(taken):
                taken.append([])
            taken[lane].append((source, end))
            found[index] = lane
        return cls(found, len(taken))

    @property
    def width(self) -> float:
        """Room that all lanes take."""
        return _FIRST + self.count * self._pitch if self.count else 0.0

    @property
    def _pitch(self) -> float:
        return min(_WIDEST, _ROOM / max(self.count, 1))

    def offset(self, index: int) -> float:
        """How far left of the boxes the lane of flow `index` is."""
        return _FIRST + self.of_flow[index] * self._pitch
