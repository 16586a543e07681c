"""The definition of a frontier, taken literally: every down-set of nodes is tried.

A down-set is accepted if running it alone gives each of its nodes the operands that it has in the whole network, and if
what crosses is no longer changed by anything in the whole network. To see that, runs are simulated on contents: the
content of a piece of memory is the operation that wrote it with the contents that it read. Which nodes share memory and
which write is observed in a real run, on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from netcut_fx.graph import TensorSpec, TracedModule

_SHAPES = {"size", "shape"}


def brute_force_frontiers(traced: TracedModule, max_width: int) -> set[frozenset[str]]:
    """fx names of the crossing nodes of every valid cut of up to `max_width` tensors."""
    network = _Network(traced)
    found: set[frozenset[str]] = set()
    for kept in network.down_sets():
        crossing = network.crossing(kept)
        if crossing and len(crossing) <= max_width and network.is_valid(kept, crossing):
            found.add(frozenset(n.name for n in crossing))
    return found


@dataclass
class _Memory:
    """What a real run shows of each node: storages, window on memory, storages written, shape."""

    storages: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)
    window: dict[fx.Node, Any] = field(default_factory=dict)
    written: dict[fx.Node, set[int]] = field(default_factory=dict)
    shape: dict[fx.Node, Any] = field(default_factory=dict)


@dataclass
class _Run:
    """A simulated run: what each node read, and what is in memory at the end."""

    read: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)
    made: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)
    content: dict[int, int] = field(default_factory=dict)


class _Network:
    def __init__(self, traced: TracedModule) -> None:
        self.traced = traced
        self.nodes = [n for n in traced.nodes if n.op != "output"]
        self.index = {n: i for i, n in enumerate(self.nodes)}
        batch = traced.input_specs[0].shape[0]
        self.memory, larger = _observe(traced, batch), _observe(traced, batch + 2)
        self.keeps_batch = {
            n
            for n, shape in self.memory.shape.items()
            if shape and (shape[0], larger.shape[n][0]) == (batch, batch + 2) and shape[1:] == larger.shape[n][1:]
        }
        self.content_ids: dict[Any, int] = {}
        self.depends: dict[int, frozenset[fx.Node]] = {}
        self.full = self._simulate(set(self.nodes))
        self.counted = self._counted()
        self.ancestors = self._ancestors()
        self.live_parameters = self._parameters(set(self.counted) | {traced.output})

    def _simulate(self, wanted: set[fx.Node]) -> _Run:
        run = _Run()
        for node in self.nodes:
            if node not in wanted:
                continue
            storages = self.memory.storages[node]
            written = self.memory.written.get(node, set())
            operands = [] if _shape_only(node) else node.all_input_nodes
            seen = [s for o in operands for s in self.memory.storages[o]]
            is_view = bool(storages) and set(storages) <= set(seen) and not written
            reads = () if is_view else tuple(run.content.get(s, -1) for s in seen)
            run.read[node] = reads
            chain = frozenset().union(*(self._chain(o) for o in operands), [node])
            fresh = self._content((node, reads), chain.union(*(self.depends.get(r, frozenset()) for r in reads)))
            for storage in {*storages, *written} - (set() if written else set(seen)):
                if storage in written or storage not in run.content:
                    run.content[storage] = fresh
            run.made[node] = tuple(run.content.get(s, -1) for s in storages) or (fresh,)
        return run

    def _content(self, key: Any, depends: frozenset[fx.Node]) -> int:
        number = self.content_ids.setdefault(key, len(self.content_ids))
        self.depends[number] = depends
        return number

    def _chain(self, node: fx.Node) -> frozenset[fx.Node]:
        """A node and the nodes that it is a view of."""
        shared = set(self.memory.storages[node])
        bases = [o for o in node.all_input_nodes if shared.intersection(self.memory.storages[o])]
        return frozenset([node]).union(*(self._chain(o) for o in bases))

    def _counted(self) -> list[fx.Node]:
        reaching: set[fx.Node] = set()
        for result in self.traced.output.all_input_nodes:
            reaching |= self._chain(result)
            for storage in self.memory.storages[result]:
                reaching |= self.depends[self.full.content[storage]]

        def from_input(node: fx.Node) -> bool:
            contents = [*self.full.made[node], *(self.full.content[s] for s in self.memory.storages[node])]
            return any(n.op == "placeholder" for c in contents for n in self.depends.get(c, ()))

        return [n for n in self.nodes if n in reaching and from_input(n)]

    def _ancestors(self) -> dict[fx.Node, set[fx.Node]]:
        found: dict[fx.Node, set[fx.Node]] = {}
        for node in [*self.nodes, self.traced.output]:
            found[node] = set(node.all_input_nodes).union(*(found[o] for o in node.all_input_nodes))
        return found

    def down_sets(self) -> Iterator[set[fx.Node]]:
        """All sets that contain the inputs and with each node its ancestors."""

        def extend(i: int, kept: set[fx.Node]) -> Iterator[set[fx.Node]]:
            if i == len(self.counted):
                yield kept
                return
            node = self.counted[i]
            if self.ancestors[node] & set(self.counted) <= kept:
                yield from extend(i + 1, kept | {node})
            if node.op != "placeholder":
                yield from extend(i + 1, kept)

        return extend(0, set())

    def crossing(self, kept: set[fx.Node]) -> set[fx.Node]:
        """Kept nodes that a removed one uses; after an in-place operation, that operation's result."""
        found: set[fx.Node] = set()
        for user in (*(n for n in self.counted if n not in kept), self.traced.output):
            for operand in () if _shape_only(user) else user.all_input_nodes:
                if operand in kept:
                    latest = self._latest(operand, user)
                    found.add(latest if latest in kept else operand)
        return found

    def _latest(self, operand: fx.Node, user: fx.Node) -> fx.Node:
        end = self.index.get(user, len(self.nodes))
        storages = set(self.memory.storages[operand])
        between = self.nodes[self.index[operand] + 1 : end]
        writers = [n for n in between if storages & self.memory.written.get(n, set())]
        same = writers and self.memory.window.get(writers[-1]) == self.memory.window.get(operand)
        return writers[-1] if same else operand

    def is_valid(self, kept: set[fx.Node], crossing: set[fx.Node]) -> bool:
        run = self._simulate(kept | {n for n in self.nodes if n not in self.counted and not self._carries(n)})
        if any(run.read[n] != self.full.read[n] for n in kept):
            return False
        for node in crossing:
            spec = node.meta["spec"]
            if not isinstance(spec, TensorSpec) or not spec.dtype.is_floating_point or node not in self.keeps_batch:
                return False
            (storage,) = self.memory.storages[node]
            if not self.full.made[node] == (self.full.content[storage],) == (run.content[storage],):
                return False
        kept_parameters = self._parameters(kept)
        return any(n.op != "placeholder" for n in crossing) and kept_parameters < self.live_parameters

    def _carries(self, node: fx.Node) -> bool:
        return any(n.op == "placeholder" for c in self.full.made[node] for n in self.depends.get(c, ()))

    def _parameters(self, nodes: set[fx.Node]) -> set[int]:
        """Identities of the parameters that `nodes` use, themselves or through what does not count."""
        reached = nodes.union(*(self.ancestors[n] for n in nodes)) if nodes else set()
        found: set[int] = set()
        for node in reached:
            if node in nodes or node not in self.counted:
                found |= {id(p) for p in _held(self.traced, node)}
        return found


