"""Pass ``simplify``: what does nothing outside training goes, sizes become constants, paddings join convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from netcut_fx.errors import PassError
from netcut_fx.graph import TracedModule
from netcut_fx.mode_merging import settle_in_eval
from netcut_fx.passes.base import Pass
from netcut_fx.passes.copying import copy_traced
from netcut_fx.passes.dead_code import drop_unused_weights
from netcut_fx.passes.no_ops import droppable_contiguous, is_no_op, removable
from netcut_fx.passes.observing import Observation, observe, spec_with_one_more
from netcut_fx.passes.padding import merge_padding
from netcut_fx.passes.rewriting import absorb_following, substitute_constant
from netcut_fx.tracing import retrace

#: Attributes and methods whose answer depends on where the weights are, not on the network.
_PLACE = {
    "device",
    "is_cuda",
    "is_cpu",
    "is_meta",
    "is_mkldnn",
    "requires_grad",
    "get_device",
    "is_contiguous",
    "stride",
}


@dataclass(frozen=True)
class Simplify(Pass):
    """Rewrite to what a compiler needs to see, with the same results at every batch size.

    * what differs between training and evaluation is settled as in evaluation;
    * numbers that follow from shapes alone become constants; the batch dimension stays free
      (``x.view(x.size(0), -1)`` becomes ``flatten(x, 1)``);
    * identity, dropout and its kin, casts to the same type, reshapes to the same shape, detach, clones that protect
      nothing and ``contiguous`` without effect go;
    * zero padding, the same on both sides, joins the convolution behind it.
    """

    name: ClassVar[str] = "simplify"

    def call(self, traced: TracedModule) -> TracedModule:
        """Constants first: they decide what is a no-op."""
        work = copy_traced(traced)
        settle_in_eval(work.graph_module)
        graph_module, observed = work.graph_module, observe(work)
        if observed is not None:
            _rewrite_reshapes(graph_module, observed)
            _fold_constants(graph_module, observed)
        _drop_no_ops(work, observed)
        merge_padding(TracedModule(graph_module, traced.name))
        drop_unused_weights(graph_module)
        return retrace(graph_module, traced.name, traced.input_specs)

    def ensures(self, before: TracedModule, after: TracedModule) -> None:
        """The same is returned, also for another batch size."""
        pairs = (
            (before.output.meta["spec"], after.output.meta["spec"]),
            (spec_with_one_more(before), spec_with_one_more(after)),
        )
        for expected, found in pairs:
            if expected is not None and found != expected:
                raise PassError(f"simplify changed what {after.name} returns from {expected} to {found}")


def _fold_constants(graph_module: fx.GraphModule, observed: Observation) -> None:
    for node in tuple(graph_module.graph.nodes):
        if node.op not in ("call_function", "call_method") or _asks_for_place(node):
            continue
        values = [seen.constant for seen in observed.runs(node.name)]
        if values[0] is not None and all(type(value) is type(values[0]) and value == values[0] for value in values):
            substitute_constant(node, values[0])
    # Sizes that only served a size or a reshape.
    for node in reversed(tuple(graph_module.graph.nodes)):
        dead = node.op in ("call_function", "call_method") and not node.users
        if dead and observed.given[node.name].constant is not None:
            graph_module.graph.erase_node(node)


def _rewrite_reshapes(graph_module: fx.GraphModule, observed: Observation) -> None:
    for node in graph_module.graph.nodes:
        is_method = node.op == "call_method" and node.target in ("view", "reshape")
        if not (is_method or node.target is torch.reshape) or not isinstance(node.args[0], fx.Node) or node.kwargs:
            continue
        source: fx.Node = node.args[0]
        before, after = observed.shapes(source.name), observed.shapes(node.name)
        if before is None or after is None:
            continue
        if _flattens(before, after) and len({shape[0] for shape in after}) == len(after) == 2:
            node.op, node.target, node.args = "call_function", torch.flatten, (source, 1)
        elif len(node.all_input_nodes) > 1:
            free = [i for i, sizes in enumerate(zip(*after, strict=True)) if len(set(sizes)) > 1]
            if len(free) <= 1:
                sizes = tuple(-1 if i in free else size for i, size in enumerate(after[0]))
                node.args = (source, *sizes) if is_method else (source, sizes)


def _flattens(before: tuple[tuple[int, ...], ...], after: tuple[tuple[int, ...], ...]) -> bool:
    """Whether all dimensions but the first become one, in every run."""
    return all(
        len(a) == 2 and len(b) >= 2 and a == (b[0], math.prod(b[1:])) for a, b in zip(after, before, strict=True)
    )


def _drop_no_ops(work: TracedModule, observed: Observation | None) -> None:
    graph_module, nodes = work.graph_module, work.nodes
    candidates = [n for n in nodes if is_no_op(graph_module, n, observed) or droppable_contiguous(n, observed)]
    for node in removable(work, candidates):
        source: Any = node.args[0]
        if node.target == "contiguous":
            for user in node.users:
                if user.op == "call_method" and user.target == "view":
                    user.target = "reshape"
        absorb_following(source, node)


def _asks_for_place(node: fx.Node) -> bool:
    if node.op == "call_method":
        return str(node.target) in _PLACE
    return getattr(node.target, "__name__", "") == "getattr" and len(node.args) > 1 and node.args[1] in _PLACE
