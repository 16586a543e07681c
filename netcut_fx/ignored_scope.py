"""Where a network must not be cut, as its user says: by name, by module, by operation."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import fx

from netcut_fx.cut_search import Cut
from netcut_fx.cuts import Cuts
from netcut_fx.errors import InvalidFrontier
from netcut_fx.graph import TracedModule
from netcut_fx.module_calls import modules_around
from netcut_fx.tracing import operation_name


@dataclass(frozen=True)
class IgnoredScope:
    """Cuts to leave out: those where a tensor crosses that is in the scope.

    Parameters
    ----------
    names : tuple of str
        Exact names: of nodes, or of frontiers. A frontier where several tensors cross is left out alone; each of its
        tensors may still cross elsewhere.
    modules : tuple of str
        Shell patterns (`fnmatch`; ``*`` matches dots too) on module paths: all that is made in a module that matches,
        at any depth.
    operations : tuple of str
        Exact kinds of operations: the last part of a node's name (``add``, ``cat``), or the class of the module that it
        calls (``ReLU``).
    """

    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ignored:
    """An `IgnoredScope` in one network: why a tensor, by position, or a whole set of crossing tensors is left out."""

    tensors: dict[int, str] = field(default_factory=dict[int, str])
    crossings: dict[tuple[int, ...], str] = field(default_factory=dict[tuple[int, ...], str])

    @classmethod
    def of(cls, cuts: Cuts, scope: IgnoredScope | None) -> Ignored:
        """Find `scope` in the network of `cuts`.

        Raises
        ------
        InvalidFrontier
            If a part of it matches nothing there; says what may have been meant.
        """
        found = cls()
        if scope is not None:
            for name in scope.names:
                found._add_name(cuts, name)
            found._add_modules(cuts, scope.modules)
            found._add_operations(cuts, scope.operations)
        return found

    def reason(self, cut: Cut) -> str | None:
        """Why `cut` is left out; None if it is not."""
        for position in cut.crossing:
            if position in self.tensors:
                return self.tensors[position]
        return self.crossings.get(cut.crossing)

    def _add_name(self, cuts: Cuts, name: str) -> None:
        node, block = cuts.traced.by_qualname.get(name), cuts.block_cuts.get(name)
        parts = [cuts.traced.by_qualname.get(part) for part in name.split("+")]
        reason = f"ignored: its name {name} is in the ignored scope"
        if node is None and block is None and not all(parts):
            known = [*cuts.block_cuts, *cuts.traced.by_qualname]
            raise InvalidFrontier(
                f"ignored name {name!r} is no node or frontier of {cuts.traced.name}; "
                f"{_near(name, known) or 'list the names with netcut frontiers, or frontiers(traced)'}"
            )
        if node is not None and node.name in cuts.graph.position:
            self.tensors.setdefault(cuts.graph.position[node.name], reason)
        if block is not None and len(block.crossing) == 1:
            self.tensors.setdefault(block.crossing[0], reason)
        elif block is not None:
            self.crossings.setdefault(block.crossing, reason)
        if len(parts) > 1 and all(parts):
            positions = {cuts.graph.position.get(part.name, -1) for part in parts if part is not None}
            self.crossings.setdefault(tuple(sorted(positions)), reason)

    def _add_modules(self, cuts: Cuts, patterns: tuple[str, ...]) -> None:
        around = {node: _paths(node) for node in cuts.traced.nodes} if patterns else {}
        known = list(dict.fromkeys(path for paths in around.values() for path in paths))
        matching: dict[str, str] = {}
        for pattern in patterns:
            matched = [path for path in known if fnmatchcase(path, pattern)]
            if not matched:
                raise InvalidFrontier(
                    f"ignored modules {pattern!r} match no module of {cuts.traced.name}; "
                    f"{_near(pattern, known) or 'give a module path as in its node names, with * for any part'}"
                )
            for path in matched:
                matching.setdefault(path, pattern)
        for position, node in enumerate(cuts.graph.order):
            path = next((path for path in around.get(node, ()) if path in matching), None)
            if path is not None:
                self.tensors.setdefault(position, f"ignored: its module {path} matches {matching[path]!r}")

    def _add_operations(self, cuts: Cuts, operations: tuple[str, ...]) -> None:
        kinds = {node: operation_kind(cuts.traced, node) for node in cuts.traced.nodes} if operations else {}
        known = list(dict.fromkeys(kind for kind in kinds.values() if kind))
        for operation in operations:
            if operation not in known:
                raise InvalidFrontier(
                    f"ignored operation {operation!r} does not occur in {cuts.traced.name}; "
                    f"{_near(operation, known) or 'it has ' + ', '.join(sorted(known))}"
                )
        for position, node in enumerate(cuts.graph.order):
            if kinds.get(node) in operations:
                self.tensors.setdefault(position, f"ignored: it is the result of {kinds[node]}")


def operation_kind(traced: TracedModule, node: fx.Node) -> str | None:
    """Kind of operation: the class of the module that `node` calls, else what it does; None for inputs and weights."""
    if node.op == "call_module":
        return type(traced.graph_module.get_submodule(str(node.target))).__name__
    return operation_name(node) if node.op in ("call_function", "call_method") else None


def _paths(node: fx.Node) -> list[str]:
    """Paths of the modules that `node` is made in, outermost first; of the module that it calls last."""
    paths = [path for _, path, _ in modules_around(node)]
    return [*paths, str(node.target)] if node.op == "call_module" else paths


def _near(name: str, known: Iterable[str]) -> str | None:
    lowered: dict[str, str] = {}
    for other in known:
        lowered.setdefault(other.lower(), other)
    close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(repr(lowered[key]) for key in close)}?" if close else None
