"""What the trunk of a cut holds and costs: parameters and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from torch import fx

from netcut_fx.cut_graph import CutGraph, parameters_of
from netcut_fx.cut_search import Cut
from netcut_fx.flops import flops_by_position


@dataclass
class CutCosts:
    """Parameters and operations of the trunks of one network.

    A parameter that several nodes share counts once, and is kept if any kept node uses it.
    """

    graph: CutGraph
    _first_position: dict[int, int] = field(default_factory=dict[int, int])  # id of a parameter -> its first user
    _first_needed: dict[fx.Node, int] = field(default_factory=dict[fx.Node, int])

    @cached_property
    def total_params(self) -> int:
        """All parameters of the network, dead ones included."""
        return sum(p.numel() for p in self.graph.traced.graph_module.parameters())

    @cached_property
    def live_params(self) -> int:
        """Parameters that the output depends on."""
        return self._prefix_params[-1] if self._prefix_params else 0

    def kept_params(self, cut: Cut) -> int:
        """Parameters of the trunk."""
        sums = self._prefix_params
        return (sums[cut.base] if cut.base >= 0 else 0) + sum(
            size for p, size in self._more_params(cut).items() if self._first_position[p] > cut.base
        )

    def kept_flops(self, cut: Cut) -> int:
        """Floating-point operations of the trunk; a multiply-add counts as two."""
        sums = self._prefix_flops
        return (sums[cut.base] if cut.base >= 0 else 0) + sum(self._flops[p] for p in cut.more)

    def _more_nodes(self, cut: Cut) -> list[fx.Node]:
        """Nodes kept beyond the base of a cut."""
        self._added  # noqa: B018  # numbers the nodes that do not count
        found: list[fx.Node] = []
        seen: set[fx.Node] = set()
        for position in cut.more:
            found.append(self.graph.order[position])
            found += [n for n in self.graph.uncounted(position, seen) if self._first_needed[n] > cut.base]
        return found

    def _more_params(self, cut: Cut) -> dict[int, int]:
        return {id(p): p.numel() for n in self._more_nodes(cut) for p in parameters_of(self.graph.traced, n)}

    @cached_property
    def _flops(self) -> list[int]:
        return flops_by_position(self.graph)

    @cached_property
    def _added(self) -> tuple[tuple[fx.Node, ...], ...]:
        """For each position, the nodes that a trunk gains with it."""
        seen: set[fx.Node] = set()
        found: list[tuple[fx.Node, ...]] = []
        for position, node in enumerate(self.graph.order):
            needed = self.graph.uncounted(position, seen)
            self._first_needed.update(dict.fromkeys(needed, position))
            found.append((node, *needed))
        return tuple(found)

    @cached_property
    def _prefix_params(self) -> tuple[int, ...]:
        sizes: list[int] = []
        for position, nodes in enumerate(self._added):
            fresh = {id(p): p.numel() for n in nodes for p in parameters_of(self.graph.traced, n)}
            fresh = {p: size for p, size in fresh.items() if p not in self._first_position}
            self._first_position.update(dict.fromkeys(fresh, position))
            sizes.append(sum(fresh.values()))
        return tuple(accumulate(sizes))

    @cached_property
    def _prefix_flops(self) -> tuple[int, ...]:
        return tuple(accumulate(self._flops))
