"""Why a tensor may not cross a cut, and why a cut is none."""

from __future__ import annotations

from torch import fx

from netcut_fx.cut_costs import CutCosts
from netcut_fx.cut_graph import CutGraph
from netcut_fx.cut_search import Cut
from netcut_fx.graph import Spec, TensorSpec


def crossing_problem(graph: CutGraph, position: int) -> str | None:
    """Why the value at `position` of `graph` can cross no cut; None if it can."""
    node = graph.order[position]
    spec: Spec = node.meta["spec"]
    if isinstance(spec, tuple):
        return f"it yields {len(spec)} values, not one tensor"
    if spec is None:
        return "its value is no tensor"
    if not spec.dtype.is_floating_point:
        return f"integer tensor {spec}" if not spec.dtype.is_complex else f"complex tensor {spec}"
    if node.name not in graph.effects.keeps_batch:
        return f"batch dimension lost: the first dimension of {spec} is not the batch"
    writer = graph.later_writer(node)
    if writer is not None:
        return f"changed in place later by {name_of(writer)}"
    return None


def cut_problem(graph: CutGraph, costs: CutCosts, cut: Cut) -> str | None:
    """Why `cut` as a whole is not valid; None if it is."""
    for position in cut.crossing:
        problem = crossing_problem(graph, position)
        if problem is not None:
            return problem if len(cut.crossing) == 1 else f"{name_of(graph.order[position])} crosses too: {problem}"
    if not cut.crossing:
        return "nothing crosses: the output does not depend on it"
    if cut.crossing[-1] < graph.inputs:
        return "it is an input: nothing of the network would be kept"
    if costs.kept_params(cut) >= costs.live_params:
        return "no parameter removed: nothing with parameters lies behind it"
    return None


def uncounted_problem(graph: CutGraph, node: fx.Node) -> str:
    """Why a node that the cut graph leaves out cannot be a cut."""
    if node.op == "output":
        return "it is the output: nothing would be removed"
    if node.op == "get_attr":
        return "it is a parameter, not computed from the input"
    spec: Spec = node.meta["spec"]
    if spec is None:
        return "its value is no tensor"
    if isinstance(spec, TensorSpec) and not spec.dtype.is_floating_point:
        return f"integer tensor {spec}"
    return "its value does not come from an input or does not reach the output"


def name_of(node: fx.Node) -> str:
    """Qualified name."""
    return str(node.meta["qualname"])
