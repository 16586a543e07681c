"""Kernel times that add up to what their network takes.

A profile is made some minutes before or after the network is timed as a whole, by a machine whose clock has changed
meanwhile, and watching a kernel costs time of its own. What a profile tells well is how the time of the whole divides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cost_models.sample import KernelSample, NetworkSample

#: A network counts as that which was profiled where so much of its calls was timed in it.
_COVERED = 0.9


def profiled_networks(
    samples: Sequence[KernelSample], networks: Sequence[NetworkSample]
) -> dict[str, tuple[NetworkSample, float]]:
    """For each group, the network that its kernels were timed in, and the sum of these times; the first of several.

    It runs all the kernels of its group, and hardly any that the group does not have.
    """
    by_group: dict[str, dict[str, KernelSample]] = {}
    for sample in samples:
        by_group.setdefault(sample.group, {})[sample.key] = sample
    anywhere = {sample.key: sample for sample in samples}
    found: dict[str, tuple[NetworkSample, float]] = {}
    for network in networks:
        own = by_group.get(network.group)
        if own is None or network.group in found:
            continue
        keys = [kernel.key for kernel in network.kernels]
        covered = sum(key in own for key in keys) >= _COVERED * len(keys)
        if covered and own.keys() <= set(keys):
            timed = (own.get(key) or anywhere.get(key) for key in keys)
            found[network.group] = network, sum(sample.ms for sample in timed if sample is not None)
    return found


def anchored(samples: Sequence[KernelSample], networks: Sequence[NetworkSample]) -> tuple[KernelSample, ...]:
    """Scale the kernels of each group whose network was measured, so that they add up to it."""
    scales = {group: network.ms / ms for group, (network, ms) in profiled_networks(samples, networks).items()}
    return tuple(
        replace(s, ms=s.ms * scale, low_ms=s.low_ms * scale, high_ms=s.high_ms * scale)
        if (scale := scales.get(s.group)) is not None
        else s
        for s in samples
    )
