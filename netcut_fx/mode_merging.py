"""One graph out of two traces of the same model, in eval and in training mode: see `netcut_fx.modes`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from netcut_fx.modes import ByMode


def merge_training(network: fx.GraphModule, training: fx.GraphModule) -> bool:
    """Let `network`, traced in eval mode, also do what `training`, traced in training mode, does.

    Both must have the same nodes in the same order. Copies that make a tensor contiguous are excepted: torch.export
    leaves them out where they do nothing, which may be so in one mode only.

    Returns
    -------
    bool
        False, and nothing is changed, if they differ in more than constants.
    """
    merge = _Merge(network, training)
    try:
        merge.run()
    except _StructureDiffers:
        return False
    if merge.made:
        network.add_module(merge.home, nn.Module())
        for path, module in merge.made.values():
            network.add_submodule(path, module)
    network.graph = merge.graph
    return True


def settle_in_eval(graph_module: fx.GraphModule) -> None:
    """Put the constants of evaluation in place of every `ByMode`, in place: what is compiled never learns again."""
    for node in tuple(graph_module.graph.nodes):
        module = graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, ByMode):
            for user in tuple(node.users):
                user.args = _replaced(user.args, node, module.in_evaluation)
                user.kwargs = _replaced(user.kwargs, node, module.in_evaluation)
            graph_module.graph.erase_node(node)


class _Merge:
    def __init__(self, network: fx.GraphModule, training: fx.GraphModule) -> None:
        self.network = network
        self.training = training
        self.graph = fx.Graph()
        #: Nodes of either graph -> nodes of the merged one.
        self.ours: dict[fx.Node, fx.Node] = {}
        self.theirs: dict[fx.Node, fx.Node] = {}
        #: A contiguous copy in the merged graph -> what it copies.
        self.copied: dict[fx.Node, fx.Node] = {}
        self.home = "by_mode"
        while hasattr(network, self.home):
            self.home += "_"
        self.made: dict[tuple[Any, ...], tuple[str, ByMode]] = {}
        self.nodes: dict[tuple[Any, ...], fx.Node] = {}

    def run(self) -> None:
        ours, theirs = iter(self.network.graph.nodes), iter(self.training.graph.nodes)
        node, other = next(ours, None), next(theirs, None)
        while node is not None and other is not None:
            if _is_copy(node) is _is_copy(other):
                self._pair(node, other)
                node, other = next(ours, None), next(theirs, None)
            elif _is_copy(node):
                self._copy_of_one(node, self.ours)
                node = next(ours, None)
            else:
                self._copy_of_one(other, self.theirs)
                other = next(theirs, None)
        if node is not other:
            raise _StructureDiffers

    def _pair(self, node: fx.Node, other: fx.Node) -> None:
        if node.op != other.op or not self._same_target(node, other):
            raise _StructureDiffers
        (args, kwargs), (other_args, other_kwargs) = _full_arguments(node, other)
        args, kwargs = self._merged(args, other_args), self._merged(kwargs, other_kwargs)
        made = self.graph.create_node(node.op, node.target, args, kwargs, node.name, node.type)
        made.meta = dict(node.meta)
        self.ours[node] = self.theirs[other] = made

    def _copy_of_one(self, node: fx.Node, values: dict[fx.Node, fx.Node]) -> None:
        source = values[node.all_input_nodes[0]]
        values[node] = made = self.graph.node_copy(node, lambda _: source)
        self.copied[made] = source

    def _same_target(self, node: fx.Node, other: fx.Node) -> bool:
        if node.op != "get_attr":
            return node.target == other.target
        one, two = attribute_at(self.network, str(node.target)), attribute_at(self.training, str(other.target))
        if one is two:
            return True
        same_kind = isinstance(one, Tensor) and isinstance(two, Tensor) and one.dtype == two.dtype
        return same_kind and one.shape == two.shape and (one.is_meta or torch.equal(one, two))

    def _merged(self, value: Any, other: Any) -> Any:
        """The argument in the merged graph: the value of a `ByMode` where the two constants differ."""
        if isinstance(value, fx.Node) or isinstance(other, fx.Node):
            return self._merged_node(value, other)
        if isinstance(value, (tuple, list)) and isinstance(other, (tuple, list)):
            if len(value) != len(other):
                raise _StructureDiffers
            return type(value)(self._merged(a, b) for a, b in zip(value, other, strict=True))
        if isinstance(value, dict) and isinstance(other, dict):
            if list(value) != list(other):
                raise _StructureDiffers
            return {key: self._merged(part, other[key]) for key, part in value.items()}
        if isinstance(value, slice) and isinstance(other, slice):
            ends = zip((value.start, value.stop, value.step), (other.start, other.stop, other.step), strict=True)
            return slice(*(self._merged(a, b) for a, b in ends))
        if type(value) is type(other) and (value is other or value == other or repr(value) == repr(other)):
            return value
        return self._by_mode(value, other)

    def _merged_node(self, value: Any, other: Any) -> fx.Node:
        if not isinstance(value, fx.Node) or not isinstance(other, fx.Node):
            raise _StructureDiffers
        one, two = self.ours[value], self.theirs[other]
        if one is two or self.copied.get(one) is two:
            return one
        if self.copied.get(two) is one:
            return two
        raise _StructureDiffers

    def _by_mode(self, value: Any, other: Any) -> fx.Node:
        # True equals 1 and 1.0, but operations treat them differently.
        key = (type(value), repr(value), type(other), repr(other))
        if key not in self.made:
            path = f"{self.home}.{len(self.made)}"
            self.made[key] = path, ByMode(train=other, eval=value).eval()
            self.nodes[key] = self.graph.call_module(path)
        return self.nodes[key]


def _replaced(arguments: Any, node: fx.Node, constant: Any) -> Any:
    return fx.map_arg(arguments, lambda argument: constant if argument is node else argument)


class _StructureDiffers(Exception):
    pass


def attribute_at(root: nn.Module, path: str) -> Any:
    """The attribute of `root` with this path, or None."""
    value: Any = root
    for part in path.split("."):
        value = getattr(value, part, None)
    return value


def _is_copy(node: fx.Node) -> bool:
    return node.target in ("contiguous", torch.ops.aten.contiguous.default) and len(node.all_input_nodes) == 1


def _full_arguments(node: fx.Node, other: fx.Node) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments of two calls; of ATen overloads, all that either of them gives, so that defaults can be compared."""
    if not isinstance(node.target, OpOverload):
        yield node.args, dict(node.kwargs)
        yield other.args, dict(other.kwargs)
        return
    schema = node.target._schema.arguments  # pyright: ignore[reportPrivateUsage]
    positional = [argument for argument in schema if not argument.kwarg_only]
    length = max(len(node.args), len(other.args))
    names = [a.name for a in schema if a.name in {*node.kwargs, *other.kwargs} - {a.name for a in positional[:length]}]
    defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
    for call in (node, other):
        given = {**defaults, **dict(zip((a.name for a in positional), call.args, strict=False)), **call.kwargs}
        yield tuple(given[a.name] for a in positional[:length]), {name: given[name] for name in names}
