"""The verb ``cut``: the passes ``cut`` and ``head``, with everything they check before and after."""

from __future__ import annotations

from dataclasses import replace

from netcut_fx.errors import InvalidFrontier
from netcut_fx.frontier import find_frontier
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.passes.base import Pipeline
from netcut_fx.passes.cut import CutPass
from netcut_fx.passes.head import HeadPass


def cut(traced: TracedModule, frontier: Frontier | str, *, head: HeadPass | None = None) -> TracedModule:
    """The network up to `frontier`, with its own copy of the weights, and `head` on it.

    Parameters
    ----------
    traced : TracedModule
        Stays as it is.
    frontier : Frontier or str
        Where to cut, or its name.
    head : HeadPass, optional
        Without one the crossing tensor (or a tuple of them) is the output.

    Raises
    ------
    InvalidFrontier
        If no cut is possible there, or the frontier is another network's; says why.
    """
    found = find_frontier(traced, frontier if isinstance(frontier, str) else frontier.name)
    if isinstance(frontier, Frontier) and found.nodes != frontier.nodes:
        raise InvalidFrontier(
            f"frontier {frontier.name} ({', '.join(frontier.nodes)}) is not one of {traced.name}; take it from "
            "frontiers() of the same traced network"
        )
    passes = (CutPass(found.name),) if head is None else (CutPass(found.name), head)
    return replace(Pipeline(passes)(traced), name=f"{traced.name}@{found.name}")
