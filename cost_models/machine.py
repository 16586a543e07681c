"""What the analytical models have to know of a processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Machine:
    """A processor as the cost of a kernel sees it; rates are not here, they are fitted.

    Parameters
    ----------
    lanes : int
        float32 numbers in a vector register.
    cache_bytes : tuple of int
        Data caches that one core reaches, smallest first.
    threads : int
        Threads that run a kernel.
    """

    lanes: int = 8
    cache_bytes: tuple[int, ...] = (32 * 1024, 1024 * 1024, 32 * 1024 * 1024)
    threads: int = 1

    @property
    def level_names(self) -> tuple[str, ...]:
        """``("L1", "L2", "L3", "memory")`` for three caches."""
        return (*(f"L{i + 1}" for i in range(len(self.cache_bytes))), "memory")

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"lanes": self.lanes, "cache_bytes": list(self.cache_bytes), "threads": self.threads}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Machine:
        """Read what `to_json` wrote."""
        return cls(int(data["lanes"]), tuple(int(n) for n in data["cache_bytes"]), int(data["threads"]))
