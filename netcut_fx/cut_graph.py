"""A network reduced to what matters for cutting it: which values depend on which, and what each one needs kept.

Of all nodes only those count whose value

* comes from an input: what is computed from parameters, constants or mere sizes can be computed again on either side
  of a cut, so it never crosses one. It belongs wherever it is used;
* reaches the output: dead code is ignored. A node of which only the shape is used does not count either.

In-place operations are resolved: who reads a tensor after ``x.relu_()`` uses the result of ``relu_``. Where the write
went through a view instead, no other node stands for the new content, and the tensor cannot cross a cut at all.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from torch import fx, nn

from netcut_fx.effects import Effects, observe
from netcut_fx.graph import TracedModule
from netcut_fx.shape_operations import reads_shape_only

#: Least distance between two positions whose live values are listed.
_LIVE_DISTANCE = 16


@dataclass(frozen=True)
class CutGraph:
    """The values that count, numbered in execution order with the inputs first.

    Parameters
    ----------
    traced : TracedModule
    effects : Effects
    order : tuple of torch.fx.Node
        The nodes that count. Everything else here refers to a node by its position in it; the position
        ``len(order)`` stands for the output.
    inputs : int
        How many of them are inputs.
    users : tuple of tuples
        Positions that use the value of each.
    sources : tuple of tuples
        Positions whose value each uses.
    needs : tuple of tuples
        ``sources``, and positions of which only the shape is used.
    operands : dict
        For every node, counted or not, the nodes it reads, in-place operations resolved.
    """

    traced: TracedModule
    effects: Effects
    order: tuple[fx.Node, ...]
    inputs: int
    users: tuple[tuple[int, ...], ...]
    sources: tuple[tuple[int, ...], ...]
    needs: tuple[tuple[int, ...], ...]
    operands: dict[fx.Node, tuple[fx.Node, ...]]

    @cached_property
    def position(self) -> dict[str, int]:
        """Position by fx name."""
        return {node.name: i for i, node in enumerate(self.order)}

    @cached_property
    def last_use(self) -> tuple[int, ...]:
        """Position of the last user of each; its own where nobody uses the result."""
        return tuple(max(users, default=i) for i, users in enumerate(self.users))

    @cached_property
    def separators(self) -> tuple[int, ...]:
        """Positions that every path from an input to the output passes, in order.

        One sweep: a position separates if nothing before it is used behind it. These are the dominators of the output.
        """
        found: list[int] = []
        furthest = -1
        for i, last in enumerate(self.last_use):
            if furthest <= i < last and i >= self.inputs - 1:
                found.append(i)
            furthest = max(furthest, last)
        return tuple(found)

    def uncounted(self, position: int, seen: set[fx.Node]) -> tuple[fx.Node, ...]:
        """The nodes that do not count but that `position` needs: parameters, constants, sizes. Adds them to `seen`."""
        found: list[fx.Node] = []
        stack = [self.order[position]]
        while stack:
            for operand in self.operands[stack.pop()]:
                if operand.name not in self.position and operand not in seen:
                    seen.add(operand)
                    found.append(operand)
                    stack.append(operand)
        return tuple(found)

    @cached_property
    def first_need(self) -> tuple[int, ...]:
        """The first position that needs each; that of the output where none does."""
        found = [len(self.order)] * len(self.order)
        for position in range(len(self.order) - 1, -1, -1):
            for need in self.needs[position]:
                found[need] = position
        return tuple(found)

    @cached_property
    def first_needed_by(self) -> dict[int, list[int]]:
        """The positions that each is the first to need."""
        found: dict[int, list[int]] = {}
        for position, need in enumerate(self.first_need):
            found.setdefault(need, []).append(position)
        return found

    @cached_property
    def unneeded(self) -> tuple[int, ...]:
        """At each position, how many of those up to it only positions behind it need."""
        changes = (1 - len(self.first_needed_by.get(position, ())) for position in range(len(self.order)))
        return tuple(accumulate(changes))

    def live_behind(self, position: int) -> list[int]:
        """The positions up to `position` that are used behind it, in order."""
        index = bisect_right(self._live_lists, position, key=lambda entry: entry[0]) - 1
        start, live = self._live_lists[index]
        candidates = (*live, *range(start + 1, position + 1))
        return [p for p in candidates if self.last_use[p] > position]

    @cached_property
    def _live_lists(self) -> list[tuple[int, tuple[int, ...]]]:
        """What is live behind some positions; the distance to the next grows with the list, so all take linear room."""
        found: list[tuple[int, tuple[int, ...]]] = [(-1, ())]
        live: dict[int, None] = {}
        ending: dict[int, list[int]] = {}
        for position, last in enumerate(self.last_use):
            for done in ending.pop(position, ()):
                del live[done]
            if last > position:
                live[position] = None
                ending.setdefault(last, []).append(position)
            if position - found[-1][0] > max(len(live), _LIVE_DISTANCE):
                found.append((position, tuple(live)))
        return found

    @cached_property
    def _nodes(self) -> tuple[fx.Node, ...]:
        return self.traced.nodes

    @cached_property
    def _execution_index(self) -> dict[str, int]:
        return {node.name: i for i, node in enumerate(self._nodes)}

    @cached_property
    def _last_writer(self) -> dict[int, int]:
        """Execution index (among all nodes) of the last node that writes into each storage."""
        return {s: i for i, node in enumerate(self._nodes) for s in self.effects.written.get(node.name, ())}

    def later_writer(self, node: fx.Node) -> fx.Node | None:
        """The last in-place operation that changes the value of `node` after it was made."""
        storages = self.effects.storages[node.name]
        last = max((self._last_writer.get(storage, -1) for storage in storages), default=-1)
        return self._nodes[last] if last > self._execution_index[node.name] else None


def cut_graph(traced: TracedModule) -> CutGraph:
    """The `CutGraph` of `traced`; time and memory grow linearly with the number of uses.

    A traced network does not change, so the result is kept with it.
    """
    kept: dict[str, object] = traced.__dict__
    found = kept.get("_cut_graph")
    if not isinstance(found, CutGraph):
        kept["_cut_graph"] = found = _Builder(traced, observe(traced)).build()
    return found


@dataclass
class _Builder:
    traced: TracedModule
    effects: Effects
    operands: dict[fx.Node, tuple[fx.Node, ...]] = field(default_factory=dict[fx.Node, tuple[fx.Node, ...]])
    carrying: set[fx.Node] = field(default_factory=set[fx.Node])

    def build(self) -> CutGraph:
        self._follow_inputs()
        live, needed = self._reaching_output()
        nodes = self.traced.nodes
        counted = [n for n in nodes if n in live and n in self.carrying and n.op != "output"]
        counted.sort(key=lambda n: n.op != "placeholder")
        position = {node: i for i, node in enumerate(counted)}
        users: list[list[int]] = [[] for _ in counted]
        sources: list[tuple[int, ...]] = []
        needs: list[tuple[int, ...]] = []
        shapes = self._shape_needs(position, needed)
        for i, node in enumerate([*counted, self.traced.output]):
            operands = self.operands[node]
            used = tuple(dict.fromkeys(position[o] for o in operands if o in position))
            for source in used:
                users[source].append(i)
            if node.op == "output":
                break
            shape_needs = {s for o in operands if o not in position for s in shapes.get(o, ())}
            sources.append(used)
            needs.append(tuple(sorted(shape_needs.union(used))))
        return CutGraph(
            traced=self.traced,
            effects=self.effects,
            order=tuple(counted),
            inputs=sum(n.op == "placeholder" for n in counted),
            users=tuple(tuple(u) for u in users),
            sources=tuple(sources),
            needs=tuple(needs),
            operands=self.operands,
        )

    def _follow_inputs(self) -> None:
        """Resolve in-place writes and mark the nodes whose value comes from an input."""
        index = {node: i for i, node in enumerate(self.traced.nodes)}
        last_writer: dict[int, fx.Node] = {}
        overwritten: set[int] = set()
        for node in self.traced.nodes:
            operands: list[fx.Node] = []
            for operand in node.all_input_nodes:
                current = self._current(operand, last_writer, index)
                if current is operand and not overwritten.isdisjoint(self.effects.storages[operand.name]):
                    # Its memory was filled from an input through a view.
                    self.carrying.add(operand)
                operands.append(current)
            self.operands[node] = tuple(dict.fromkeys(operands))
            from_input = node.op == "placeholder" and node.meta["spec"] is not None
            if from_input or (not reads_shape_only(node) and any(o in self.carrying for o in operands)):
                self.carrying.add(node)
                overwritten.update(self.effects.written.get(node.name, ()))
            for storage in self.effects.written.get(node.name, ()):
                last_writer[storage] = node

    def _current(self, operand: fx.Node, last_writer: dict[int, fx.Node], index: dict[fx.Node, int]) -> fx.Node:
        """The node whose result `operand` is by now: itself, or the in-place operation that rewrote all of it."""
        window = self.effects.window.get(operand.name)
        writer = last_writer.get(window[0]) if window else None
        if writer is None or index[writer] <= index[operand] or self.effects.window.get(writer.name) != window:
            return operand
        return writer

    def _reaching_output(self) -> tuple[set[fx.Node], set[fx.Node]]:
        """Nodes whose value reaches the output, and those needed at all (for a shape, say)."""
        output = self.traced.output
        live, needed = {output}, {output}
        read_later: set[int] = set()
        for node in reversed(self.traced.nodes):
            if not read_later.isdisjoint(self.effects.written.get(node.name, ())):
                live.add(node)
            if node in live:
                needed.add(node)
            if node not in needed:
                continue
            needed.update(self.operands[node])
            if node in live and not reads_shape_only(node):
                live.update(self.operands[node])
                for operand in self.operands[node]:
                    read_later.update(self.effects.storages[operand.name])
        return live, needed

    def _shape_needs(self, position: dict[fx.Node, int], needed: set[fx.Node]) -> dict[fx.Node, frozenset[int]]:
        """For each node that does not count: the counted ones that it derives a shape from."""
        found: dict[fx.Node, frozenset[int]] = {}
        for node in self.traced.nodes:
            if node in position or node not in needed:
                continue
            sets = {
                frozenset({position[o]}) if o in position else found.get(o, frozenset()) for o in self.operands[node]
            }
            found[node] = next(iter(sets)) if len(sets) == 1 else frozenset().union(*sets)
        return found


def parameters_of(traced: TracedModule, node: fx.Node) -> tuple[nn.Parameter, ...]:
    """The parameters that `node` itself holds or fetches."""
    if node.op == "call_module":
        return tuple(traced.graph_module.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr":
        value: object = traced.graph_module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if isinstance(value, nn.Module):
            return tuple(value.parameters())
        return (value,) if isinstance(value, nn.Parameter) else ()
    return ()
