"""What a schedule has to know of a CPU."""

from __future__ import annotations

from dataclasses import dataclass

from netcut_fx.target import Target


@dataclass(frozen=True)
class Machine:
    """A CPU core as a schedule sees it.

    Parameters
    ----------
    lanes : int
        float32 elements of a vector register.
    registers : int
        Vector registers.
    l1_bytes, l2_bytes : int
        Data caches of one core.
    threads : int
        Threads that run a kernel.
    """

    lanes: int
    registers: int
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    threads: int = 1

    @classmethod
    def of(cls, target: Target) -> Machine:
        """The machine that `target` describes; the smallest of its architecture where it does not say."""
        lanes = target.float32_lanes
        if lanes == 16:
            return cls(lanes, 32, l2_bytes=1024 * 1024, threads=target.threads)
        return cls(lanes, 32 if target.arch in ("aarch64", "arm64") else 16, threads=target.threads)

    @classmethod
    def for_schedules(cls, target: Target) -> Machine | None:
        """The machine that our schedules are made for; None on a GPU, where they do not fit."""
        return cls.of(target) if target.kind == "llvm" else None

    def lanes_for(self, extent: int) -> int:
        """Longest vector that cuts `extent` evenly, at least a quarter of a register; 1 where there is none.

        Vectors of other lengths than powers of two are no way out: code generators keep them in memory.
        """
        lanes = self.lanes
        while lanes >= max(4, self.lanes // 4):
            if extent % lanes == 0:
                return lanes
            lanes //= 2
        return 1
