"""The cuts of one network, which of them are valid, and their names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from netcut_fx.blocks import blocks
from netcut_fx.cut_costs import CutCosts
from netcut_fx.cut_graph import CutGraph, cut_graph
from netcut_fx.cut_search import Cut, all_cuts, closure
from netcut_fx.frontier_validity import crossing_problem, cut_problem, name_of
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.pooling import pool_of


@dataclass(frozen=True)
class Cuts:
    """The cuts of the network behind `graph`."""

    graph: CutGraph

    @classmethod
    def of(cls, traced: TracedModule) -> Cuts:
        """Kept with the network, which does not change."""
        kept: dict[str, object] = traced.__dict__
        found = kept.get("_cuts")
        if not isinstance(found, cls):
            kept["_cuts"] = found = cls(cut_graph(traced))
        return found

    @property
    def traced(self) -> TracedModule:
        """The network."""
        return self.graph.traced

    @cached_property
    def costs(self) -> CutCosts:
        """What trunks hold and cost."""
        return CutCosts(self.graph)

    @cached_property
    def may_cross(self) -> list[bool]:
        """For each position, whether its value can cross a cut at all."""
        return [crossing_problem(self.graph, p) is None for p in range(len(self.graph.order))]

    @cached_property
    def block_cuts(self) -> dict[str, Cut]:
        """Cuts at the ends of blocks by name, valid or not."""
        return {block.name: closure(self.graph, block.ends) for block in blocks(self.graph)}

    @cached_property
    def valid_block_cuts(self) -> dict[tuple[int, ...], tuple[str, Cut]]:
        """By what crosses; of several blocks that end with the same tensors the first gives the name."""
        named: dict[tuple[int, ...], tuple[str, Cut]] = {}
        for name, cut in self.block_cuts.items():
            if self.problem(cut) is None:
                named.setdefault(cut.crossing, (name, cut))
        return named

    @cached_property
    def kernel_ends(self) -> frozenset[str]:
        """Names of the fx nodes where fused kernels end; takes as long as preparing the network for the compiler."""
        from netcut_fx.kernels import kernel_ends

        return kernel_ends(self.traced)

    def problem(self, cut: Cut) -> str | None:
        """Why `cut` is not valid; None if it is."""
        return cut_problem(self.graph, self.costs, cut)

    def anywhere(self, max_width: int, *, kernel_ends_only: bool = False, ignored: Collection[int] = ()) -> list[Cut]:
        """All valid cuts up to a width where none of the positions `ignored` crosses."""
        allowed = self.may_cross
        if kernel_ends_only:
            # An input is in memory as the end of a kernel is.
            ends = [i < self.graph.inputs or n.name in self.kernel_ends for i, n in enumerate(self.graph.order)]
            allowed = [one and other for one, other in zip(allowed, ends, strict=True)]
        if ignored:
            allowed = [one and p not in ignored for p, one in enumerate(allowed)]
        return [cut for cut in all_cuts(self.graph, max_width, allowed) if self.problem(cut) is None]

    def name(self, cut: Cut) -> str:
        """The name of its block, else the names of its crossing nodes."""
        block = self.valid_block_cuts.get(cut.crossing)
        return block[0] if block else "+".join(name_of(self.graph.order[p]) for p in cut.crossing)

    def frontier(self, cut: Cut, granularity: str) -> Frontier:
        """Describe `cut`, found at `granularity`."""
        nodes = [self.graph.order[p] for p in cut.crossing]
        kept = self.costs.kept_params(cut)
        return Frontier(
            name=self.name(cut),
            nodes=tuple(n.name for n in nodes),
            specs=tuple(n.meta["spec"] for n in nodes),
            granularity="block" if cut.crossing in self.valid_block_cuts else granularity,
            kept_params=kept,
            removed_params=self.costs.total_params - kept,
            kept_flops=self.costs.kept_flops(cut),
            pools=tuple(pool_of(self.traced, n) for n in nodes),
        )
