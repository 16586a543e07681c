"""Every valid place to cut a network.

A cut keeps a set of nodes that contains the inputs and, with each node, all its ancestors. Its frontier is the set of
kept nodes that some removed node uses. It is valid if

* each frontier value is one floating-point tensor whose first dimension is the batch;
* no later in-place operation changes a frontier value. After ``x.relu_()`` it is the result of ``relu_`` that crosses;
* something of the network is kept (a frontier of inputs alone is none) and at least one parameter is removed.

Values computed from parameters, constants or sizes alone never cross, and dead code does not count: see
`netcut_fx.cut_graph`. How cuts are found: `netcut_fx.cut_search`; where blocks end: `netcut_fx.blocks`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from netcut_fx.blocks import blocks
from netcut_fx.cut_costs import CutCosts
from netcut_fx.cut_graph import CutGraph, cut_graph
from netcut_fx.cut_search import Cut, all_cuts, closure
from netcut_fx.errors import InvalidFrontier, SpecError
from netcut_fx.frontier_validity import crossing_problem, cut_problem, name_of, uncounted_problem
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.module_calls import module_calls
from netcut_fx.tracing import module_path

Granularity = Literal["block", "kernel", "node"]
GRANULARITIES: tuple[Granularity, ...] = ("block", "kernel", "node")


def frontiers(traced: TracedModule, *, granularity: Granularity = "block", max_width: int = 1) -> tuple[Frontier, ...]:
    """All valid frontiers of a network.

    Parameters
    ----------
    traced : TracedModule
    granularity : {"block", "kernel", "node"}
        Where cuts are allowed: at the ends of blocks, of fused kernels, or anywhere.
    max_width : int
        How many tensors may cross. Inside a dense block all earlier features do.

    Returns
    -------
    tuple of Frontier
        From shallow to deep; empty if there is none. Each set of crossing tensors once.

    Raises
    ------
    SpecError
        For an unknown granularity or a width below 1.
    InvalidFrontier
        If there are too many wide cuts to list.

    Notes
    -----
    Linear time for ``max_width=1`` and for blocks. Wider cuts take time in proportion to how many there are.
    """
    if granularity not in GRANULARITIES:
        raise SpecError(f"unknown granularity {granularity!r}; use one of {', '.join(GRANULARITIES)}")
    if max_width < 1:
        raise SpecError(f"max_width is {max_width}, but at least one tensor crosses a cut; use 1 or more")
    cuts = _Cuts.of(traced)
    if granularity == "block":
        found = [cut for cut in cuts.block_names_by_cut if len(cut.crossing) <= max_width]
    else:
        found = cuts.anywhere(max_width, kernel_ends_only=granularity == "kernel")
    return tuple(cuts.frontier(cut) for cut in sorted(found, key=lambda cut: (cut.size, cut.crossing)))


def require_frontiers(
    traced: TracedModule, *, granularity: Granularity = "block", max_width: int = 1
) -> tuple[Frontier, ...]:
    """As `frontiers`, but an error if there is none.

    Raises
    ------
    InvalidFrontier
        If there is none; says what would yield some.
    """
    found = frontiers(traced, granularity=granularity, max_width=max_width)
    if found:
        return found
    advice = "the network has no point where a trunk could end"
    wider = sorted(len(cut.crossing) for cut in _Cuts.of(traced).block_names_by_cut)
    if granularity != "node" and frontiers(traced, granularity="node", max_width=max_width):
        advice = "use --granularity node (granularity='node')"
    elif wider and wider[0] > max_width:
        advice = (
            f"at its block ends {wider[0]} or more tensors cross, use --max-width {wider[0]} (max_width={wider[0]})"
        )
    raise InvalidFrontier(f"{traced.name} has no {granularity} frontier of width up to {max_width}; {advice}")


def deepest_frontier(traced: TracedModule) -> Frontier:
    """The last single tensor in front of what has parameters: cutting here replaces the classifier only.

    Raises
    ------
    InvalidFrontier
        If no single tensor can be cut at.
    """
    cuts = _Cuts.of(traced)
    found = max(cuts.anywhere(1), key=lambda cut: cut.size, default=None)
    if found is None:
        raise InvalidFrontier(
            f"{traced.name} has no frontier where one tensor crosses; look at wider ones with max_width, "
            "or restructure its forward so that one tensor carries the features"
        )
    return cuts.frontier(found)


def find_frontier(traced: TracedModule, name: str) -> Frontier:
    """The frontier called `name`, of any width.

    Parameters
    ----------
    traced : TracedModule
    name : str
        A `Frontier.name`, the qualified names of all crossing nodes joined by ``+``, or the path of a module whose end
        it is.

    Raises
    ------
    InvalidFrontier
        If there is no such node or module (says what may have been meant), or no valid cut there (says why).
    """
    cuts = _Cuts.of(traced)
    cut, problem = cuts.look_up(name)
    if cut is None or problem is not None:
        raise InvalidFrontier(problem or f"no frontier {name!r} in {traced.name}")
    return cuts.frontier(cut)


def explain(traced: TracedModule, name: str) -> str | None:
    """Why there is no frontier called `name`, as `find_frontier` would say; None if there is one."""
    return _Cuts.of(traced).look_up(name)[1]


@dataclass(frozen=True)
class _Cuts:
    """The cuts of one network, and their names."""

    graph: CutGraph

    @classmethod
    def of(cls, traced: TracedModule) -> _Cuts:
        """Kept with the network, which does not change."""
        kept: dict[str, object] = traced.__dict__
        found = kept.get("_cuts")
        if not isinstance(found, cls):
            kept["_cuts"] = found = cls(cut_graph(traced))
        return found

    @property
    def traced(self) -> TracedModule:
        return self.graph.traced

    @cached_property
    def costs(self) -> CutCosts:
        return CutCosts(self.graph)

    @cached_property
    def may_cross(self) -> list[bool]:
        return [crossing_problem(self.graph, p) is None for p in range(len(self.graph.order))]

    @cached_property
    def block_cuts(self) -> dict[str, Cut]:
        """Valid or not, by name."""
        return {block.name: closure(self.graph, block.ends) for block in blocks(self.graph)}

    @cached_property
    def block_names_by_cut(self) -> dict[Cut, str]:
        """The valid ones; of several blocks that end with the same tensors the first gives the name."""
        named: dict[tuple[int, ...], tuple[Cut, str]] = {}
        for name, cut in self.block_cuts.items():
            if cut_problem(self.graph, self.costs, cut) is None:
                named.setdefault(cut.crossing, (cut, name))
        return dict(named.values())

    @cached_property
    def block_names(self) -> dict[tuple[int, ...], str]:
        return {cut.crossing: name for cut, name in self.block_names_by_cut.items()}

    @cached_property
    def kernel_ends(self) -> frozenset[str]:
        from netcut_fx.kernels import kernel_ends

        return kernel_ends(self.traced)

    def anywhere(self, max_width: int, *, kernel_ends_only: bool = False) -> list[Cut]:
        allowed = self.may_cross
        if kernel_ends_only:
            # An input is in memory as the end of a kernel is.
            ends = [i < self.graph.inputs or n.name in self.kernel_ends for i, n in enumerate(self.graph.order)]
            allowed = [one and other for one, other in zip(allowed, ends, strict=True)]
        found = all_cuts(self.graph, max_width, allowed)
        return [cut for cut in found if cut_problem(self.graph, self.costs, cut) is None]

    def frontier(self, cut: Cut) -> Frontier:
        nodes = [self.graph.order[p] for p in cut.crossing]
        name, granularity = self.block_names.get(cut.crossing), "block"
        if name is None:
            name = "+".join(map(name_of, nodes))
            at_kernels = all(n.op == "placeholder" or n.name in self.kernel_ends for n in nodes)
            granularity = "kernel" if at_kernels else "node"
        kept = self.costs.kept_params(cut)
        return Frontier(
            name=name,
            nodes=tuple(n.name for n in nodes),
            specs=tuple(n.meta["spec"] for n in nodes),
            granularity=granularity,
            kept_params=kept,
            removed_params=self.costs.total_params - kept,
            kept_flops=self.costs.kept_flops(cut),
        )

    def look_up(self, name: str) -> tuple[Cut | None, str | None]:
        """The cut that `name` means, or what is wrong with it in one line."""
        block = self.block_cuts.get(name)
        if block is not None and (block in self.block_names_by_cut or name not in self.traced.by_qualname):
            return self._checked(name, block, cut_problem(self.graph, self.costs, block))
        nodes = [self.traced.by_qualname.get(part) for part in name.split("+")]
        if all(nodes):
            found = [node for node in nodes if node is not None]
            left_out = next((n for n in found if n.name not in self.graph.position), None)
            if left_out is not None:
                return self._checked(name, None, uncounted_problem(self.graph, left_out))
            return self._at_positions(name, sorted({self.graph.position[n.name] for n in found}))
        for call in module_calls(self.graph).root.walk():
            if call.path and call.path == name:
                inside = range(call.first, call.last + 1)
                ends = [p for p in inside if any(user > call.last for user in self.graph.users[p])]
                cut = closure(self.graph, ends or [call.last])
                return self._checked(name, cut, cut_problem(self.graph, self.costs, cut))
        if any(f"{qualname}.".startswith(f"{name}.") for qualname in self.traced.by_qualname):
            return self._checked(name, None, "nothing in it comes from an input and reaches the output")
        return None, self._unknown(name)

    def _at_positions(self, name: str, positions: Sequence[int]) -> tuple[Cut | None, str | None]:
        for position in positions:
            problem = crossing_problem(self.graph, position)
            if problem is not None:
                whose = "" if len(positions) == 1 else f"{name_of(self.graph.order[position])}: "
                return self._checked(name, None, whose + problem)
        cut = closure(self.graph, positions)
        others = [name_of(self.graph.order[p]) for p in cut.crossing if p not in positions]
        unused = [name_of(self.graph.order[p]) for p in positions if p not in cut.crossing]
        if others:
            plural = len(others) > 1
            problem = (
                f"other tensor{'s' if plural else ''} {', '.join(others)} also cross{'' if plural else 'es'}: "
                f"width {len(cut.crossing)}"
            )
            if cut_problem(self.graph, self.costs, cut) is None:
                full = self.block_names.get(cut.crossing, "+".join(name_of(self.graph.order[p]) for p in cut.crossing))
                return None, f"cannot cut {self.traced.name} at {name}: {problem}; to cut there say {full!r}"
            return self._checked(name, None, problem)
        if unused and len(unused) < len(positions):
            return self._checked(name, None, f"{', '.join(unused)} does not cross: all its users are kept")
        return self._checked(name, cut, cut_problem(self.graph, self.costs, cut))

    def _checked(self, name: str, cut: Cut | None, problem: str | None) -> tuple[Cut | None, str | None]:
        if problem is None:
            return cut, None
        return None, f"cannot cut {self.traced.name} at {name}: {problem}; {self._nearest(name)}"

    def _nearest(self, name: str) -> str:
        """The valid single-tensor cuts next to a node or module."""
        order = {node: i for i, node in enumerate(self.traced.nodes)}
        parts = [n for part in name.split("+") if (n := self.traced.by_qualname.get(part)) is not None]
        parts = parts or [n for n in self.traced.nodes if f"{module_path(n)}.".startswith(f"{name}.")]
        place = max((order[n] for n in parts), default=0)
        singles = [self.graph.order[cut.crossing[0]] for cut in self.anywhere(1)]
        before = [n for n in singles if order[n] < place]
        behind = [n for n in singles if order[n] > place]
        names = [repr(name_of(n)) for n in (*before[-1:], *behind[:1])]
        return (
            f"the nearest single tensor to cut at is {' or '.join(names)}"
            if names
            else "no single tensor can be cut at"
        )

    def _unknown(self, name: str) -> str:
        paths = (call.path for call in module_calls(self.graph).root.walk() if call.path)
        known = list(dict.fromkeys([*self.block_cuts, *self.traced.by_qualname, *paths]))
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?"
            if close
            else "list the names with netcut frontiers, or frontiers(traced)"
        )
        return f"no node or module {name!r} in {self.traced.name}; {hint}"
