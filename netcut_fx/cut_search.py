"""All cuts of a network up to a width.

A cut keeps a set of positions of the `CutGraph` that holds the inputs and, with each position, everything that one
needs. What crosses is what is kept and used outside. One cut belongs to each crossing set: what is kept is the crossing
tensors with all their ancestors, the inputs, and the in-place operations that rewrite what those read.

Separators (positions that all paths pass) divide the graph into regions, and every cut lies within one region: it keeps
all up to one separator, and not the next. So single-tensor cuts cost one linear sweep, and wider ones a search per
region. The search decides position by position whether it is kept. A position left out takes all that depends on it
out as well, at once, so that crossing tensors are known as early as possible and a branch ends as soon as too many of
them cross. Nothing recurses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import takewhile

from netcut_fx.cut_graph import CutGraph
from netcut_fx.errors import InvalidFrontier

#: Steps of the search for wide cuts after which it gives up: two long parallel branches alone have n^2 cuts.
SEARCH_STEPS = 5_000_000

#: Of how many live tensors beyond the width a list is kept at each position.
_LIVE_LISTED = 64

_UNDECIDED, _KEPT, _REMOVED = 0, 1, 2


@dataclass(frozen=True)
class Cut:
    """One cut, in positions of a `CutGraph`.

    Parameters
    ----------
    crossing : tuple of int
        What crosses, in order.
    base : int
        All positions up to this one are kept.
    more : tuple of int
        Further kept positions, in order.
    """

    crossing: tuple[int, ...]
    base: int
    more: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many positions are kept."""
        return self.base + 1 + len(self.more)


def closure(graph: CutGraph, ends: Sequence[int]) -> Cut:
    """The cut that keeps `ends`, all that they need, and whatever rewrites in place what would cross."""
    kept_ends = set(ends)
    while True:
        cut = _plain_closure(graph, sorted(kept_ends))
        rewriting = {
            graph.position[writer.name]
            for position in cut.crossing
            if (writer := graph.later_writer(graph.order[position])) is not None and writer.name in graph.position
        }
        if rewriting <= kept_ends:
            return cut
        kept_ends |= rewriting


def _plain_closure(graph: CutGraph, ends: Sequence[int]) -> Cut:
    """What `ends` need, found from the last of them downwards, until all that lies below is kept.

    All up to a position is kept if every value made there and not needed there is kept: those number
    ``graph.unneeded[position]``. So the time depends on what the cut leaves out, not on the size of the network.
    """
    kept = {*ends, *range(graph.inputs)}
    base = ends[-1]
    known = sum(graph.first_need[p] > base for p in kept)
    more: list[int] = []
    while known < graph.unneeded[base]:
        if base in kept:
            more.append(base)
            known -= 1
            kept.update(graph.needs[base])
        known += sum(p in kept for p in graph.first_needed_by.get(base, ()))
        base -= 1
    return Cut(_crossing(graph, base, more[::-1]), base, tuple(more[::-1]))


def _crossing(graph: CutGraph, base: int, more: Sequence[int]) -> tuple[int, ...]:
    kept = set(more)
    # The last users are looked at first: where a value is used all over the network, they tell at once.
    return tuple(
        p
        for p in (*graph.live_behind(base), *more)
        if any(user not in kept for user in takewhile(lambda user: user > base, reversed(graph.users[p])))
    )


def all_cuts(graph: CutGraph, width: int, may_cross: Sequence[bool]) -> Iterator[Cut]:
    """Every cut where at most `width` tensors cross, all of them allowed by `may_cross`; each crossing set once.

    Raises
    ------
    InvalidFrontier
        If there are too many to list.
    """
    seen: set[tuple[int, ...]] = set()
    for cut in _sweep(graph, width, may_cross):
        if cut.crossing not in seen:
            seen.add(cut.crossing)
            yield cut
    if width == 1:
        return
    borders = [-1, *graph.separators] if graph.inputs > 1 or not graph.separators else list(graph.separators)
    steps = SEARCH_STEPS
    for base, end in zip(borders, [*borders[1:], len(graph.order)], strict=True):
        if end - base < 3:
            continue
        search = RegionSearch(graph, max(base, graph.inputs - 1), end, width, steps=steps)
        for cut in search.run(may_cross):
            if cut.crossing not in seen:
                seen.add(cut.crossing)
                yield cut
        steps = search.steps


def _sweep(graph: CutGraph, width: int, may_cross: Sequence[bool]) -> Iterator[Cut]:
    """Cuts that keep exactly a first part of the execution order."""
    live: dict[int, None] = {}
    forbidden = 0
    ending: dict[int, list[int]] = {}
    for i, last in enumerate(graph.last_use):
        for done in ending.pop(i, ()):
            del live[done]
            forbidden -= not may_cross[done]
        if last > i:
            live[i] = None
            forbidden += not may_cross[i]
            ending.setdefault(last, []).append(i)
        if i >= graph.inputs - 1 and live and len(live) <= width and not forbidden:
            crossing = tuple(live)
            yield Cut(crossing, i)