def _held(traced: TracedModule, node: fx.Node) -> list[nn.Parameter]:
    if node.op == "call_module":
        return list(traced.graph_module.get_submodule(str(node.target)).parameters())
    return [traced.graph_module.get_parameter(str(node.target))] if node.op == "get_attr" else []


def _shape_only(node: fx.Node) -> bool:
    return str(node.target) in _SHAPES or (node.target is getattr and node.args[1] in _SHAPES)


def _observe(traced: TracedModule, batch: int) -> _Memory:
    """Run the network on real numbers and look at memory."""
    memory = _Memory()
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in traced.nodes:
            if node.op == "output":
                break
            before = {n: [t._version for t in _tensors(values[n])] for n in node.all_input_nodes}
            values[node] = _run(traced, node, values, batch)
            changed = {n for n in before if before[n] != [t._version for t in _tensors(values[n])]}
            memory.storages[node] = tuple(t.untyped_storage().data_ptr() for t in _tensors(values[node]))
            if changed:
                memory.written[node] = {s for n in changed for s in memory.storages[n]}
            if isinstance(values[node], Tensor):
                value = values[node]
                memory.window[node] = (value.data_ptr(), value.shape, value.stride())
                memory.shape[node] = tuple(value.shape)
    return memory


def _run(traced: TracedModule, node: fx.Node, values: dict[fx.Node, Any], batch: int) -> Any:
    if node.op == "placeholder":
        return torch.randn(batch, *node.meta["spec"].shape[1:])
    if node.op == "get_attr":
        return traced.graph_module.get_parameter(str(node.target))
    args = fx.map_arg(node.args, values.__getitem__)
    kwargs = fx.map_arg(node.kwargs, values.__getitem__)
    if node.op == "call_module":
        return traced.graph_module.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    function: Any = node.target
    return function(*args, **kwargs)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in _tensors(part)] if isinstance(value, (tuple, list)) else []
