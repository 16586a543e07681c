"""Pass ``cut``: end the network at a frontier; what comes behind goes, weights included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from netcut_fx.errors import InvalidFrontier, PassError
from netcut_fx.frontier import find_frontier
from netcut_fx.graph import TracedModule
from netcut_fx.passes.base import Pass
from netcut_fx.passes.copying import copy_traced
from netcut_fx.passes.inplace import needed_nodes, writers_after
from netcut_fx.pooling import pool_of
from netcut_fx.tracing import retrace


@dataclass(frozen=True)
class CutPass(Pass):
    """Return the tensors that cross a frontier.

    Parameters
    ----------
    at : str
        `Frontier.name`. One crossing tensor becomes the output; several become a tuple, in execution order.
    """

    at: str
    name: ClassVar[str] = "cut"

    def requires(self, traced: TracedModule) -> None:
        """The frontier exists."""
        _crossing(traced, self.at)

    def call(self, traced: TracedModule) -> TracedModule:
        """Copy the kept part only."""
        return cut_nodes(traced, _crossing(traced, self.at))

    def ensures(self, before: TracedModule, after: TracedModule) -> None:
        """What is returned has the form it had inside the whole network."""
        specs = [before.by_name[name].meta["spec"] for name in _crossing(before, self.at)]
        expected = specs[0] if len(specs) == 1 else tuple(specs)
        if after.output.meta["spec"] != expected:
            raise PassError(f"cut at {self.at} returns {after.output.meta['spec']} where {expected} crosses")


def cut_nodes(traced: TracedModule, names: Sequence[str]) -> TracedModule:
    """End `traced` at the nodes with fx names `names` (as in `Frontier.nodes`), unchecked beyond memory safety.

    How `traced` would pool what it returns now is in ``node.meta["pool"]`` of these nodes: without its tail the result
    can no longer tell.

    Parameters
    ----------
    traced : TracedModule
        Stays as it is; the result has its own copy of the weights that are left.
    names : sequence of str
        Nodes to return.

    Raises
    ------
    InvalidFrontier
        If a kept in-place operation would overwrite a returned tensor.
    """
    wanted = set(names)
    ends = [node for node in traced.nodes if node.name in wanted]
    kept = needed_nodes(traced, ends)
    overwriting = writers_after(traced, ends, kept)
    if overwriting:
        raise InvalidFrontier(
            f"cannot cut {traced.name} at {_joined(ends)}: the in-place {overwriting[0].meta['qualname']} overwrites "
            "one tensor before the others exist; cut behind that operation"
        )
    removed = {node.name for node in traced.nodes if node not in kept}
    work = copy_traced(traced, without=removed, result=ends[0] if len(ends) == 1 else tuple(ends))
    for end in ends:
        work.by_name[end.name].meta["pool"] = pool_of(traced, end)
    return retrace(work.graph_module, traced.name, traced.input_specs)


def _joined(nodes: Sequence[fx.Node]) -> str:
    return "+".join(str(node.meta["qualname"]) for node in nodes)


def _crossing(traced: TracedModule, at: str) -> tuple[str, ...]:
    return find_frontier(traced, at).nodes