class RegionSearch:
    """Cuts that keep all up to `base`, not `end`, and between them no first part of the execution order.

    Attributes
    ----------
    limit : int
        Everything from here on is removed. Where all that follows a removed position depends on it, the limit moves
        there instead of every follower being marked, so that a decision costs what its neighbourhood holds.
    """

    def __init__(self, graph: CutGraph, base: int, end: int, width: int, *, steps: int) -> None:
        self.graph, self.base, self.limit, self.width, self.steps = graph, base, end, width, steps
        count = max(end - base, 1)
        self.status = bytearray(count)
        self.changed: list[int] = []
        self.crossing: dict[int, None] = {}
        self.dependents: list[list[int]] = [[] for _ in range(count)]
        latest_need = [base] * count
        for position in range(base + 1, end):
            inside = [p for p in graph.needs[position] if p > base]
            for need in inside:
                self.dependents[need - base].append(position)
            latest_need[position - base] = max(inside, default=base)
        # Whether something behind a position does not depend on it.
        self.has_parallel = [False] * count
        earliest = end
        for position in range(end - 1, base, -1):
            self.has_parallel[position - base] = earliest < position
            earliest = min(earliest, latest_need[position - base])
        self.live: list[tuple[int, ...] | None] = self._live() if any(self.has_parallel) else []

    def run(self, may_cross: Sequence[bool]) -> Iterator[Cut]:
        """Yield the cuts; a stack of decisions instead of recursion."""
        self.may_cross = may_cross
        if not self.live or not all(self._note(p) for p in self._border() if self._used_outside(p)):
            return
        # Position, whether it was kept, and what to go back to: lengths of `changed` and `crossing`, `limit`.
        decisions: list[tuple[int, bool, int, int, int]] = []
        removed: list[int] = []
        position = self.base + 1
        while True:
            while position < self.limit and self.status[position - self.base] != _UNDECIDED:
                position += 1
            possible = position < self.limit
            if possible:
                decisions.append((position, True, len(self.changed), len(self.crossing), self.limit))
                possible = self._keep(position)
            elif removed:
                yield from self._found(removed[0])
            while not possible:
                if not decisions:
                    return
                position, kept, changes, crossings, limit = decisions.pop()
                self._undo(changes, crossings)
                self.limit = limit
                if not kept:
                    removed.pop()
                elif removed or self.has_parallel[position - self.base]:
                    decisions.append((position, False, changes, crossings, limit))
                    removed.append(position)
                    possible = self._remove(position)
            position += 1

    def _border(self) -> Sequence[int]:
        return range(self.graph.inputs) if self.base < self.graph.inputs else (self.base,)

    def _live(self) -> list[tuple[int, ...] | None]:
        """For each position what is made before it and used from it on; None where that is much."""
        live = dict.fromkeys(p for p in self._border() if self.graph.last_use[p] > self.base)
        found: list[tuple[int, ...] | None] = []
        ending: dict[int, list[int]] = {}
        for position in live:
            ending.setdefault(self.graph.last_use[position], []).append(position)
        for position in range(self.base, self.base + len(self.status)):
            found.append(tuple(live) if len(live) <= self.width + _LIVE_LISTED else None)
            for done in ending.pop(position, ()):
                live.pop(done, None)
            last = self.graph.last_use[position] if position > self.base else -1
            if last > position:
                live[position] = None
                ending.setdefault(last, []).append(position)
        return found

    def _found(self, first_removed: int) -> Iterator[Cut]:
        more = tuple(p for p in range(first_removed, self.limit) if self.status[p - self.base] == _KEPT)
        if more and self.crossing:
            yield Cut(tuple(sorted(self.crossing)), first_removed - 1, more)

    def _used_outside(self, position: int) -> bool:
        return any(
            u >= self.limit or (u > self.base and self.status[u - self.base] == _REMOVED)
            for u in self.graph.users[position]
        )

    def _note(self, position: int) -> bool:
        """Count `position` as crossing; False if that is one too many or not allowed."""
        self.crossing[position] = None
        return self.may_cross[position] and len(self.crossing) <= self.width

    def _keep(self, position: int) -> bool:
        self._step()
        self.status[position - self.base] = _KEPT
        self.changed.append(position)
        return not self._used_outside(position) or self._note(position)

    def _remove(self, position: int) -> bool:
        """Remove `position` and what depends on it; False as soon as too much crosses."""
        queue, queued = [position], {position}
        while queue:
            removed = heappop(queue)
            if removed >= self.limit:
                return True
            if self.status[removed - self.base] == _REMOVED:
                continue
            self._step()
            live = None if self.has_parallel[removed - self.base] else self.live[removed - self.base]
            if live is not None:
                self.limit = removed
                return all(self._note(p) for p in live if self._is_kept(p) and p not in self.crossing)
            self.status[removed - self.base] = _REMOVED
            self.changed.append(removed)
            for source in self.graph.sources[removed]:
                if self._is_kept(source) and source not in self.crossing and not self._note(source):
                    return False
            for user in self.dependents[removed - self.base]:
                if user not in queued:
                    queued.add(user)
                    heappush(queue, user)
        return True

    def _is_kept(self, position: int) -> bool:
        return position <= self.base or self.status[position - self.base] == _KEPT

    def _undo(self, changes: int, crossings: int) -> None:
        for position in self.changed[changes:]:
            self.status[position - self.base] = _UNDECIDED
        del self.changed[changes:]
        while len(self.crossing) > crossings:
            self.crossing.popitem()

    def _step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            near = self.graph.order[max(self.base, 0)].meta["qualname"]
            raise InvalidFrontier(
                f"too many cuts of width up to {self.width} in {self.graph.traced.name} behind {near} to list; "
                "lower max_width, or use granularity='block'"
            )
