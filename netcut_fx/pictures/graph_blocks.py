"""Collapse a graph of up to thousands of nodes into a few dozen blocks that can be drawn one below the other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from netcut_fx.result_candidates import chosen_of
from netcut_fx.result_values import Record, format_shape, items, mapping, number, records, text

#: No more boxes than this: about two screens.
MAX_BLOCKS = 36
_TERMINALS = ("placeholder", "output", "input")


@dataclass(frozen=True)
class Block:
    """A run of nodes, in execution order, that is drawn as one box.

    Parameters
    ----------
    label : str
        Module path, or names of the first and last node.
    nodes : tuple of int
        Indices into the result's node list.
    operations : str
        What is in it: ``conv2d ×3, add``.
    shape : str
        Of its last node.
    flops : float or None
        Sum over its nodes; None as soon as one is not known.
    kept : bool
        False if the cut removed it.
    frontiers : tuple of str
        Names of the frontiers that end in it.
    residual : bool
        Whether its input is added to its output inside.
    branches : int
        Widest concatenation inside; 1 for none.
    terminal : bool
        Whether it is only inputs or the output.
    """

    label: str
    nodes: tuple[int, ...]
    operations: str
    shape: str
    flops: float | None
    kept: bool
    frontiers: tuple[str, ...]
    residual: bool = False
    branches: int = 1
    terminal: bool = False


@dataclass(frozen=True)
class _Node:
    index: int
    name: str
    op: str
    kept: bool
    parts: tuple[str, ...]
    frontier: bool


@dataclass(frozen=True)
class _Run:
    """Neighbouring nodes; `path` is the module path that all of them lie below, None where they have none in common."""

    nodes: tuple[_Node, ...]
    path: str | None


def blocks_of(result: Record) -> tuple[tuple[Block, ...], frozenset[tuple[int, int]]]:
    """Blocks from top to bottom, and the (from, to) pairs of blocks that data flows between.

    Kept blocks come first: what is kept contains its ancestors, so the order stays topological. A block is a run of
    nodes below one module path, cut off at the depth that yields the most blocks up to about `MAX_BLOCKS`.
    """
    graph = mapping(result, "graph")
    raw = records(graph, "nodes")
    chosen = chosen_of(result) is not None
    nodes = sorted(
        (_node(index, record, kept=not chosen or bool(record.get("kept"))) for index, record in enumerate(raw)),
        key=lambda node: (not node.kept, node.index),
    )
    edges = _edges(items(graph, "edges"), len(raw))
    runs = _runs(nodes)
    parents: dict[int, list[int]] = {}
    for source, target in edges:
        parents.setdefault(target, []).append(source)
    blocks = tuple(_block(run, raw, parents) for run in runs)
    place = {node.index: row for row, run in enumerate(runs) for node in run.nodes}
    flow = frozenset((place[a], place[b]) for a, b in edges if place[a] != place[b])
    return blocks, flow


def _edges(pairs: Sequence[object], count: int) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for pair in pairs:
        if isinstance(pair, Sequence) and not isinstance(pair, (str, bytes)):
            ends = [end for end in pair if isinstance(end, int) and 0 <= end < count]  # pyright: ignore[reportUnknownVariableType]
            if len(ends) == 2:
                found.append((ends[0], ends[1]))
    return tuple(found)


def _node(index: int, record: Record, kept: bool) -> _Node:
    name = text(record, "name") or f"node {index}"
    module = text(record, "module")
    # A node's own name says more than its module's path, for a called module's ends with the module itself.
    path = name if not module or name == module or name.startswith(f"{module}.") else f"{module}.{name}"
    parts = tuple(part for part in re.sub(r"#\d+$", "", path).split(".") if part)
    return _Node(index, name, text(record, "op"), kept, parts or (name,), bool(record.get("frontier")))


def _runs(nodes: Sequence[_Node]) -> list[_Run]:
    best: list[_Run] = []
    too_many: list[_Run] | None = None
    for depth in range(1, max((len(node.parts) for node in nodes), default=0) + 1):
        runs = _merge_singles(_runs_at(nodes, depth))
        if len(runs) > MAX_BLOCKS:
            too_many = runs
            break
        best = runs if len(runs) > len(best) else best
        # Deep enough: more boxes than this add detail that nobody asked for.
        if len(runs) >= 12:
            break
    if len(best) >= 6:
        return best
    if too_many is None:
        too_many = [_Run((node,), None) for node in nodes]
    return _chunks(too_many)


def _runs_at(nodes: Sequence[_Node], depth: int) -> list[_Run]:
    groups: list[list[_Node]] = []
    last: object = None
    for node in nodes:
        key = (node.kept, node.parts[:depth], node.index if node.op in _TERMINALS else -1)
        if not groups or key != last:
            groups.append([])
        groups[-1].append(node)
        last = key
    return [_Run(tuple(group), ".".join(group[0].parts[:depth])) for group in groups]


def _merge_singles(runs: Sequence[_Run]) -> list[_Run]:
    """Join neighbouring boxes of one node each (``conv1``, ``bn1``, ``relu``): they are one step of the network."""
    merged: list[_Run] = []
    joinable = False
    for run in runs:
        node = run.nodes[0]
        lone = len(run.nodes) == 1 and node.op not in _TERMINALS
        before = merged[-1].nodes[-1] if merged else node
        alike = before.kept == node.kept and before.parts[:-1] == node.parts[:-1]
        # Where one could cut, a box ends.
        if lone and joinable and alike and not before.frontier:
            merged[-1] = _Run((*merged[-1].nodes, node), None)
        else:
            merged.append(run)
        joinable = lone
    return merged


def _chunks(runs: Sequence[_Run]) -> list[_Run]:
    """Neighbouring runs together, equally many in each box, on either side of the cut."""
    size = -(-len(runs) // (MAX_BLOCKS - 2))
    if size <= 1:
        return list(runs)
    chunks: list[_Run] = []
    for kept in (True, False):
        side = [run for run in runs if run.nodes[0].kept == kept]
        for start in range(0, len(side), size):
            chunks.append(_Run(tuple(node for run in side[start : start + size] for node in run.nodes), None))
    return chunks


def _block(run: _Run, raw: Sequence[Record], parents: dict[int, list[int]]) -> Block:
    nodes = run.nodes
    inside = {node.index for node in nodes}
    flops = [number(raw[node.index], "flops") for node in nodes]
    counted = Counter(_operation(node) for node in nodes if node.op not in _TERMINALS)
    shown = [name if times == 1 else f"{name} ×{times}" for name, times in counted.most_common(4)]
    residual, branches = False, 1
    # What the block's own path begins with: a sum with one of these is a short cut around the block.
    entering = {s for n in nodes if len(own := set(parents.get(n.index, ()))) == 1 for s in own - inside}
    for node in nodes:
        sources = set(parents.get(node.index, ()))
        if _operation(node).startswith(("cat", "concat")):
            branches = max(branches, len(sources))
        elif sources & inside and (sources - inside) & entering:
            residual = True
    found = (text(raw[node.index], "frontier") for node in nodes)
    return Block(
        label=_label(run),
        nodes=tuple(node.index for node in nodes),
        operations=", ".join(shown) + (", …" if len(counted) > 4 else ""),
        shape=format_shape(raw[nodes[-1].index].get("shape")),
        flops=None if None in flops else sum(value for value in flops if value is not None),
        kept=nodes[0].kept,
        frontiers=tuple(dict.fromkeys(name for name in found if name)),
        residual=residual,
        branches=branches,
        terminal=all(node.op in _TERMINALS for node in nodes),
    )


def _operation(node: _Node) -> str:
    """Say what a node does: its operation, else the last part of its name that is a word."""
    if node.op and not node.op.startswith("call_"):
        return node.op.rsplit(".", 1)[-1]
    return next((part for part in reversed(node.parts) if not part.isdigit()), node.parts[-1])


def _label(run: _Run) -> str:
    first, last = run.nodes[0], run.nodes[-1]
    if len(run.nodes) == 1:
        return first.name
    if run.path is not None:
        return run.path
    # Names below the same parent need it once.
    tail = ".".join(last.parts[-1:] if first.parts[:-1] == last.parts[:-1] else last.parts)
    return f"{'.'.join(first.parts)} … {tail}"
