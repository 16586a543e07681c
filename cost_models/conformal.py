"""Intervals with a stated coverage, from how far predictions were off where the truth is known.

A score is ``|log(measured / predicted)| / difficulty``, where the difficulty says how uncertain a network looks before
it is measured. By split conformal prediction (Vovk, Gammerman, Shafer 2005; DOI 10.1007/b106715) the interval that
reaches to the ``ceil((n + 1) * coverage)``-th smallest of n scores covers a new network with that probability, whatever
the errors are distributed like, as long as it is like those that were scored. Too few scores for that are combined with
an assumed spread by Student's t distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Relative error that any network may have: clock, placement in memory, other processes.
FLOOR = 0.03
#: How many measured networks the assumed spread is worth.
_ASSUMED = 4


@dataclass(frozen=True)
class Band:
    """How wide intervals are.

    Parameters
    ----------
    quantile : float
        Half width of an interval, as a logarithm, for difficulty 1.
    coverage : float
        Share of networks whose latency the interval is meant to contain.
    basis : str
        What that rests on, for people.
    """

    quantile: float
    coverage: float
    basis: str

    @classmethod
    def of_scores(cls, scores: Sequence[float], coverage: float = 0.9) -> Band:
        """From the scores of networks that were predicted without having been seen."""
        if not 0.5 <= coverage < 1:
            raise ValueError(f"coverage must be at least 0.5 and below 1, got {coverage}")
        known = sorted(abs(s) for s in scores)
        rank = math.ceil((len(known) + 1) * coverage)
        if rank <= len(known):
            return cls(known[rank - 1], coverage, f"conformal over {len(known)} measured networks")
        from scipy.stats import t

        freedom = _ASSUMED + len(known)
        spread = math.sqrt((_ASSUMED + sum(s * s for s in known)) / freedom)
        quantile = float(t.ppf((1 + coverage) / 2, freedom)) * spread
        return cls(quantile, coverage, f"an assumed spread and {len(known)} measured networks")

    def interval(self, ms: float, difficulty: float) -> tuple[float, float]:
        """Ends of the interval around `ms`, in ms."""
        wide = math.exp(min(self.quantile * difficulty, 5.0))
        return ms / wide, ms * wide

    def __str__(self) -> str:
        return f"{self.coverage:.0%} interval from {self.basis}"


def difficulty(parts: Sequence[tuple[str, float, float]]) -> float:
    """How uncertain a sum looks.

    Parameters
    ----------
    parts : sequence of (str, float, float)
        Kind of kernel, its ms, and the standard deviation of its logarithm. Errors of one kind add up, since one rate
        is wrong for all of them; errors of different kinds are independent.
    """
    total = sum(ms for _, ms, _ in parts)
    by_kind: dict[str, float] = {}
    for kind, ms, spread in parts:
        by_kind[kind] = by_kind.get(kind, 0.0) + ms * spread
    return math.hypot(FLOOR, *(value / total for value in by_kind.values())) if total > 0 else FLOOR
