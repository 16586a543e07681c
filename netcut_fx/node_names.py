"""Names of nodes that stay the same from trace to trace: where in the model a node is made, and what it does."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

from torch import fx
from torch._ops import OpOverload

_OPERATOR_NAMES = {operator.iadd: "add_", operator.isub: "sub_", operator.imul: "mul_", operator.itruediv: "div_"}


def operation_name(node: fx.Node) -> str:
    """Short name of what a node does: ``conv``, ``add``, ``flatten``, also for ATen overloads (``add`` of any kind)."""
    target: Any = node.target
    if node.op != "call_function":
        return str(target).rsplit(".", 1)[-1]
    if isinstance(target, OpOverload):
        return str(target.overloadpacket.__name__).lstrip("_")
    return _OPERATOR_NAMES.get(target) or str(getattr(target, "__name__", target)).strip("_")


def module_path(node: fx.Node) -> str:
    """Path of the innermost module whose ``forward`` contains this node (for a module call, its caller)."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values()]
    if node.op == "call_module" and paths and paths[-1] == node.target:
        paths.pop()
    return paths[-1] if paths else ""


def name_nodes(graph_module: fx.GraphModule) -> None:
    """Give each node without one a unique qualified name, in execution order so that names are stable."""
    used = {n.meta["qualname"] for n in graph_module.graph.nodes if "qualname" in n.meta}
    counts: Counter[str] = Counter()
    for node in graph_module.graph.nodes:
        if "qualname" in node.meta:
            continue
        path = module_path(node)
        node.meta["module_path"] = path
        if node.op in ("call_module", "get_attr", "placeholder", "output"):
            base = str(node.target)
        else:
            base = f"{path}.{operation_name(node)}" if path else operation_name(node)
        counts[base] += 1
        candidate = base if counts[base] == 1 else f"{base}#{counts[base]}"
        while candidate in used:
            counts[base] += 1
            candidate = f"{base}#{counts[base]}"
        used.add(candidate)
        node.meta["qualname"] = candidate
