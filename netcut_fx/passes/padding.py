"""Zero padding in front of a convolution: the convolution can do it itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from netcut_fx.effects import observe
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.passes.inplace import written_memory
from netcut_fx.passes.rewriting import absorb_following, absorb_preceding, argument, set_argument

_PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FUNCTIONS: dict[Any, int] = {
    torch.conv1d: 1,
    torch.conv2d: 2,
    torch.conv3d: 3,
    functional.conv1d: 1,
    functional.conv2d: 2,
    functional.conv3d: 3,
}
_PADDING_POSITION = 4


def merge_padding(traced: TracedModule) -> None:
    """Drop paddings by nothing and move symmetric ones of zeros into the one convolution that reads them, in place."""
    graph_module, writers = traced.graph_module, _writers(traced)
    calls = Counter(
        id(graph_module.get_submodule(str(node.target)))
        for node in graph_module.graph.nodes
        if node.op == "call_module"
    )
    for node in tuple(graph_module.graph.nodes):
        widths = _zero_padding(graph_module, node)
        if widths is None:
            continue
        source = node.args[0]
        if not any(widths):
            # It still copies, which protects the source from what is written into the copy.
            if not writers[source] and not writers[node]:
                absorb_following(source, node)
            continue
        reader = next(iter(node.users)) if len(node.users) == 1 else None
        if reader is None or reader.args[:1] != (node,):
            continue
        if any(node < writer < reader for writer in writers[source]):
            continue
        own = _own_padding(graph_module, reader, calls)
        added = None if own is None else _symmetric(widths, len(own), node)
        if own is not None and added is not None:
            _set_padding(graph_module, reader, tuple(a + b for a, b in zip(own, added, strict=True)))
            absorb_preceding(reader, node, source)


def _zero_padding(graph_module: fx.GraphModule, node: fx.Node) -> tuple[int, ...] | None:
    """Widths as `functional.pad` takes them, last dimension first, if `node` pads one tensor with zeros."""
    widths: Any = None
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    if node.op == "call_module":
        module: Any = graph_module.get_submodule(str(node.target))
        if type(module) in _PADS and module.value == 0:
            widths = module.padding
    elif node.op == "call_function" and node.target is functional.pad:
        mode, value = argument(node, 2, "mode", "constant"), argument(node, 3, "value")
        if mode == "constant" and value in (None, 0):
            widths = argument(node, 1, "pad")
    if not isinstance(widths, (tuple, list)) or not all(isinstance(width, int) for width in widths):  # pyright: ignore[reportUnknownVariableType]
        return None
    return tuple(widths)  # pyright: ignore[reportUnknownArgumentType]


def _symmetric(widths: tuple[int, ...], dimensions: int, node: fx.Node) -> tuple[int, ...] | None:
    """Padding of each spatial dimension, in order, if both sides get the same and nothing else is padded."""
    spec = node.meta.get("spec")
    if not isinstance(spec, TensorSpec) or len(spec.shape) != dimensions + 2:
        return None
    sides = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    if any(low != high or low < 0 for low, high in sides) or any(low for low, _ in sides[dimensions:]):
        return None
    padded = [low for low, _ in sides[:dimensions]]
    return tuple(reversed([*padded, *[0] * (dimensions - len(padded))]))


def _own_padding(graph_module: fx.GraphModule, reader: fx.Node, calls: Counter[int]) -> tuple[int, ...] | None:
    """Zero padding that a convolution does already, per dimension; None if it cannot take more."""
    if reader.op == "call_module":
        module: Any = graph_module.get_submodule(str(reader.target))
        if type(module) not in _CONVOLUTIONS or calls[id(module)] != 1 or module.padding_mode != "zeros":
            return None
        padding, dimensions = module.padding, len(module.kernel_size)
    elif reader.op == "call_function" and reader.target in _FUNCTIONS:
        padding, dimensions = argument(reader, _PADDING_POSITION, "padding", 0), _FUNCTIONS[reader.target]
    else:
        return None
    if padding == "valid":
        padding = 0
    if isinstance(padding, int):
        return (padding,) * dimensions
    if not isinstance(padding, (tuple, list)) or not all(isinstance(width, int) for width in padding):  # pyright: ignore[reportUnknownVariableType]
        return None
    return tuple(padding) if len(padding) == dimensions else tuple(padding) * dimensions  # pyright: ignore[reportUnknownArgumentType]


def _set_padding(graph_module: fx.GraphModule, reader: fx.Node, padding: tuple[int, ...]) -> None:
    if reader.op == "call_function":
        set_argument(reader, _PADDING_POSITION, "padding", padding)
        return
    module: Any = graph_module.get_submodule(str(reader.target))
    module.padding = padding
    module._reversed_padding_repeated_twice = [width for width in reversed(padding) for _ in range(2)]


def _writers(traced: TracedModule) -> dict[fx.Node, list[fx.Node]]:
    """For each node, those that write into memory that its value lives in."""
    storages, written = observe(traced).storages, written_memory(traced)
    return {
        node: [writer for memory in storages.get(node.name, ()) for writer in written.get(memory, ())]
        for node in traced.nodes
    }
