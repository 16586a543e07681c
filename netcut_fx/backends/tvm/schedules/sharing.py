"""Which loop the threads share: lines of a picture where there are enough, so that each thread has its own memory.

Threads that share channels write beside each other in every position. Where that is only a vector or two, processors
fetch what the other thread has just written, and two threads are slower than one. Threads that share lines keep to
themselves, and find what they wrote in their own cache when the next kernel reads it.

Loops around sums are never fused to be shared: taking the fused one apart again costs small kernels more than their
work. Element-wise nests without a loop that is shared evenly are.
"""

from __future__ import annotations

from typing import Any

#: How much of the threads' time must be used when a loop is shared, where there is another loop to share.
EVEN = 0.9
#: For `share`: one that is shared evenly, else any; or any at once.
EVENLY_OR_ANY, ANY = (EVEN, 0.0), (0.0,)


def evenness(extent: int, threads: int) -> float:
    """Share of the threads' time that is used when `extent` equal pieces of work are shared: 7 of 8 for 7 and two."""
    return extent / (-(-extent // threads) * threads)


def share(schedule: Any, groups: list[list[Any]], threads: int, leasts: tuple[float, ...]) -> list[list[Any]]:
    """Take from `groups` of loops what the threads share: the first loop that gives each of them about the same.

    Parameters
    ----------
    schedule : tvm.s_tir.Schedule
        Where the loops stand.
    groups : list of list of LoopRV
        Candidates, those of the first group preferred; none of them with a smaller last tile.
    threads : int
        How many share; nothing is shared by one.
    leasts : tuple of float
        What `evenness` must be at least, in one search of all groups after the other.

    Returns
    -------
    list of list of LoopRV
        First the loop to be made the outermost and parallel, or nothing; then the groups as they remain within.
    """
    for least in leasts if threads > 1 else ():
        for group, loops in enumerate(groups):
            for place, loop in enumerate(loops):
                extent = int(schedule.get(loop).extent)
                if extent % threads == 0:
                    part, *within = schedule.split(loop, [threads, None])
                elif extent > threads and evenness(extent, threads) >= least:
                    part, within = loop, []
                else:
                    continue
                left = [*loops[:place], *within, *loops[place + 1 :]]
                return [[part], *groups[:group], left, *groups[group + 1 :]]
    return [[], *groups]
