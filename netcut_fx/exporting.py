"""Tracing by torch.export, for models whose Python code torch.fx cannot follow.

The model runs on fake tensors, so that its code may look at shapes and types and use any Python. Leaf modules stay
whole (`netcut_fx.opaque_calls`), and what comes out is an ordinary fx graph over the model's own modules: it can be
trained, cut and exported again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from netcut_fx.example_inputs import Examples, find_tensors, plain_result
from netcut_fx.exported_graph import MODEL, own_graph
from netcut_fx.leaf_rules import LeafRule
from netcut_fx.modes import noting_mode
from netcut_fx.opaque_calls import opaque_leaves
from netcut_fx.quiet_torch import quiet_torch

#: Batch size to export at. Sizes 0 and 1 would be written into the graph; a prime is rarely the size of anything else.
_BATCH = 7


def trace_by_export(
    model: nn.Module,
    examples: Examples,
    leaves: LeafRule,
    wrapped_functions: Sequence[Callable[..., Any]],
    name: str,
) -> fx.GraphModule:
    """Export `model` in its present mode, for any batch size if possible.

    The model is first run as if nobody exported it, since libraries go other ways when they are: those would compute
    masks that the model itself leaves out. Where that fails, or the batch size cannot stay free, other ways are tried.

    Raises
    ------
    Exception
        What torch.export raises in the last attempt.
    """
    larger = _with_larger_batch(examples.tensors)
    failure: Exception | None = None
    for tensors in (larger, None):
        for hidden in (True, False):
            try:
                return _export(model, examples, leaves, wrapped_functions, tensors, name, hidden=hidden)
            # Whatever a model raises on fake tensors, its own checks included.
            except Exception as error:
                failure = error
    raise failure or AssertionError


class _Returned:
    """What a model returned last. torch.export sets attributes of modules back, but not those of other objects."""

    value: Any = None


class _FlatModel(nn.Module):
    """`model` as a function from flat tensors to flat tensors; notes the structure of what it returns."""

    def __init__(self, model: nn.Module, examples: Examples, *, hidden: bool) -> None:
        super().__init__()
        self.add_module(MODEL, model)
        self._examples = examples
        self._hidden = hidden
        self.returned = _Returned()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        with _not_exporting(self._hidden), noting_mode(True):
            result = plain_result(self._examples.call(self.get_submodule(MODEL), tensors))
        self.returned.value = result
        return tuple(find_tensors(result))


def _export(
    model: nn.Module,
    examples: Examples,
    leaves: LeafRule,
    wrapped_functions: Sequence[Callable[..., Any]],
    tensors: Sequence[Tensor] | None,
    name: str,
    *,
    hidden: bool,
) -> fx.GraphModule:
    """Export once; with free batch size at `tensors`, or just as the examples are."""
    flat = _FlatModel(model, examples, hidden=hidden)
    flat.training = model.training
    given = tuple(examples.tensors if tensors is None else tensors)
    batch: Any = {} if tensors is None else {0: Dim.AUTO}
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # In a graph to be trained, attention is the sum of its parts.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with opaque_leaves(model, leaves, wrapped_functions) as opaque, quiet_torch(), torch.no_grad():
            exported = torch.export.export(
                flat, given, dynamic_shapes={"tensors": tuple(batch for _ in given)}, strict=False
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    if tensors is not None:
        inputs = set(exported.graph_signature.user_inputs)
        for node in exported.graph.nodes:
            if node.name in inputs and not isinstance(node.meta["val"].shape[0], torch.SymInt):
                raise ValueError(f"the batch size of {node.name} is fixed by what the model computes")
    graph = own_graph(exported, opaque.calls, examples.names, flat.returned.value, model)
    return fx.GraphModule(model, graph, name)


def _with_larger_batch(tensors: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
    """The tensors with another batch size; None if they do not share a first dimension."""
    sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in tensors}
    if len(sizes) != 1 or 0 in sizes:
        return None
    return tuple(tensor[:1].expand(_BATCH, *tensor.shape[1:]).contiguous() for tensor in tensors)


@contextmanager
def _not_exporting(hidden: bool) -> Generator[None]:
    """While this holds, ``torch.compiler.is_compiling()`` and its like answer no."""
    compiler: Any = torch.compiler
    before = compiler._is_compiling_flag, compiler._is_exporting_flag  # pyright: ignore[reportPrivateUsage]
    if hidden:
        compiler._is_compiling_flag = compiler._is_exporting_flag = False  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        compiler._is_compiling_flag, compiler._is_exporting_flag = before  # pyright: ignore[reportPrivateUsage]
