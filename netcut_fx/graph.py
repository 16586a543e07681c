"""The traced network: an fx graph with shapes and stable names, and its networkx view."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import networkx as nx
import torch
from torch import fx, nn


@dataclass(frozen=True)
class TensorSpec:
    """Shape and element type of one tensor, batch dimension included."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.numel * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}[{', '.join(str(n) for n in self.shape)}]"


#: What a node yields: one tensor, several (nested), or something that is no tensor (an int, a size, None).
Spec = TensorSpec | tuple["Spec", ...] | None


def spec_of(value: Any) -> Spec:
    """The `Spec` of a concrete value."""
    if isinstance(value, torch.Tensor):
        return TensorSpec(tuple(value.shape), value.dtype)
    if isinstance(value, dict):
        return tuple(spec_of(v) for v in value.values())  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return tuple(spec_of(v) for v in value)  # pyright: ignore[reportUnknownVariableType]
    return None


def state_hash(module: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of all parameters and buffers of `module`.

    Buffers that are not persistent, and so not in its state dict, count as well; a shared tensor counts under each of
    its names.
    """
    digest = hashlib.sha256()
    held: dict[str, torch.Tensor] = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    for name, tensor in sorted(held.items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
        if not tensor.is_meta:
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


#: Key in ``graph_module.meta``: what traced the network.
TRACED_BY = "netcut_fx.traced_by"


@dataclass(frozen=True)
class TracedModule:
    """A network as an fx graph. Treat it as immutable: passes return a new one with its own weights.

    Every node carries in ``node.meta``

    ``"spec"``
        its `Spec`;
    ``"qualname"``
        its stable, unique, qualified name: the module path for a module call (``features.3.conv``), the path of the
        enclosing module plus the operation for a function (``features.3.add``), ``#2`` appended to a second use;
    ``"module_path"``
        path of the innermost module whose ``forward`` made it (``""`` for the root);
    ``"nn_module_stack"``
        as torch.fx records it: call -> (path, class) of the modules around it, outermost first. The class is a type, or
        its dotted name in networks that torch.export traced.

    There is one placeholder for each tensor of the example inputs. Constants that differ between training and
    evaluation are the values of `netcut_fx.modes.ByMode` modules, so that ``graph_module.train()`` has its meaning.

    Parameters
    ----------
    graph_module : torch.fx.GraphModule
        Own copy of weights; in eval mode.
    name : str
        What to call the network in reports.
    """

    graph_module: fx.GraphModule
    name: str

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        """All nodes in execution order."""
        return tuple(self.graph_module.graph.nodes)

    @cached_property
    def by_name(self) -> dict[str, fx.Node]:
        """Nodes by fx name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def by_qualname(self) -> dict[str, fx.Node]:
        """Nodes by qualified name."""
        return {node.meta["qualname"]: node for node in self.nodes}

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """Placeholders, in order."""
        return tuple(node for node in self.nodes if node.op == "placeholder")

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Specs of the tensor inputs, in order."""
        return tuple(s for node in self.inputs if isinstance(s := node.meta["spec"], TensorSpec))

    @property
    def output(self) -> fx.Node:
        """The output node."""
        return next(node for node in reversed(self.nodes) if node.op == "output")

    @cached_property
    def digraph(self) -> nx.DiGraph[str]:
        """Data-flow graph: a node per fx node name (attribute ``node``), an edge per use."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        for node in self.nodes:
            graph.add_node(node.name, node=node)
            for source in node.all_input_nodes:
                graph.add_edge(source.name, node.name)
        return graph

    @property
    def traced_by(self) -> Literal["fx", "export"]:
        """Which tracer made it; passes keep this."""
        return self.graph_module.meta.get(TRACED_BY, "fx")

    def state_hash(self) -> str:
        """`state_hash` of the module."""
        return state_hash(self.graph_module)


@dataclass(frozen=True)
class Frontier:
    """A valid place to cut: the tensors that cross from what is kept to what is removed.

    Parameters
    ----------
    name : str
        Address for the user: the qualified name of the module or node whose end it is; crossing nodes joined by ``+``
        where no one module ends there.
    nodes : tuple of str
        fx names of the crossing nodes, in execution order.
    specs : tuple of TensorSpec
        Their specs.
    granularity : str
        ``"block"`` where a block ends, else the granularity that was asked for: ``"kernel"``, or ``"node"``, which is
        also that of a cut found by its name.
    kept_params, removed_params : int
        Parameters on either side.
    kept_flops : int
        Floating-point operations of the trunk (a multiply-add is two), head not included.
    pools : tuple of str
        How the network itself suggests to pool each of the tensors: a `netcut_fx.pooling.Pool` each.
    """

    name: str
    nodes: tuple[str, ...]
    specs: tuple[TensorSpec, ...]
    granularity: str
    kept_params: int
    removed_params: int
    kept_flops: int
    pools: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """How many tensors cross."""
        return len(self.nodes)
