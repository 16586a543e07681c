"""Which nodes matter for a result, what operations write into their input included."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import fx

from netcut_fx.effects import observe
from netcut_fx.graph import TracedModule


def written_memory(traced: TracedModule) -> dict[int, list[fx.Node]]:
    """The nodes that write into each memory that exists before them, in execution order.

    Memories are numbered as in ``observe(traced).storages``; those that nobody writes into are absent.
    """
    written = observe(traced).written
    writers: dict[int, list[fx.Node]] = {}
    for node in traced.nodes:
        for memory in written.get(node.name, ()):
            writers.setdefault(memory, []).append(node)
    return writers


def needed_nodes(traced: TracedModule, results: Iterable[fx.Node] | None = None) -> set[fx.Node]:
    """Nodes that influence `results` (default: what the network returns), writes into shared memory included.

    A write counts only if a needed node reads that memory afterwards, so an in-place operation behind a cut is not
    needed by it. Inputs are always needed; assertions, which yield nothing, never are.
    """
    effects = observe(traced)
    wanted = {traced.output} if results is None else set(results)
    needed: set[fx.Node] = set()
    read_later: set[int] = set()
    for node in reversed(traced.nodes):
        writes = not read_later.isdisjoint(effects.written.get(node.name, ()))
        if node in wanted or node in needed or node.op == "placeholder" or writes:
            needed.add(node)
            needed.update(node.all_input_nodes)
            for source in node.all_input_nodes:
                read_later.update(effects.storages[source.name])
    return needed


def writers_after(traced: TracedModule, nodes: Collection[fx.Node], kept: Collection[fx.Node]) -> list[fx.Node]:
    """Those of `kept` that would overwrite the result of one of `nodes` after it was made."""
    effects = observe(traced)
    found: list[fx.Node] = []
    made: set[int] = set()
    for node in traced.nodes:
        if node in kept and node not in nodes and not made.isdisjoint(effects.written.get(node.name, ())):
            found.append(node)
        if node in nodes:
            made.update(effects.storages[node.name])
    return found
