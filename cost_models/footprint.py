"""What of a network does not stay in the caches from one run to the next.

A kernel is measured inside a network. Where all weights and buffers of that network do not fit into a cache, each run
finds there only a part of what the run before it left, and fetches the rest again. A cut of the network is smaller,
finds more, and is faster than the times of its kernels say: by a quarter for the shallowest cuts of small networks,
whose weights lie in the tail.
"""

from __future__ import annotations

from collections.abc import Sequence

from cost_models.features import KernelFacts
from cost_models.machine import Machine

#: Milliseconds for each byte that is fetched again, where nothing was measured: 50 GB/s from the last cache, which is
#: shared by cores, 20 GB/s from memory.
ASSUMED_MS_PER_BYTE = (2e-8, 5e-8)
#: Of a cache that cores share, one can count on so much.
_SHARE = 1 / 4
#: Caches let go sooner or later than at their size: weights for half of it, all, and twice of it.
_SOFT = ((0.5, 0.25), (1.0, 0.5), (2.0, 0.25))
#: A kernel with so many operations for each byte computes half of the time that it would wait for that byte. A core
#: that adds and multiplies at 100 GFLOP/s and fetches at 30 GB/s; measured cuts do not tell 3 from 5.
_BALANCE = 3.3


def footprint_bytes(facts: Sequence[KernelFacts]) -> float:
    """Weights of all kernels, and the buffers of that with the largest: what one run touches at the least."""
    return sum(f.weight_bytes for f in facts) + max((f.activation_bytes for f in facts), default=0.0)


def fetched_bytes(facts: Sequence[KernelFacts]) -> list[float]:
    """What each kernel of a network waits for if caches keep nothing from run to run.

    Those are its weights, and of its buffers what no kernel before it in this run touched: buffers are used again and
    again. A kernel that computes much with each byte hardly waits: it fetches and computes at the same time.
    """
    found: list[float] = []
    largest = 0.0
    for f in facts:
        fresh = max(0.0, f.activation_bytes - largest)
        largest = max(largest, f.activation_bytes)
        intensity = f.work / (f.activation_bytes + f.weight_bytes)
        found.append((f.weight_bytes + fresh) / (1 + intensity / _BALANCE))
    return found


def capacities(machine: Machine) -> tuple[float, float]:
    """In bytes: the last cache that a core has alone, and what it gets of the one that all share."""
    *smaller, shared = machine.cache_bytes
    fair = shared * _SHARE
    return min(smaller[-1], fair) if smaller else fair / 2, fair


def missed(footprint: float, capacity: float) -> float:
    """Share of a footprint that a cache of about this capacity does not keep."""
    if footprint <= 0:
        return 0.0
    return sum(weight * max(0.0, 1 - capacity * size / footprint) for size, weight in _SOFT)
