"""What a reader wants to know of each frontier: where it lies, what crosses, what the trunk holds, does and takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
from torch import fx

from cost_models import LatencyEstimate
from netcut_fx.errors import NetcutError
from netcut_fx.graph import Frontier, TensorSpec, TracedModule
from netcut_fx.latency import LatencyModel, kernels_of_cuts
from netcut_fx.module_calls import modules_around
from netcut_fx.node_names import module_path
from netcut_fx.ops import node_flops, primitives
from netcut_fx.passes.copying import weightless
from netcut_fx.passes.head import HeadPass


@dataclass(frozen=True)
class CrossingTensor:
    """One tensor that crosses a cut: its qualified name, its spec, and how a head pools it."""

    name: str
    spec: TensorSpec
    pool: str


@dataclass(frozen=True)
class FrontierFacts:
    """One frontier.

    Parameters
    ----------
    frontier : Frontier
    module : str
        Path of the module whose end it is; ``""`` for the network itself.
    module_class : str
        Its class; ``""`` where tracing recorded none.
    tensors : tuple of CrossingTensor
        In execution order.
    params_share, flops_share : float or None
        Kept part of the whole network's; None where the whole has none.
    flops_known : bool
        False if the trunk contains an operation whose cost is not known: `Frontier.kept_flops` is then a lower bound.
    latency : LatencyEstimate or None
        Of the cut with a new head; None without a cost model.
    """

    frontier: Frontier
    module: str
    module_class: str
    tensors: tuple[CrossingTensor, ...]
    params_share: float | None
    flops_share: float | None
    flops_known: bool
    latency: LatencyEstimate | None


def facts_of(
    traced: TracedModule, found: Sequence[Frontier], latencies: Mapping[str, LatencyEstimate] | None = None
) -> tuple[FrontierFacts, ...]:
    """The facts of each frontier in `found`; `latencies` by frontier name, if a cost model is at hand."""
    total = total_flops(traced)
    opaque = {node.name for node in traced.nodes if is_opaque(traced, node)}
    facts: list[FrontierFacts] = []
    for frontier in found:
        nodes = [traced.by_name[name] for name in frontier.nodes]
        path, kind = _ended_module(traced, frontier.name, nodes[-1])
        params = frontier.kept_params + frontier.removed_params
        facts.append(
            FrontierFacts(
                frontier=frontier,
                module=path,
                module_class=kind,
                tensors=tuple(
                    CrossingTensor(str(node.meta["qualname"]), spec, pool)
                    for node, spec, pool in zip(nodes, frontier.specs, frontier.pools, strict=True)
                ),
                params_share=frontier.kept_params / params if params else None,
                flops_share=frontier.kept_flops / total if total else None,
                flops_known=not opaque or opaque.isdisjoint(_trunk(traced, frontier)),
                latency=None if latencies is None else latencies.get(frontier.name),
            )
        )
    return tuple(facts)


def total_flops(traced: TracedModule) -> int:
    """Floating-point operations of the whole network."""
    return sum(node_flops(traced, node) for node in traced.nodes)


def latencies_of(
    traced: TracedModule, found: Sequence[Frontier], head: HeadPass, model: LatencyModel
) -> dict[str, LatencyEstimate]:
    """Latency of each cut with `head` on it; unknown, with the reason, where no head can be put on a cut."""
    bare = weightless(traced)
    estimates: dict[str, LatencyEstimate] = {}
    for frontier in found:
        try:
            estimates[frontier.name] = model.price(kernels_of_cuts(bare, [frontier], head)[frontier.name])
        except NetcutError as error:
            estimates[frontier.name] = LatencyEstimate.unknown(str(error))
    return estimates


def is_opaque(traced: TracedModule, node: fx.Node) -> bool:
    """Whether what `node` costs is not known: its operations are then counted as the least they can be."""
    return any(primitive.kind.startswith("opaque:") for primitive in primitives(traced, node))


def _trunk(traced: TracedModule, frontier: Frontier) -> set[str]:
    kept = set(frontier.nodes)
    for name in frontier.nodes:
        kept |= nx.ancestors(traced.digraph, name)
    return kept


def _ended_module(traced: TracedModule, name: str, node: fx.Node) -> tuple[str, str]:
    """Path and class of the module that the frontier is named after, else of the innermost one that made `node`."""
    entries = {path: kind.rsplit(".", 1)[-1] for _, path, kind in modules_around(node)}
    if node.op == "call_module":
        target = str(node.target)
        entries[target] = type(traced.graph_module.get_submodule(target)).__name__
        return (name, entries[name]) if name in entries else (target, entries[target])
    path = name if name in entries else module_path(node)
    return path, entries.get(path, "")
