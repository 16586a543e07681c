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

from typing import Literal

from netcut_fx.cut_names import CutNames
from netcut_fx.cuts import Cuts
from netcut_fx.errors import InvalidFrontier, SpecError
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.ignored_scope import Ignored, IgnoredScope

Granularity = Literal["block", "kernel", "node"]
GRANULARITIES: tuple[Granularity, ...] = ("block", "kernel", "node")


def frontiers(
    traced: TracedModule,
    *,
    granularity: Granularity = "block",
    max_width: int = 1,
    ignored: IgnoredScope | None = None,
) -> tuple[Frontier, ...]:
    """All valid frontiers of a network.

    Parameters
    ----------
    traced : TracedModule
    granularity : {"block", "kernel", "node"}
        Where cuts are allowed: at the ends of blocks, of fused kernels, or anywhere.
    max_width : int
        How many tensors may cross. Inside a dense block all earlier features do.
    ignored : IgnoredScope, optional
        Where not to cut.

    Returns
    -------
    tuple of Frontier
        From shallow to deep; empty if there is none. Each set of crossing tensors once.

    Raises
    ------
    SpecError
        For an unknown granularity or a width below 1.
    InvalidFrontier
        If there are too many wide cuts to list, or a part of `ignored` matches nothing.

    Notes
    -----
    Linear time for ``max_width=1`` and for blocks. Wider cuts take time in proportion to how many there are.
    """
    if granularity not in GRANULARITIES:
        raise SpecError(f"unknown granularity {granularity!r}; use one of {', '.join(GRANULARITIES)}")
    if max_width < 1:
        raise SpecError(f"max_width is {max_width}, but at least one tensor crosses a cut; use 1 or more")
    cuts = Cuts.of(traced)
    scope = Ignored.of(cuts, ignored)
    if granularity == "block":
        found = [cut for _, cut in cuts.valid_block_cuts.values() if len(cut.crossing) <= max_width]
    else:
        found = cuts.anywhere(max_width, kernel_ends_only=granularity == "kernel", ignored=scope.tensors)
    found = [cut for cut in found if scope.reason(cut) is None]
    found.sort(key=lambda cut: (cut.size, cut.crossing))
    return tuple(cuts.frontier(cut, granularity) for cut in found)


def require_frontiers(
    traced: TracedModule,
    *,
    granularity: Granularity = "block",
    max_width: int = 1,
    ignored: IgnoredScope | None = None,
) -> tuple[Frontier, ...]:
    """As `frontiers`, but an error if there is none.

    Raises
    ------
    InvalidFrontier
        If there is none; says what would yield some.
    """
    found = frontiers(traced, granularity=granularity, max_width=max_width, ignored=ignored)
    if found:
        return found
    kept_out = frontiers(traced, granularity=granularity, max_width=max_width) if ignored is not None else ()
    wider = sorted(len(crossing) for crossing in Cuts.of(traced).valid_block_cuts)
    if kept_out:
        one = len(kept_out) == 1
        advice = f"the only one, {kept_out[0].name}, is ignored" if one else f"all {len(kept_out)} of them are ignored"
        advice += "; ignore less"
    elif granularity != "node" and frontiers(traced, granularity="node", max_width=max_width, ignored=ignored):
        advice = "use --granularity node (granularity='node')"
    elif wider and wider[0] > max_width:
        advice = (
            f"at its block ends {wider[0]} or more tensors cross, use --max-width {wider[0]} (max_width={wider[0]})"
        )
    else:
        advice = "the network has no point where a trunk could end"
    raise InvalidFrontier(f"{traced.name} has no {granularity} frontier of width up to {max_width}; {advice}")


def deepest_frontier(traced: TracedModule) -> Frontier:
    """The last single tensor in front of what has parameters: cutting here replaces the classifier only.

    Raises
    ------
    InvalidFrontier
        If no single tensor can be cut at.
    """
    cuts = Cuts.of(traced)
    found = max(cuts.anywhere(1), key=lambda cut: cut.size, default=None)
    if found is None:
        raise InvalidFrontier(
            f"{traced.name} has no frontier where one tensor crosses; look at wider ones with max_width, "
            "or restructure its forward so that one tensor carries the features"
        )
    return cuts.frontier(found, "node")


def find_frontier(traced: TracedModule, name: str, *, ignored: IgnoredScope | None = None) -> Frontier:
    """The frontier called `name`, of any width.

    Parameters
    ----------
    traced : TracedModule
    name : str
        A `Frontier.name`, the qualified names of all crossing nodes joined by ``+``, or the path of a module whose end
        it is.
    ignored : IgnoredScope, optional
        Where not to cut.

    Raises
    ------
    InvalidFrontier
        If there is no such node or module (says what may have been meant), no valid cut there (says why), or it is
        ignored.
    """
    cuts = Cuts.of(traced)
    cut, problem = CutNames(cuts, Ignored.of(cuts, ignored)).look_up(name)
    if cut is None or problem is not None:
        raise InvalidFrontier(problem or f"no frontier {name!r} in {traced.name}")
    return cuts.frontier(cut, "node")


def explain(traced: TracedModule, name: str, *, ignored: IgnoredScope | None = None) -> str | None:
    """Why there is no frontier called `name`, as `find_frontier` would say; None if there is one."""
    cuts = Cuts.of(traced)
    return CutNames(cuts, Ignored.of(cuts, ignored)).look_up(name)[1]
