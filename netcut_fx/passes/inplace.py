"""Which operations write into their input, which results may share memory, and so which nodes matter."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable
from typing import Any

from torch import fx, nn
from torch.nn import functional

from netcut_fx.graph import TensorSpec

_WRITING_OPERATORS = {
    operator.iadd,
    operator.isub,
    operator.imul,
    operator.itruediv,
    operator.ifloordiv,
    operator.imod,
    operator.ipow,
    operator.iand,
    operator.ior,
    operator.ixor,
    operator.setitem,
}
#: Functions with an ``inplace`` flag, and where it stands when it is not given by name.
_FLAG_POSITION: dict[Any, int] = {
    functional.relu: 1,
    functional.relu6: 1,
    functional.elu: 2,
    functional.celu: 2,
    functional.selu: 1,
    functional.silu: 1,
    functional.mish: 1,
    functional.hardswish: 1,
    functional.hardsigmoid: 1,
    functional.leaky_relu: 2,
    functional.rrelu: 4,
    functional.hardtanh: 3,
    functional.threshold: 3,
    functional.dropout: 3,
    functional.alpha_dropout: 3,
    functional.dropout1d: 3,
    functional.dropout2d: 3,
    functional.dropout3d: 3,
}
_VIEWS = {
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "transpose",
    "permute", "t", "swapaxes", "swapdims", "movedim", "moveaxis", "expand", "expand_as", "broadcast_to", "narrow",
    "select", "chunk", "split", "tensor_split", "unbind", "diagonal", "unfold", "as_strided", "detach", "contiguous",
    "to", "float", "type_as", "type", "getitem", "getattr", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "alpha_dropout", "feature_alpha_dropout", "stochastic_depth", "identity", "real", "imag", "half", "double",
    "bfloat16", "cpu", "cuda", "view_as_real", "view_as_complex", "hsplit", "vsplit", "dsplit", "split_with_sizes",
    "unsafe_split", "unsafe_chunk", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "adjoint",
    "rearrange", "channel_shuffle",
}  # fmt: skip
_VIEW_MODULES = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def written_input(graph_module: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The input that `node` overwrites, or None: ``x += y``, ``x.relu_()``, ``nn.ReLU(inplace=True)``, ``out=``."""
    out = node.kwargs.get("out")
    if isinstance(out, fx.Node):
        return out
    target = node.args[0] if node.args else node.kwargs.get("input")
    if not isinstance(target, fx.Node) or not isinstance(target.meta.get("spec"), TensorSpec):
        return None
    if node.op == "call_module":
        return target if getattr(graph_module.get_submodule(str(node.target)), "inplace", False) is True else None
    if node.op == "call_method":
        name = str(node.target)
        return target if (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" else None
    if node.op == "call_function":
        position = _FLAG_POSITION.get(node.target)
        flag = node.args[position] if position is not None and len(node.args) > position else False
        name = str(getattr(node.target, "__name__", ""))
        if node.kwargs.get("inplace", flag) is True or node.target in _WRITING_OPERATORS:
            return target
        return target if name.endswith("_") and not name.endswith("__") else None
    return None


def alias_groups(graph_module: fx.GraphModule) -> dict[fx.Node, int]:
    """Number nodes so that two whose results may share memory have the same number; rather too many than too few.

    Linear in the number of edges.
    """
    parent: dict[fx.Node, fx.Node] = {}

    def root(node: fx.Node) -> fx.Node:
        while parent[node] is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for node in graph_module.graph.nodes:
        parent[node] = node
        written = written_input(graph_module, node)
        if written is not None:
            parent[root(node)] = root(written)
        if _is_view(graph_module, node):
            for source in node.all_input_nodes:
                parent[root(source)] = root(node)
    numbers: dict[fx.Node, int] = {}
    return {node: numbers.setdefault(root(node), len(numbers)) for node in parent}


def written_groups(graph_module: fx.GraphModule) -> dict[int, list[fx.Node]]:
    """The nodes that write into each group of `alias_groups`, in execution order; untouched groups are absent."""
    groups = alias_groups(graph_module)
    writers: dict[int, list[fx.Node]] = {}
    for node in graph_module.graph.nodes:
        written = written_input(graph_module, node)
        if written is not None:
            writers.setdefault(groups[written], []).append(node)
    return writers


def needed_nodes(graph_module: fx.GraphModule, results: Iterable[fx.Node] | None = None) -> set[fx.Node]:
    """Nodes that influence `results` (default: what the network returns), writes into shared memory included.

    A write counts only if a needed node reads that memory afterwards, so an in-place operation behind a cut is not
    needed by it. Inputs are always needed; assertions, which yield nothing, never are.
    """
    groups = alias_groups(graph_module)
    wanted = {graph_module.graph.output_node()} if results is None else set(results)
    needed: set[fx.Node] = set()
    read_later: set[int] = set()
    for node in reversed(graph_module.graph.nodes):
        written = written_input(graph_module, node)
        writes = written is not None and groups[written] in read_later
        if node in wanted or node in needed or node.op == "placeholder" or writes:
            needed.add(node)
            needed.update(node.all_input_nodes)
            read_later.update(groups[source] for source in node.all_input_nodes)
    return needed


def writers_after(graph_module: fx.GraphModule, nodes: Collection[fx.Node], kept: Collection[fx.Node]) -> list[fx.Node]:
    """Those of `kept` that would overwrite the result of one of `nodes` after it was made."""
    groups = alias_groups(graph_module)
    found: list[fx.Node] = []
    made: set[int] = set()
    for node in graph_module.graph.nodes:
        written = written_input(graph_module, node)
        if node in kept and written is not None and groups[written] in made and node not in nodes:
            found.append(node)
        if node in nodes:
            made.add(groups[node])
    return found


def _is_view(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(graph_module.get_submodule(str(node.target)), _VIEW_MODULES)
    if node.op == "call_method":
        return str(node.target) in _VIEWS
    return node.op == "call_function" and str(getattr(node.target, "__name__", "")) in _VIEWS
