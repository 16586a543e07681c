"""A traced network as rows to draw one below the other, with the tensors between them and the cuts behind them.

A row is a run of nodes in execution order. At block granularity each block is one, and so is what lies between blocks;
else each node is one, until there are too many: then chains, then modules, the deepest first, become one row each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

from torch import fx

from netcut_fx.blocks import blocks
from netcut_fx.cut_graph import CutGraph, cut_graph, parameters_of
from netcut_fx.frontier_facts import FrontierFacts, is_opaque
from netcut_fx.graph import Spec, TensorSpec, TracedModule
from netcut_fx.ignored_scope import operation_kind
from netcut_fx.module_calls import module_calls
from netcut_fx.node_names import module_path
from netcut_fx.ops import node_flops
from netcut_fx.result_values import format_shape

#: No more rows than this at node or kernel granularity.
MAX_ROWS = 240


@dataclass(frozen=True)
class Row:
    """What is drawn as one box.

    Parameters
    ----------
    label : str
        Name of the block, module or node.
    note : str
        What is in it: ``Bottleneck: Conv2d ×3, ReLU, add``.
    shape : str
        Of its last node.
    params : int
        Parameters used here first.
    flops : int
        Of its nodes.
    flops_known : bool
        False if `flops` is a lower bound.
    count : int
        How many nodes it stands for.
    group : str
        Block that it is part of; rows of one group are framed together.
    kind : str
        ``"input"``, ``"block"``, ``"node"`` or ``"output"``.
    inside : tuple of str
        Frontiers that end within it, where no line can be drawn.
    """

    label: str
    note: str
    shape: str
    params: int
    flops: int
    flops_known: bool
    count: int
    group: str
    kind: str
    inside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flow:
    """A tensor that leaves its row: its name, the row that makes it, the rows that read it."""

    name: str
    source: int
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Mark:
    """A frontier behind a row, and the indices of the flows that cross it."""

    row: int
    facts: FrontierFacts
    flows: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """All that is drawn."""

    rows: tuple[Row, ...]
    flows: tuple[Flow, ...]
    marks: tuple[Mark, ...]


def rows_of(traced: TracedModule, facts: Sequence[FrontierFacts], *, blocks_only: bool) -> Rows:
    """Arrange `traced` in rows, from the inputs to the output, with the frontiers in `facts` marked."""
    return _Arrangement(cut_graph(traced), facts).rows(blocks_only=blocks_only)


@dataclass
class _Arrangement:
    graph: CutGraph
    facts: Sequence[FrontierFacts]
    seen: set[fx.Node] = field(default_factory=set[fx.Node])
    counted: set[int] = field(default_factory=set[int])

    @cached_property
    def classes(self) -> dict[str, str]:
        """Class of each module that is called, by its path."""
        calls = module_calls(self.graph).root.walk()
        return {call.path: call.kind.rsplit(".", 1)[-1] for call in calls}

    def rows(self, *, blocks_only: bool) -> Rows:
        graph = self.graph
        ends = {max(map(graph.position.__getitem__, f.frontier.nodes)) for f in self.facts}
        owners = self._owners()
        inner = range(graph.inputs, len(graph.order))
        if blocks_only:
            runs = [list(run) for _, run in groupby(inner, owners.__getitem__)]
        else:
            runs = next(self._partitions(inner, owners, ends))
        runs = [*([p] for p in range(graph.inputs)), *runs]
        row_of = {p: row for row, run in enumerate(runs) for p in run} | {len(graph.order): len(runs)}
        inside: dict[int, list[str]] = defaultdict(list)
        placed: list[tuple[int, FrontierFacts]] = []
        for f in self.facts:
            last = max(map(graph.position.__getitem__, f.frontier.nodes))
            if runs[row_of[last]][-1] == last:
                placed.append((row_of[last], f))
            else:
                inside[row_of[last]].append(f.frontier.name)
        flow_of: dict[int, int] = {}
        flows: list[Flow] = []
        for p, users in enumerate(graph.users):
            targets = tuple(sorted({row_of[u] for u in users} - {row_of[p]}))
            if targets:
                flow_of[p] = len(flows)
                flows.append(Flow(_name(graph.order[p]), row_of[p], targets))
        marks = tuple(
            Mark(row, f, tuple(flow_of[p] for n in f.frontier.nodes if (p := graph.position[n]) in flow_of))
            for row, f in placed
        )
        rows = [self._row(run, owners, tuple(inside[row]), blocks_only=blocks_only) for row, run in enumerate(runs)]
        answer = _shape(graph.traced.output.meta["spec"])
        rows.append(Row("output", "", answer, 0, 0, True, 1, "", "output"))
        return Rows(tuple(rows), tuple(flows), marks)

    def _owners(self) -> list[str]:
        """For each position the block that it is in; "stem" before the first, "head" behind the last, else ""."""
        found = blocks(self.graph)
        first = min((b.first for b in found), default=0)
        last = max((b.last for b in found), default=-1)
        owners = ["stem" if p < first else "head" if p > last else "" for p in range(len(self.graph.order))]
        for block in reversed(found):
            owners[block.first : block.last + 1] = [block.name] * (block.last + 1 - block.first)
        return owners

    def _partitions(self, inner: range, owners: list[str], ends: set[int]) -> Iterator[list[list[int]]]:
        """Ways to arrange positions in few enough rows, the most detailed first."""
        graph = self.graph
        calls = module_calls(graph)
        paths = [tuple(call.path.split(".")) if call.path else () for call in calls.innermost]

        def chained(p: int) -> bool:
            """Whether `p` only goes on with what the node before it made, in the same module."""
            alone = graph.users[p - 1] == (p,) and graph.sources[p] == (p - 1,)
            return p - 1 >= graph.inputs and alone and owners[p - 1] == owners[p] and paths[p - 1] == paths[p]

        def at(depth: int) -> Callable[[int], bool]:
            return lambda p: owners[p - 1] == owners[p] and paths[p - 1][:depth] == paths[p][:depth]

        deepest = max(map(len, paths), default=0)
        for joins in (lambda _: False, chained, *map(at, range(deepest, 0, -1))):
            for split in (True, False):
                runs = _runs(inner, lambda p, j=joins, s=split: j(p) and not (s and p - 1 in ends))
                if len(runs) <= MAX_ROWS:
                    yield runs
        runs = _runs(inner, lambda p: owners[p - 1] == owners[p])
        size = -(-len(runs) // MAX_ROWS)
        yield [[p for run in runs[i : i + size] for p in run] for i in range(0, len(runs), size)]

    def _row(self, run: list[int], owners: list[str], inside: tuple[str, ...], *, blocks_only: bool) -> Row:
        graph, traced = self.graph, self.graph.traced
        nodes = [graph.order[p] for p in run]
        first, last = nodes[0], nodes[-1]
        if first.op == "placeholder":
            return Row(_name(first), "", _shape(first.meta["spec"]), 0, 0, True, 1, "", "input")
        params = flops = 0
        for p, node in zip(run, nodes, strict=True):
            for used in (node, *graph.uncounted(p, self.seen)):
                flops += node_flops(traced, used)
                for parameter in parameters_of(traced, used):
                    params += 0 if id(parameter) in self.counted else parameter.numel()
                    self.counted.add(id(parameter))
        owner = owners[run[0]]
        whole = len({owners[p] for p in run}) == 1
        counts = Counter(operation_kind(traced, node) or node.op for node in nodes)
        note = ", ".join(name if n == 1 else f"{name} ×{n}" for name, n in counts.most_common(4))
        note += ", …" if len(counts) > 4 else ""
        if blocks_only and owner:
            label = owner
            kind = self.classes.get(owner, "")
            note = f"{kind}: {note}" if kind else note
        elif whole:
            label = _name(first) if len(run) == 1 else _common(nodes)
        else:
            label = _from_to(owners[run[0]] or _name(first), owners[run[-1]] or _name(last))
        return Row(
            label=label,
            note=note,
            shape=_shape(last.meta["spec"]),
            params=params,
            flops=flops,
            flops_known=not any(is_opaque(traced, node) for node in nodes),
            count=len(run),
            group="" if blocks_only or not whole else owner,
            kind="block" if blocks_only else "node",
            inside=inside,
        )


def _runs(inner: range, joins: Callable[[int], bool]) -> list[list[int]]:
    runs: list[list[int]] = []
    for p in inner:
        if runs and joins(p):
            runs[-1].append(p)
        else:
            runs.append([p])
    return runs


def _common(nodes: Sequence[fx.Node]) -> str:
    """The module that all `nodes` lie in, else the first and last of them."""
    paths = [module_path(node).split(".") for node in nodes]
    path = ".".join(_shared(*paths))
    several = len(set(map(tuple, paths))) > 1
    return path if path and several else _from_to(_name(nodes[0]), _name(nodes[-1]))


def _from_to(first: str, last: str) -> str:
    """``stage.0 … 3``: what both names begin with stands there once."""
    names = [first.split("."), last.split(".")]
    shared = min(len(_shared(*names)), len(names[1]) - 1)
    return f"{first} … {'.'.join(names[1][shared:])}"


def _shared(*paths: Sequence[str]) -> list[str]:
    """What all `paths` begin with."""
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _name(node: fx.Node) -> str:
    return str(node.meta["qualname"])


def _shape(spec: Spec) -> str:
    if isinstance(spec, TensorSpec):
        return format_shape(spec.shape)
    return "value" if spec is None else f"{len(spec)} tensors"
