"""What of a network does not stay in the caches from one run to the next.

A kernel is measured inside a network. Where all weights and buffers of that network do not fit into a cache, each run
finds there only a part of what the run before it left. A cut of the network is smaller, finds more, and is faster than
the times of its kernels say: by a fifth for the shallowest cuts of small networks, whose weights lie in the tail.
"""

from __future__ import annotations

from collections.abc import Sequence

from cost_models.features import KernelFacts
from cost_models.machine import Machine

#: Milliseconds for each byte that is fetched again, where nothing was measured: 50 GB/s from the last cache, which is
#: shared by cores, 20 GB/s from memory.
NEAR_MS_PER_BYTE, FAR_MS_PER_BYTE = 2e-8, 5e-8
#: A core can count on a quarter of the last cache: two halvings.
_HALVINGS = 2


def footprint_bytes(facts: Sequence[KernelFacts]) -> float:
    """Weights of all kernels, and the buffers of that with the largest: what one run touches at the least."""
    return sum(f.weight_bytes for f in facts) + max((f.activation_bytes for f in facts), default=0.0)


def capacities(machine: Machine) -> tuple[int, ...]:
    """From the last cache that a core has alone to the one that all share, in powers of two, in bytes.

    How much of a shared cache is to be had the system does not tell; measured networks do.
    """
    *smaller, shared = machine.cache_bytes
    found = [smaller[-1] if smaller else shared]
    while found[-1] * 2 <= shared:
        found.append(found[-1] * 2)
    return tuple(found)


def assumed_ms_per_byte(machine: Machine) -> tuple[float, ...]:
    """What each capacity costs before anything is known of the machine."""
    sizes = capacities(machine)
    far = max(1, len(sizes) - 1 - _HALVINGS)
    return tuple(NEAR_MS_PER_BYTE if i == 0 else FAR_MS_PER_BYTE if i == far else 0.0 for i in range(len(sizes)))


def missed(footprint: float, capacity: float) -> float:
    """Share of a footprint that a cache of this capacity does not keep."""
    return max(0.0, 1 - capacity / footprint) if footprint > 0 else 0.0
