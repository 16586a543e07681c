"""Which operations TVM fuses into one kernel: the rules of Relax's ``FuseOps``, on any graph.

Each operation may join the group of its immediate post-dominator, the closest operation that every path from it goes
through, provided that everything between the two is easy enough to fuse along with it. Two rounds: convolutions and the
element-wise operations around them first, then rearrangements of data. Chen et al., TVM, OSDI 2018, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import networkx as nx

from netcut_fx.lowering.values import Pattern

#: More operations than this are never fused into one kernel (Relax's default).
MAX_FUSED_OPERATIONS = 256


def fuse(graph: nx.DiGraph[Any], *, max_operations: int = MAX_FUSED_OPERATIONS) -> list[list[Hashable]]:
    """Partition `graph` into kernels.

    Parameters
    ----------
    graph : networkx.DiGraph
        One node per operation, inserted in execution order, with the attributes ``pattern`` (a `Pattern`) and
        ``escapes`` (whether the result is needed outside whatever its users are); an edge per use of a result.
    max_operations : int, optional
        Limit of the size of a group.

    Returns
    -------
    list of list
        Groups in the order of their last operation, the operations of each in execution order.

    Notes
    -----
    Walks are iterative, so that depth is not limited; close to linear in the number of edges for networks, whose
    parallel branches are short.
    """
    return _Partition(graph, max_operations).run()


class _Partition:
    """Union-find over operations; fields are lists indexed by execution order."""

    def __init__(self, graph: nx.DiGraph[Any], max_operations: int) -> None:
        self.nodes: list[Any] = list(graph)
        self.max_operations = max_operations
        index = {node: i for i, node in enumerate(self.nodes)}
        self.pattern: list[Pattern] = [graph.nodes[node]["pattern"] for node in self.nodes]
        self.escapes: list[bool] = [graph.nodes[node]["escapes"] for node in self.nodes]
        self.users: list[list[int]] = [[index[user] for user in graph.successors(node)] for node in self.nodes]
        # A group carries the pattern of its hardest operation, kept at every member that was once its root.
        self.group_pattern = list(self.pattern)
        self.anchored = [p is Pattern.OUT_FUSABLE for p in self.pattern]
        self.size = [1] * len(self.nodes)
        self.parent = list(range(len(self.nodes)))
        self.dominator: list[int | None] = [None] * len(self.nodes)
        self.path_pattern: list[Pattern] = [Pattern.OPAQUE] * len(self.nodes)
        self.depth = [1] * len(self.nodes)

    def run(self) -> list[list[Hashable]]:
        for i in reversed(range(len(self.nodes))):
            self.find_dominator(i)
        for round_ in (0, 1):
            for i in range(len(self.nodes)):
                self.try_to_fuse(i, round_)
        groups: dict[int, list[Hashable]] = {}
        for i, node in enumerate(self.nodes):
            groups.setdefault(self.root(i), []).append(node)
        position = {node: i for i, node in enumerate(self.nodes)}
        return sorted(groups.values(), key=lambda group: position[group[-1]])

    def find_dominator(self, i: int) -> None:
        """Find the immediate post-dominator: the closest common ancestor of all users, in the tree built so far."""
        if self.escapes[i] or not self.users[i]:
            return
        first, *rest = self.users[i]
        common: int | None = first
        hardest = self.pattern[first]
        for user in rest:
            common, hardest = self.common_ancestor(common, user, hardest)
            hardest = max(hardest, self.pattern[user])
        self.dominator[i] = common
        self.path_pattern[i] = hardest
        self.depth[i] = 1 if common is None else self.depth[common] + 1

    def common_ancestor(self, a: int | None, b: int | None, hardest: Pattern) -> tuple[int | None, Pattern]:
        while a != b:
            if a is None or b is None:
                return None, hardest
            climb_a, climb_b = self.depth[a] >= self.depth[b], self.depth[b] >= self.depth[a]
            if climb_a:
                hardest = max(hardest, self.path_pattern[a])
                a = self.dominator[a]
            if climb_b:
                hardest = max(hardest, self.path_pattern[b])
                b = self.dominator[b]
        return a, hardest

    def try_to_fuse(self, i: int, round_: int) -> None:
        sink, kind = self.dominator[i], self.group_pattern[i]
        if kind is Pattern.OPAQUE or sink is None or self.root(i) == self.root(sink):
            return
        if self.size_with(i, sink) > self.max_operations:
            return
        path = self.path_pattern[i]
        if kind is Pattern.OUT_FUSABLE:
            # conv2d: everything up to the sink must be element-wise or broadcast.
            fits = round_ == 0 and path is Pattern.ELEMENTWISE and self.all_between(i, sink, _at_most_broadcast)
        elif kind <= Pattern.BROADCAST:
            fits = path <= Pattern.REDUCTION and self.all_between(i, sink, _easy_up_to_any_sink)
        elif kind is Pattern.INJECTIVE:
            # Rearrangements wait, so that convolutions take what they can first.
            fits = round_ == 1 and self.all_between(i, sink, _at_most_injective)
        else:
            fits = False
        if fits:
            self.merge_between(i, sink)

    def between(self, i: int, sink: int) -> list[int]:
        """Collect what lies on paths from `i` to `sink`, both left out."""
        seen: set[int] = {i, sink}
        waiting, found = [i], list[int]()
        while waiting:
            for user in self.users[waiting.pop()]:
                if user not in seen:
                    seen.add(user)
                    found.append(user)
                    waiting.append(user)
        return found

    def size_with(self, i: int, sink: int) -> int:
        return self.size[self.root(sink)] + self.size[i] + sum(self.size[j] for j in self.between(i, sink))

    def all_between(self, i: int, sink: int, allowed: Callable[[Pattern, bool], bool]) -> bool:
        kinds = self.group_pattern
        return allowed(kinds[self.root(sink)], True) and all(
            allowed(kinds[self.root(j)], False) for j in self.between(i, sink)
        )

    def merge_between(self, i: int, sink: int) -> None:
        for j in (i, *self.between(i, sink)):
            child, root = self.root(j), self.root(sink)
            if child == root:
                continue
            self.parent[child] = root
            self.size[root] += self.size[child]
            if self.anchored[child]:
                self.anchored[root] = True
                self.group_pattern[root] = max(self.group_pattern[root], self.group_pattern[child])

    def root(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = i = self.parent[self.parent[i]]
        return i


def _at_most_broadcast(kind: Pattern, is_sink: bool) -> bool:
    return kind <= Pattern.BROADCAST


def _at_most_injective(kind: Pattern, is_sink: bool) -> bool:
    return kind <= Pattern.INJECTIVE


def _easy_up_to_any_sink(kind: Pattern, is_sink: bool) -> bool:
    return kind <= (Pattern.OUT_FUSABLE if is_sink else Pattern.INJECTIVE)
