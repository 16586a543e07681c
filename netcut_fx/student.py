"""A trimmed network while it learns: its own copy, in which the head reads standardised features.

Pooled features differ in size by orders of magnitude between networks, cuts and channels. While the network learns, a
fixed standardisation stands between pooling and head, so that one learning rate suits all; afterwards it is folded into
the head's first layer, and the network has exactly the form that it came with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.layout import channels_last_, contiguous_
from netcut_fx.passes.copying import copy_traced
from netcut_fx.quick import standardisation

_HEAD = "head"
_GATES = "gates"
_STANDARDISE = "standardise_features"


class Standardise(nn.Module):
    """``(x - mean) * scale`` per feature; starts as the identity."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise ``(N, width)``."""
        return (x - self.mean) * self.scale


class Student:
    """Own copy of a trimmed network, to be trained.

    Parameters
    ----------
    trn : TracedModule
        Left as it is. Its head is the modules ``head.*``, reading pooled features ``(N, C)``; without one there is
        nothing to train on features alone.
    """

    def __init__(self, trn: TracedModule) -> None:
        self._trn = trn
        self.module: fx.GraphModule = copy_traced(trn).graph_module
        #: fx name of the node in `trn` whose value the head reads, or None.
        self.features_node: str | None = None
        #: The head alone, on standardised features; shares its weights with `module`.
        self.head: fx.GraphModule | None = None
        self._standardise: Standardise | None = None
        self._first: nn.Linear | None = None
        reader = _first_of_head(self.module)
        if reader is not None:
            self._split(reader)
        spec = trn.input_specs[0]
        channels_last_(self.module, [torch.zeros((1, *spec.shape[1:]), dtype=spec.dtype)])

    def _split(self, reader: fx.Node) -> None:
        source = reader.all_input_nodes[0]
        head = _head_alone(self.module, source)
        layer = self.module.get_submodule(str(reader.target))
        if head is None:
            return
        self.features_node, self.head = source.name, head
        if isinstance(layer, nn.Linear) and layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            self._first, self._standardise = layer, Standardise(layer.in_features)
            self.module.add_submodule(_STANDARDISE, self._standardise)
            with self.module.graph.inserting_before(reader):
                node = self.module.graph.call_module(_STANDARDISE, (source,))
            reader.replace_input_with(source, node)
            self.module.recompile()

    def standardised(self, features: NDArray[np.float32], train: NDArray[np.int64]) -> Tensor:
        """Take mean and deviation from the rows `train`, keep them, and return all rows standardised."""
        table = torch.tensor(features, dtype=torch.float32)
        if self._standardise is None:
            return table
        mean, scale = standardisation(features[train])
        self._standardise.mean.copy_(torch.from_numpy(mean))
        self._standardise.scale.copy_(torch.from_numpy(scale))
        return self._standardise(table)

    def train(self, *, freeze_batch_norm: bool) -> None:
        """Training mode; batch-norms keep their statistics if asked to."""
        self.module.train()
        if freeze_batch_norm:
            for part in self.module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
                    part.eval()

    def parameter_groups(
        self,
        lr: float,
        first_layer_factor: float,
        head_factor: float,
        weight_decay: float,
        gate_factor: float = 1.0,
    ) -> list[dict[str, object]]:
        """Groups for an optimizer, one for each tensor.

        In the trunk the rate rises geometrically from ``lr * first_layer_factor`` at the input to `lr` at the cut; the
        head has ``lr * head_factor``, and gate networks ``lr * gate_factor``. Biases and norms (1-d) do not decay.
        """
        named = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
        trunk = [name for name, _ in named if name.partition(".")[0] not in (_HEAD, _GATES)]
        depth = {name: (i + 1) / len(trunk) for i, name in enumerate(trunk)}

        def factor(name: str) -> float:
            if name in depth:
                return first_layer_factor ** (1 - depth[name])
            return head_factor if name.startswith(f"{_HEAD}.") else gate_factor

        return [
            {
                "params": [p],
                "lr": lr * factor(name),
                "weight_decay": weight_decay if p.dim() > 1 else 0.0,
            }
            for name, p in named
        ]

    def finished(self) -> TracedModule:
        """The network in the form it came with, with the trained weights, in eval mode; shares nothing with this."""
        result = copy_traced(self._trn)
        state = {k: v for k, v in self.module.state_dict().items() if not k.startswith(f"{_STANDARDISE}.")}
        if self._standardise is not None and self._first is not None:
            name = next(n for n, m in self.module.named_modules() if m is self._first)
            weight = self._first.weight.detach().double() * self._standardise.scale.double()
            state[f"{name}.weight"] = weight.to(self._first.weight.dtype)
            state[f"{name}.bias"] = self._first.bias.detach() - (weight @ self._standardise.mean.double()).to(weight)
        result.graph_module.load_state_dict(state)
        contiguous_(result.graph_module)
        result.graph_module.eval()
        return result


def _first_of_head(module: fx.GraphModule) -> fx.Node | None:
    """The first layer of the head, if it reads pooled features ``(N, C)`` that nothing else reads."""
    for node in module.graph.nodes:
        if node.op == "call_module" and (node.target == _HEAD or str(node.target).startswith(f"{_HEAD}.")):
            sources: Sequence[fx.Node] = node.all_input_nodes
            spec = sources[0].meta["spec"] if len(sources) == 1 else None
            pooled = isinstance(spec, TensorSpec) and len(spec.shape) == 2 and len(sources[0].users) == 1
            return node if pooled else None
    return None


def _head_alone(module: fx.GraphModule, source: fx.Node) -> fx.GraphModule | None:
    """What computes the output from `source` alone, or None if something else is needed too."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node is source:
            copies[node] = graph.placeholder("features")
        elif node.op == "get_attr" or any(n in copies and n.op != "get_attr" for n in node.all_input_nodes):
            if any(n not in copies for n in node.all_input_nodes):
                return None
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(module, graph)
