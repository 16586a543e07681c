"""Channel sets: which channels of which convolutions can only go together, and who has to follow.

A channel that a convolution makes lives on through everything that treats channels apart (batch-norm, depthwise
convolutions, activations, pooling) until convolutions or linear layers read it. Additions make two such channels one;
a concatenation shifts them. So the closure of a convolution is a connected component: all convolutions whose channels
meet in an addition, all that the channels pass through, and all that read them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
from torch import fx, nn

from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.operation_kinds import argument, plain_name

#: Operations that treat every channel apart and keep their order.
_THROUGH: frozenset[str] = frozenset(
    name
    for names in (
        "relu relu6 leakyrelu elu selu celu silu mish gelu hardswish hardsigmoid hardtanh sigmoid tanh clamp clip",
        "softplus dropout alphadropout featuredropout identity contiguous clone",
        "maxpool avgpool adaptiveavgpool adaptivemaxpool",
    )
    for name in names.split()
)
_COUPLING = frozenset({"add", "iadd", "sub", "isub", "mul", "imul"})


@dataclass(frozen=True)
class ChannelSet:
    """Channels that are kept or dropped together; all nodes by qualified name, in execution order.

    Parameters
    ----------
    producers : tuple of str
        Convolutions that make them.
    through : tuple of (str, int)
        What they pass on the way, batch-norms and depthwise convolutions among it, and at which of its channels.
    consumers : tuple of (str, int)
        Convolutions and linear layers that read them, and at which of their input channels the set begins.
    channels : int
        How many.
    refused : str
        Why none of them can be dropped; ``""`` if they can.
    """

    producers: tuple[str, ...]
    through: tuple[tuple[str, int], ...]
    consumers: tuple[tuple[str, int], ...]
    channels: int
    refused: str = ""

    @property
    def nodes(self) -> frozenset[str]:
        """Every node concerned."""
        return frozenset({*self.producers, *(name for name, _ in (*self.through, *self.consumers))})


def channel_sets(traced: TracedModule) -> tuple[ChannelSet, ...]:
    """Every channel set that a convolution of `traced` makes, in execution order of its first producer."""
    return _Flow(traced).run()


#: A run of channels of a tensor: the node that made them and how many there are.
_Run = tuple[fx.Node, int]


@dataclass
class _Flow:
    traced: TracedModule
    runs: dict[fx.Node, tuple[_Run, ...]] = field(default_factory=dict[fx.Node, tuple[_Run, ...]])
    coupled: nx.Graph[fx.Node] = field(default_factory=nx.Graph)
    through: dict[fx.Node, list[tuple[str, int]]] = field(default_factory=dict[fx.Node, list[tuple[str, int]]])
    consumers: dict[fx.Node, list[tuple[str, int]]] = field(default_factory=dict[fx.Node, list[tuple[str, int]]])
    pinned: dict[fx.Node, str] = field(default_factory=dict[fx.Node, str])

    def run(self) -> tuple[ChannelSet, ...]:
        self.calls = Counter(str(node.target) for node in self.traced.nodes if node.op == "call_module")
        for node in self.traced.nodes:
            self._visit(node)
        order = {node: i for i, node in enumerate(self.traced.nodes)}
        components = [sorted(members, key=order.__getitem__) for members in nx.connected_components(self.coupled)]
        components.sort(key=lambda members: order[members[0]])
        return tuple(s for members in components if (s := self._set(members, order)) is not None)

    def _set(self, members: list[fx.Node], order: dict[fx.Node, int]) -> ChannelSet | None:
        producers = [node for node in members if self._is_full_convolution(node)]
        if not producers:
            return None
        index = {str(node.meta["qualname"]): i for node, i in order.items()}

        def collected(of: dict[fx.Node, list[tuple[str, int]]]) -> tuple[tuple[str, int], ...]:
            return tuple(sorted({c for node in members for c in of.get(node, ())}, key=lambda c: (index[c[0]], c[1])))

        through, consumers = collected(self.through), collected(self.consumers)
        reasons = [self.pinned[node] for node in members if node in self.pinned]
        reasons += [f"made by {node.meta['qualname']}" for node in members if node not in producers]
        channels = self.runs[producers[0]][0][1]
        refused = reasons[0] if reasons else "" if consumers else "nothing reads them"
        names = tuple(str(node.meta["qualname"]) for node in producers)
        return ChannelSet(names, through, consumers, channels, refused)

    def _visit(self, node: fx.Node) -> None:
        read = [source for source in node.all_input_nodes if source in self.runs]
        if node.op.startswith("call"):
            made = self._called(node, read)
            if made is not None:
                self.runs[node] = made
                return
        for source in read:
            self._pin(source, "returned" if node.op == "output" else f"read by {node.meta['qualname']}")
        spec = node.meta.get("spec")
        if isinstance(spec, TensorSpec) and len(spec.shape) > 1:
            self.coupled.add_node(node)
            self.runs[node] = ((node, spec.shape[1]),)

    def _called(self, node: fx.Node, read: list[fx.Node]) -> tuple[_Run, ...] | None:
        """What channels `node` yields; None where that is not understood."""
        spec, name = node.meta["spec"], plain_name(self.traced, node)
        if not isinstance(spec, TensorSpec) or len(spec.shape) < 2:
            return None
        if name in _COUPLING and len(read) == 2 and len(node.args) == 2 and not node.kwargs:
            return self._couple(node, read[0], read[1])
        if name == "cat" and len(read) == len(node.all_input_nodes) and argument(node, 1, "dim", "axis") == 1:
            inputs: Any = node.args[0]
            joined = tuple(run for source in inputs for run in self.runs[source])
            self._note(self.through, node, joined)
            return joined
        if len(read) != 1 or len(node.all_input_nodes) != 1:
            return None
        source = read[0]
        module = self.traced.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if module is not None and any(True for _ in module.parameters()) and self.calls[str(node.target)] > 1:
            return None  # what is called twice would have to follow two sets
        if self._is_full_convolution(node) or (isinstance(module, nn.Linear) and len(spec.shape) == 2):
            self._note(self.consumers, node, self.runs[source])
            self.coupled.add_node(node)
            return ((node, spec.shape[1]),)
        apart = isinstance(module, nn.BatchNorm2d) or name in _THROUGH or self._is_depthwise(module)
        if apart or self._flattens_single_pixels(node, source, name):
            self._note(self.through, node, self.runs[source])
            return self.runs[source]
        return None

    def _note(self, where: dict[fx.Node, list[tuple[str, int]]], node: fx.Node, runs: tuple[_Run, ...]) -> None:
        """Write down at which channel of `node` each run begins."""
        offset = 0
        for owner, channels in runs:
            where.setdefault(owner, []).append((node.meta["qualname"], offset))
            offset += channels

    def _couple(self, node: fx.Node, left: fx.Node, right: fx.Node) -> tuple[_Run, ...] | None:
        a, b = self.runs[left], self.runs[right]
        if [channels for _, channels in a] != [channels for _, channels in b]:
            return None
        for (one, _), (other, _) in zip(a, b, strict=True):
            self.coupled.add_edge(one, other)
        self._note(self.through, node, a)
        return a

    def _pin(self, source: fx.Node, why: str) -> None:
        for owner, _ in self.runs[source]:
            self.pinned.setdefault(owner, why)

    def _is_full_convolution(self, node: fx.Node) -> bool:
        if node.op != "call_module":
            return False
        module = self.traced.graph_module.get_submodule(str(node.target))
        return type(module) is nn.Conv2d and module.groups == 1 and self.calls[str(node.target)] == 1

    def _is_depthwise(self, module: nn.Module | None) -> bool:
        if type(module) is not nn.Conv2d or module.groups == 1:
            return False
        return module.groups == module.in_channels == module.out_channels

    def _flattens_single_pixels(self, node: fx.Node, source: fx.Node, name: str) -> bool:
        before, after = source.meta["spec"].shape, node.meta["spec"].shape
        if name == "mean":
            dims = argument(node, 1, "dim")
            return len(before) == 4 and isinstance(dims, (tuple, list)) and {d % 4 for d in dims} == {2, 3}  # pyright: ignore[reportUnknownVariableType, reportOperatorIssue]
        return name == "flatten" and len(before) == 4 and before[2:] == (1, 1) and after == before[:2]
