"""Which dimension of each tensor lies innermost in memory: the channels, wherever convolutions made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.contraction import Contraction, recognise
from netcut_fx.backends.tvm.schedules.stages import Access, Stage, read_stages

#: Two dimensions, each of a buffer.
Link = tuple[tuple[Any, int], tuple[Any, int]]


@dataclass(frozen=True, eq=False)
class KernelAxes:
    """How the channel dimensions of a kernel's buffers hang together.

    Parameters
    ----------
    stages : tuple of Stage
        The kernel's nests.
    contraction : Contraction or None
        Its convolution or product with constant weights.
    seeds : tuple of (buffer, dimension)
        Channels that its convolution wants innermost.
    links : tuple of ((buffer, dimension), (buffer, dimension))
        Dimensions that one loop walks in both buffers.
    """

    stages: tuple[Stage, ...]
    contraction: Contraction | None
    seeds: tuple[tuple[Any, int], ...]
    links: tuple[Link, ...]

    def spread(self, known: Mapping[Any, int], fixed: frozenset[Any]) -> dict[Any, int]:
        """Channel dimension of every buffer that can be reached from `known` and the seeds, not through `fixed`."""
        found = {buffer: dimension for buffer, dimension in known.items() if buffer not in fixed}
        for buffer, dimension in self.seeds:
            if buffer not in fixed:
                found.setdefault(buffer, dimension)
        changed = True
        while changed:
            changed = False
            for one, other in self.links:
                for (a, i), (b, j) in ((one, other), (other, one)):
                    if found.get(a) == i and b not in found and b not in fixed:
                        found[b] = j
                        changed = True
        return found


def kernel_axes(function: Any, weights: frozenset[Any]) -> KernelAxes:
    """Read the channel dimensions of a kernel that takes `weights` as constants."""
    stages = read_stages(function)
    contraction = next((c for c in (recognise(stage, weights) for stage in stages) if c is not None), None)
    seeds: list[tuple[Any, int]] = []
    if contraction is not None:
        seeds = _seeds(contraction)
    return KernelAxes(stages, contraction, tuple(seeds), links_of(stages))


def links_of(stages: tuple[Stage, ...]) -> tuple[Link, ...]:
    """Pairs of dimensions that one loop walks in what a nest writes and in what it reads."""
    return tuple(
        ((stage.store.buffer, i), (load.buffer, j))
        for stage in stages
        for i, index in enumerate(stage.store.indices)
        if (axis := stage.axis_of(index)) is not None
        for load in stage.loads
        for j, read in enumerate(load.indices)
        if stage.axis_of(read) is axis
    )


def _seeds(contraction: Contraction) -> list[tuple[Any, int]]:
    stage = contraction.stage
    inner = contraction.channel if contraction.kind == "depthwise" else contraction.sums[-1]
    pairs = [(contraction.data, inner), (stage.store, contraction.channel)]
    if contraction.kind == "dense" and contraction.group < contraction.channel.extent:
        # The index of a grouped convolution's data names its channels by a sum that no single loop walks.
        pairs = pairs[1:]
        grouped = [
            (contraction.data.buffer, i)
            for i, index in enumerate(contraction.data.indices)
            if contraction.channel in stage.used_by((index,))
        ]
        return [*grouped, *_places(stage, pairs)]
    return _places(stage, pairs)


def _places(stage: Stage, pairs: list[tuple[Access, Any]]) -> list[tuple[Any, int]]:
    return [
        (access.buffer, i)
        for access, axis in pairs
        for i, index in enumerate(access.indices)
        if stage.axis_of(index) is axis
    ]


def moves(shape: tuple[int, ...], dimension: int) -> bool:
    """Whether putting `dimension` last changes the order of elements in memory."""
    return any(n > 1 for n in shape[dimension + 1 :])


def channels_last(rank: int, dimension: int) -> tuple[int, ...]:
    """Order of dimensions with `dimension` last."""
    return (*(i for i in range(rank) if i != dimension), dimension)
