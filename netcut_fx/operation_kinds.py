"""What a node of the graph is, whether it calls a module, a function, a method or an ATen operator."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import fx

from netcut_fx.graph import Spec, TensorSpec, TracedModule

#: They need only the shape of a tensor, of all their arguments or of all but the first.
_SHAPE_ONLY = {"zeroslike", "oneslike", "emptylike", "fulllike", "newzeros", "newones", "newempty", "newfull", "size"}
_SHAPE_OF_OTHERS = {"expandas", "viewas", "reshapeas", "typeas"}
_SPATIAL = re.compile(r"[123]d")


def plain_name(traced: TracedModule, node: fx.Node) -> str:
    """One name for all forms of an operation: ``layernorm`` for ``LayerNorm``, ``layer_norm`` and ``aten.layer_norm``.

    Small letters only; ``1d``, ``2d`` and ``3d`` go, so do ``native`` in front and what names an overload. The name of
    a module is that of the class of ``torch.nn`` that it is or inherits from (``module`` if there is no closer one).
    """
    target: Any = node.target
    if node.op == "call_module":
        family = type(traced.graph_module.get_submodule(str(target))).__mro__
        name = next(kind.__name__ for kind in family if kind.__module__.startswith("torch.nn"))
    elif target is getattr:
        name = str(node.args[1])
    elif isinstance(target, torch._ops.OpOverload):  # pyright: ignore[reportPrivateUsage]
        name = target._schema.name.split("::")[-1]  # pyright: ignore[reportPrivateUsage]
    else:
        name = str(getattr(target, "__name__", target))
    return _SPATIAL.sub("", name.lower().replace("_", "")).removeprefix("native")


def is_torch(traced: TracedModule, node: fx.Node) -> bool:
    """Whether torch or Python defines what the node does, and not the network's author."""
    if node.op == "call_module":
        return type(traced.graph_module.get_submodule(str(node.target))).__module__.startswith("torch.nn")
    module = str(getattr(node.target, "__module__", None) or "torch")
    return node.op == "call_method" or module.partition(".")[0] in ("torch", "_operator", "builtins")


def argument(node: fx.Node, position: int, *names: str, default: Any = None) -> Any:
    """The argument at `position` (0 is the tensor itself, of a method too), or that with one of `names`."""
    if len(node.args) > position:
        return node.args[position]
    return next((node.kwargs[name] for name in names if name in node.kwargs), default)


def tensor_spec(node: fx.Node) -> TensorSpec | None:
    """The `TensorSpec` of what a node yields; of its first tensor if it yields several; None if it yields none."""
    spec: Spec = node.meta["spec"]
    while isinstance(spec, tuple):
        spec = next((part for part in spec if part is not None), None)
    return spec


def read_values(node: fx.Node, name: str) -> list[fx.Node]:
    """The nodes whose values, not only shapes, decide the value of `node`; `name` is its plain name."""
    if name in _SHAPE_ONLY:
        return []
    return node.all_input_nodes[:1] if name in _SHAPE_OF_OTHERS else node.all_input_nodes


def nodes_from_input(traced: TracedModule) -> set[fx.Node]:
    """The nodes whose value depends on that of an input: not parameters, sizes, nor what is computed from them."""
    found: set[fx.Node] = set()
    for node in traced.nodes:
        name = plain_name(traced, node) if node.op.startswith("call") else ""
        depends = node.op == "placeholder" or not found.isdisjoint(read_values(node, name))
        if depends and node.meta["spec"] is not None:
            found.add(node)
    return found


def indices(name: str, node: fx.Node, rank: int) -> list[Any] | None:
    """The indices of ``x[...]`` or ``x.select(dim, i)`` for an ``x`` of that rank; `name` is the node's plain name.

    One for each dimension: a slice where it stays, an int (or a node that is one) where it goes; None stands for a new
    dimension. The whole is None if a tensor or a list is an index.
    """
    if name == "select":
        dimension: Any = argument(node, 1, "dim")
        if not isinstance(dimension, int):
            return None
        return [argument(node, 2, "index") if d == dimension % rank else slice(None) for d in range(rank)]
    given: Any = argument(node, 1)
    items: list[Any] = [*given] if isinstance(given, tuple) else [given]
    if not all(i is None or i is ... or isinstance(i, (int, slice)) or is_number(i) for i in items):
        return None
    missing = rank - sum(i is not None and i is not ... for i in items)
    place = items.index(...) if ... in items else len(items)
    return [*items[:place], *[slice(None)] * missing, *items[place + 1 :]]


def is_number(index: Any) -> bool:
    """Whether an argument is a node that yields a size or another number, not a tensor."""
    return isinstance(index, fx.Node) and index.meta["spec"] is None
