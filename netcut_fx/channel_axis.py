"""Which dimension of each tensor of a network holds its channels, found by following the data.

Convolutions and batch-norm have their channels in dimension 1; layer norm and embeddings in the last. Linear layers
and attention have them in the last and poolings in dimension 1 unless it is known already where they are: a linear
layer on ``(N, C, T)`` mixes positions. Elementwise operations pass them through, permutations move them, and a reshape
merges and splits them. What no earlier operation tells, the later ones do: what a convolution reads has its channels
in dimension 1. Three sweeps over the graph, no recursion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import fx

from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.operation_kinds import argument, indices, is_torch, nodes_from_input, plain_name, tensor_spec

#: Dimensions that hold channels; more than one where a reshape has split them into heads or groups.
Axes = frozenset[int]
Shape = tuple[int, ...]

#: Plain name of an operation -> what it says or does about channels. Any other operation passes them through.
_KINDS: dict[str, str] = {
    name: kind
    for kind, names in {
        "first": "conv convtranspose convolution batchnorm syncbatchnorm instancenorm groupnorm localresponsenorm "
        "pixelshuffle pixelunshuffle channelshuffle",
        "first unless known": "maxpool avgpool adaptivemaxpool adaptiveavgpool lppool maxpoolwithindices interpolate "
        "upsample upsamplenearest upsamplebilinear upsamplebicubic",
        "last": "layernorm rmsnorm embedding",
        "last unless known": "linear multiheadattention transformerencoderlayer transformerencoder lstm gru rnn",
        "reshape": "view viewas reshape reshapeas unsafeview flatten unflatten squeeze unsqueeze",
        "permute": "permute transpose swapaxes swapdims movedim moveaxis t mt",
        "index": "getitem select",
        "reduce": "mean sum amax amin max min std var prod logsumexp norm linalgvectornorm",
        "unbind": "unbind",
        "stack": "stack",
        "matmul": "matmul bmm baddbmm",
        "unknown": "einsum tensordot unfold fold im2col",
    }.items()
    for name in names.split()
}


def channels_are_last(traced: TracedModule, node: fx.Node) -> bool:
    """Whether the last dimension of what `node` yields holds the channels, and not dimension 1.

    Where nothing tells, 3-d tensors are taken for tokens ``(N, T, C)`` and others for ``(N, C, ...)``. The network is
    swept once, and the result kept with it. `node` yields a tensor of at least two dimensions.
    """
    spec = tensor_spec(node)
    assert spec is not None
    last = len(spec.shape) - 1
    held = [d for d in dict.fromkeys((1, last)) if d in _axes(traced).get(node, ())]
    if len(held) == 2 and spec.shape[1] != spec.shape[last]:
        # Heads or groups and what each of them holds: the longer ones tell more.
        held.sort(key=lambda d: spec.shape[d])
        del held[0]
    return held[0] == last if len(held) == 1 else last == 2


def _axes(traced: TracedModule) -> dict[fx.Node, Axes]:
    kept: dict[str, Any] = traced.__dict__
    found: dict[fx.Node, Axes] | None = kept.get("_channel_axes")
    if found is None:
        kept["_channel_axes"] = found = _Sweeps(traced).run()
    return found


@dataclass
class _Sweeps:
    traced: TracedModule
    axes: dict[fx.Node, Axes] = field(default_factory=dict[fx.Node, Axes])

    def run(self) -> dict[fx.Node, Axes]:
        # What parameters alone decide, such as a table of position biases, tells nothing about the features.
        from_input = nodes_from_input(self.traced)
        nodes = [node for node in self.traced.nodes if node.op != "output" and node in from_input]
        self.names = {n: plain_name(self.traced, n) if n.op.startswith("call") else "" for n in nodes}
        self.kinds = {n: _KINDS.get(name, "pass") for n, name in self.names.items()}
        for sweep, order in ((self._made, nodes), (self._wanted, nodes[::-1]), (self._made, nodes)):
            for node in order:
                spec = tensor_spec(node)
                found = sweep(node, spec.shape) if spec and len(spec.shape) > 1 and node not in self.axes else None
                if found:
                    self.axes[node] = found
        return self.axes

    def _made(self, node: fx.Node, shape: Shape) -> Axes | None:
        """Where a node puts the channels, from where they are in what it reads."""
        kind, last = self.kinds[node], len(shape) - 1
        if kind in ("first", "last") and not self._normalises_several(node):
            return frozenset({1 if kind == "first" else last})
        if kind == "matmul":
            return self._multiplied(node, last)
        for source in node.all_input_nodes:
            before = tensor_spec(source)
            if before is None or source not in self.axes:
                continue
            if kind == "reshape":
                return _reshaped(before.shape, shape, self.axes[source])
            origin = self._origin(node, source, before.shape, shape)
            if origin is not None:
                return frozenset(d for d, old in enumerate(origin) if old in self.axes[source])
        if kind.endswith("unless known"):
            return frozenset({1 if kind.startswith("first") else last})
        return None

    def _wanted(self, node: fx.Node, shape: Shape) -> Axes | None:
        """Where those who read a node take its channels to be."""
        for user in node.users:
            kind = self.kinds.get(user, "unknown")
            after = tensor_spec(user)
            if after is None or user not in self.axes:
                continue
            if kind.startswith(("first", "last")):
                if user.all_input_nodes[0] is node and not self._normalises_several(user):
                    return frozenset({1 if kind.startswith("first") else len(shape) - 1})
            elif kind == "reshape":
                return _reshaped(after.shape, shape, self.axes[user])
            else:
                origin = self._origin(user, node, shape, after.shape)
                if origin is not None:
                    return frozenset(old for d, old in enumerate(origin) if old is not None and d in self.axes[user])
        return None

    def _origin(self, node: fx.Node, source: fx.Node, before: Shape, after: Shape) -> list[int | None] | None:
        """For each dimension that `node` yields, the one of `source` that it was; None if that cannot be told."""
        kind, rank = self.kinds[node], len(before)
        moved: list[int | None] | None = None
        if kind == "permute":
            moved = _permutation(self.names[node], node, rank)
        elif kind == "stack":
            moved = [*range(rank)]
            moved.insert(_plain(argument(node, 1, "dim", default=0), rank + 1), None)
        elif kind == "index" and isinstance(source.meta["spec"], TensorSpec):
            moved = _indexed(indices(self.names[node], node, rank))
        elif kind == "unbind":
            gone = _plain(argument(node, 1, "dim", default=0), rank)
            moved = [d for d in range(rank) if d != gone]
        elif kind == "reduce" and len(after) < rank:
            moved = _reduced(argument(node, 1, "dim", "axis"), rank)
        elif kind != "unknown" and (is_torch(self.traced, node) or before == after):
            moved = [*range(rank)]
        return moved if moved is not None and len(moved) == len(after) else None

    def _multiplied(self, node: fx.Node, last: int) -> Axes | None:
        """Rows come from the left operand, columns from the right one."""
        found = [self._same_rank(operand, last + 1) for operand in node.all_input_nodes[-2:]]
        left, right = (found[0], found[-1])
        if right is None:
            # A matrix of weights: a linear layer.
            return left or frozenset({last})
        return ((left or frozenset()) - {last}) | (right - {last - 1})

    def _same_rank(self, operand: fx.Node, rank: int) -> Axes | None:
        spec = tensor_spec(operand)
        return self.axes.get(operand) if spec is not None and len(spec.shape) == rank else None

    def _normalises_several(self, node: fx.Node) -> bool:
        """Whether a layer norm takes statistics over more than the last dimension: it then says nothing."""
        if self.names[node] not in ("layernorm", "rmsnorm"):
            return False
        given: Any = argument(node, 1, "normalized_shape")
        if node.op == "call_module":
            given = self.traced.graph_module.get_submodule(str(node.target)).normalized_shape
        return isinstance(given, (tuple, list)) and len(given) != 1  # pyright: ignore[reportUnknownArgumentType]


def _plain(dimension: Any, rank: int) -> int:
    return dimension % rank if isinstance(dimension, int) else 0


def _permutation(name: str, node: fx.Node, rank: int) -> list[int | None] | None:
    if name == "permute":
        given: Any = argument(node, 1, "dims")
        dims: list[Any] = list(node.args[1:]) if isinstance(given, int) else list(given)
        return [d % rank for d in dims] if all(isinstance(d, int) for d in dims) else None
    last_two = name in ("t", "mt")
    a: Any = -2 if last_two else argument(node, 1, "dim0", "axis0", "source")
    b: Any = -1 if last_two else argument(node, 2, "dim1", "axis1", "destination")
    if not isinstance(a, int) or not isinstance(b, int):
        return None
    order: list[int | None] = [*range(rank)]
    if name in ("movedim", "moveaxis"):
        order.insert(b % rank, order.pop(a % rank))
    else:
        order[a], order[b] = order[b], order[a]
    return order


def _indexed(given: list[Any] | None) -> list[int | None] | None:
    if given is None:
        return None
    origin: list[int | None] = []
    dimension = 0
    for index in given:
        if index is None:
            origin.append(None)
            continue
        if isinstance(index, slice):
            origin.append(dimension)
        dimension += 1
    return origin


def _reduced(given: Any, rank: int) -> list[int | None] | None:
    dims: list[Any] = [given] if isinstance(given, int) else [*(given or ())]
    if not all(isinstance(d, int) for d in dims):
        return None
    gone = {d % rank for d in dims}
    return [d for d in range(rank) if d not in gone]


def _reshaped(before: Shape, after: Shape, axes: Axes) -> Axes | None:
    """Where a reshape takes the dimensions `axes`: runs of dimensions with equal products belong together."""
    if 0 in before:
        return None
    found: set[int] = set()
    i = j = 0
    while i < len(before) and j < len(after):
        first, start = i, j
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        if any(d in axes and (before[d] > 1 or left == 1) for d in range(first, i)):
            long = [d for d in range(start, j) if after[d] > 1] or [start]
            # A batch that was merged with channels and is split again has none of them.
            found.update(long if len(long) == 1 else (d for d in long if d))
    return frozenset(found)
