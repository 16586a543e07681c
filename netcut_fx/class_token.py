"""Where a network keeps a class token: a learnt token in front of the others, which alone is read in the end.

The token begins in a concatenation along dimension 1 whose first operand is computed from parameters alone, and it is
read where index 0 of that dimension is selected. Concatenating it anew (registers between it and the patches, or the
rounds of class attention) continues it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import fx

from netcut_fx.channel_axis import channels_are_last
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.operation_kinds import argument, indices, nodes_from_input, plain_name, read_values

#: They compute each token from itself. Behind any other operation the class token is taken to know the image.
_MOVING = {
    "cat",
    "concat",
    "concatenate",
    "getitem",
    "slice",
    "expand",
    "to",
    "float",
    "typeas",
    "contiguous",
    "clone",
    "alias",
    "detach",
}
_COMPUTING = {
    "add",
    "iadd",
    "sub",
    "isub",
    "mul",
    "imul",
    "div",
    "truediv",
    "linear",
    "layernorm",
    "rmsnorm",
    "gelu",
    "relu",
    "silu",
    "dropout",
    "identity",
}
_TOKEN_BY_TOKEN = _MOVING | _COMPUTING


@dataclass
class ClassTokens:
    """The class tokens of one network; `class_tokens` finds them.

    Parameters
    ----------
    traced : TracedModule
    start : dict
        For a node, the latest concatenation with a class token that its value comes from.
    informed : set
        The nodes of these whose class token has seen other tokens. Before, it is the same for every image.
    read : set
        The concatenations whose class token is read later on.
    """

    traced: TracedModule
    start: dict[fx.Node, fx.Node] = field(default_factory=dict[fx.Node, fx.Node])
    informed: set[fx.Node] = field(default_factory=set[fx.Node])
    read: set[fx.Node] = field(default_factory=set[fx.Node])

    def holds(self, node: fx.Node) -> bool:
        """Whether `node` yields all tokens ``(N, T, C)``, the class token first."""
        start = self.start.get(node)
        if start is None:
            return False
        shape = _shape(node)
        return len(shape) == 3 and shape[:2] == _shape(start)[:2] and channels_are_last(self.traced, node)

    def suggested(self, node: fx.Node) -> bool:
        """Whether the network reads the class token of `node`, and it depends on the image there."""
        return node in self.informed and self.start[node] in self.read and self.holds(node)


def class_tokens(traced: TracedModule) -> ClassTokens:
    """The `ClassTokens` of `traced`, found in one sweep and kept with it."""
    kept: dict[str, object] = traced.__dict__
    found = kept.get("_class_tokens")
    if not isinstance(found, ClassTokens):
        kept["_class_tokens"] = found = _found(traced)
    return found


def _found(traced: TracedModule) -> ClassTokens:
    tokens = ClassTokens(traced)
    from_input = nodes_from_input(traced)
    first_operand: dict[fx.Node, fx.Node] = {}
    order: dict[fx.Node, int] = {}
    for node in traced.nodes:
        if node.op == "output":
            break
        order[node] = len(order)
        name = plain_name(traced, node) if node.op.startswith("call") else ""
        operands = read_values(node, name)
        followed = [o for o in operands if o in tokens.start]
        first = _first_of_concatenation(node, name) if node in from_input else None
        if first is not None and (first not in from_input or (first in tokens.start and _shape(first)[1] == 1)):
            first_operand[node] = first
            tokens.start[node] = node
        elif followed and node.meta["spec"] is not None:
            tokens.start[node] = max((tokens.start[o] for o in followed), key=order.__getitem__)
        if followed and (name not in _TOKEN_BY_TOKEN or not tokens.informed.isdisjoint(followed)):
            tokens.informed.add(node)
        if followed and _reads_first(node, name) and tokens.holds(followed[0]):
            tokens.read.add(tokens.start[followed[0]])
        if node in tokens.start and node.meta.get("pool") == "class-token":
            # Here the network was cut off; its source read the class token behind.
            tokens.read.add(tokens.start[node])
    for node, first in reversed(first_operand.items()):
        if node in tokens.read and first in tokens.start:
            tokens.read.add(tokens.start[first])
    return tokens


def _first_of_concatenation(node: fx.Node, name: str) -> fx.Node | None:
    """The first of several tensors ``(N, T, C)`` that are concatenated along T."""
    if name not in ("cat", "concat", "concatenate") or len(_shape(node)) != 3:
        return None
    parts: Any = argument(node, 0, "tensors")
    along = argument(node, 1, "dim", "axis", default=0) in (1, -2)
    return parts[0] if along and isinstance(parts, (tuple, list)) and isinstance(parts[0], fx.Node) else None


def _reads_first(node: fx.Node, name: str) -> bool:
    """Whether a node is ``x[:, 0]`` for an ``x`` of three dimensions."""
    if name not in ("getitem", "select") or len(_shape(node.all_input_nodes[0])) != 3:
        return False
    return indices(name, node, 3) == [slice(None), 0, slice(None)]


def _shape(node: fx.Node) -> tuple[int, ...]:
    """Shape of the one tensor that a node yields; empty if it yields none, or several."""
    spec = node.meta["spec"]
    return spec.shape if isinstance(spec, TensorSpec) else ()
