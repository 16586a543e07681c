"""What the name of a cut means, or what is wrong with it in one line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from netcut_fx.cut_search import Cut, closure
from netcut_fx.cuts import Cuts
from netcut_fx.frontier_validity import crossing_problem, name_of, uncounted_problem
from netcut_fx.graph import TracedModule
from netcut_fx.ignored_scope import Ignored
from netcut_fx.module_calls import module_calls
from netcut_fx.tracing import module_path


@dataclass(frozen=True)
class CutNames:
    """Looks up names among `cuts`; those `ignored` are refused."""

    cuts: Cuts
    ignored: Ignored

    @property
    def traced(self) -> TracedModule:
        """The network."""
        return self.cuts.traced

    def look_up(self, name: str) -> tuple[Cut | None, str | None]:
        """The cut that `name` means, or why there is none."""
        graph = self.cuts.graph
        block = self.cuts.block_cuts.get(name)
        if block is not None and (self._names_block(name, block) or name not in self.traced.by_qualname):
            return self._checked(name, block)
        nodes = [self.traced.by_qualname.get(part) for part in name.split("+")]
        if all(nodes):
            found = [node for node in nodes if node is not None]
            left_out = next((n for n in found if n.name not in graph.position), None)
            if left_out is not None:
                return self._refused(name, uncounted_problem(graph, left_out))
            return self._at_positions(name, sorted({graph.position[n.name] for n in found}))
        for call in module_calls(graph).root.walk():
            if call.path and call.path == name:
                inside = range(call.first, call.last + 1)
                ends = [p for p in inside if any(user > call.last for user in graph.users[p])]
                return self._checked(name, closure(graph, ends or [call.last]))
        if any(f"{qualname}.".startswith(f"{name}.") for qualname in self.traced.by_qualname):
            return self._refused(name, "nothing in it comes from an input and reaches the output")
        return None, self._unknown(name)

    def _names_block(self, name: str, block: Cut) -> bool:
        return self.cuts.valid_block_cuts.get(block.crossing, ("", None))[0] == name

    def _at_positions(self, name: str, positions: Sequence[int]) -> tuple[Cut | None, str | None]:
        graph = self.cuts.graph
        for position in positions:
            problem = crossing_problem(graph, position)
            if problem is not None:
                whose = "" if len(positions) == 1 else f"{name_of(graph.order[position])}: "
                return self._refused(name, whose + problem)
        cut = closure(graph, positions)
        others = [name_of(graph.order[p]) for p in cut.crossing if p not in positions]
        unused = [name_of(graph.order[p]) for p in positions if p not in cut.crossing]
        if others:
            plural = len(others) > 1
            problem = (
                f"other tensor{'s' if plural else ''} {', '.join(others)} also cross{'' if plural else 'es'}: "
                f"width {len(cut.crossing)}"
            )
            if self._problem(cut) is None:
                full = self.cuts.name(cut)
                return None, f"cannot cut {self.traced.name} at {name}: {problem}; to cut there say {full!r}"
            return self._refused(name, problem)
        if unused and len(unused) < len(positions):
            return self._refused(name, f"{', '.join(unused)} does not cross: all its users are kept")
        return self._checked(name, cut)

    def _problem(self, cut: Cut) -> str | None:
        return self.cuts.problem(cut) or self.ignored.reason(cut)

    def _checked(self, name: str, cut: Cut) -> tuple[Cut | None, str | None]:
        problem = self._problem(cut)
        return (cut, None) if problem is None else self._refused(name, problem)

    def _refused(self, name: str, problem: str) -> tuple[None, str]:
        return None, f"cannot cut {self.traced.name} at {name}: {problem}; {self._nearest(name)}"

    def _nearest(self, name: str) -> str:
        """The valid single-tensor cuts next to a node or module."""
        order = {node: i for i, node in enumerate(self.traced.nodes)}
        parts = [n for part in name.split("+") if (n := self.traced.by_qualname.get(part)) is not None]
        parts = parts or [n for n in self.traced.nodes if f"{module_path(n)}.".startswith(f"{name}.")]
        place = max((order[n] for n in parts), default=0)
        cuts = self.cuts.anywhere(1, ignored=self.ignored.tensors)
        singles = [self.cuts.graph.order[cut.crossing[0]] for cut in cuts if cut.crossing not in self.ignored.crossings]
        before = [n for n in singles if order[n] < place]
        behind = [n for n in singles if order[n] > place]
        names = [repr(name_of(n)) for n in (*before[-1:], *behind[:1])]
        return (
            f"the nearest single tensor to cut at is {' or '.join(names)}"
            if names
            else "no single tensor can be cut at"
        )

    def _unknown(self, name: str) -> str:
        paths = (call.path for call in module_calls(self.cuts.graph).root.walk() if call.path)
        known = list(dict.fromkeys([*self.cuts.block_cuts, *self.traced.by_qualname, *paths]))
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?"
            if close
            else "list the names with netcut frontiers, or frontiers(traced)"
        )
        return f"no node or module {name!r} in {self.traced.name}; {hint}"
