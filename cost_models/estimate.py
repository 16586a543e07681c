"""A latency estimate: a number of milliseconds, how far it may be off, and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

UNKNOWN = "unknown"


@dataclass(frozen=True)
class LatencyEstimate:
    """Milliseconds with an interval. Adds with ``+``; *unknown* absorbs everything it is added to.

    Parameters
    ----------
    ms : float
        Expected latency; NaN if unknown.
    low_ms, high_ms : float
        Interval; NaN if unknown.
    provenance : tuple of (str, float)
        What the estimate rests on, as (source, ms) pairs: ``("measured", 1.9)``, ``("roofline", 0.1)``.
    missing : tuple of str
        Keys of the kernels that nothing covers. Not empty exactly when the estimate is unknown.
    coverage : float, optional
        Share of true latencies that such an interval is meant to contain; None where nothing was stated. A sum states
        nothing: two intervals of 90 % do not add up to one.
    notes : tuple of str
        What a reader should know: what the interval rests on, which kernels lie outside what was measured.

    Notes
    -----
    Errors of kernels measured in one session are correlated (clock, cache state), so intervals add linearly rather
    than in quadrature: the wider, safe choice.
    """

    ms: float
    low_ms: float
    high_ms: float
    provenance: tuple[tuple[str, float], ...] = ()
    missing: tuple[str, ...] = ()
    coverage: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.missing:
            return
        if not (0.0 <= self.low_ms <= self.ms <= self.high_ms < math.inf):
            raise ValueError(
                f"latency estimate needs 0 <= low <= ms <= high < inf, got low={self.low_ms}, ms={self.ms}, "
                f"high={self.high_ms}"
            )

    @classmethod
    def unknown(cls, *keys: str) -> LatencyEstimate:
        """The estimate of something that nothing covers: never zero, never within a deadline."""
        if not keys:
            raise ValueError("an unknown estimate must name at least one kernel that nothing covers")
        return cls(math.nan, math.nan, math.nan, (), tuple(keys))

    @classmethod
    def zero(cls) -> LatencyEstimate:
        """The neutral element of ``+``: an empty network."""
        return cls(0.0, 0.0, 0.0)

    @property
    def is_known(self) -> bool:
        """False if some kernel is neither measured nor modelled."""
        return not self.missing

    def meets(self, deadline_ms: float) -> bool:
        """Whether the expected latency is known and within `deadline_ms`."""
        return self.is_known and self.ms <= deadline_ms

    def __add__(self, other: LatencyEstimate) -> LatencyEstimate:
        if self.missing or other.missing:
            return LatencyEstimate.unknown(*dict.fromkeys(self.missing + other.missing))
        shares = dict(self.provenance)
        for source, ms in other.provenance:
            shares[source] = shares.get(source, 0.0) + ms
        return LatencyEstimate(
            self.ms + other.ms,
            self.low_ms + other.low_ms,
            self.high_ms + other.high_ms,
            tuple(shares.items()),
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
        )

    @classmethod
    def sum(cls, parts: Iterable[LatencyEstimate]) -> LatencyEstimate:
        """Sum of `parts`; `zero` for none."""
        total = cls.zero()
        for part in parts:
            total = total + part
        return total

    def __str__(self) -> str:
        if self.missing:
            return f"{UNKNOWN} (nothing covers {', '.join(self.missing)})"
        rests_on = ", ".join(f"{source} {ms:.3f}" for source, ms in self.provenance)
        return f"{self.ms:.3f} ms [{self.low_ms:.3f}, {self.high_ms:.3f}]" + (f" from {rests_on}" if rests_on else "")
