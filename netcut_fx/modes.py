"""What a network does differently while it learns, kept in one graph.

A trace follows one mode: ``F.dropout(x, 0.1, training=self.training)`` becomes ``F.dropout(x, 0.1, training=False)``.
So a model that looks at ``self.training`` is traced in both modes. Where both graphs have the same structure, each
constant that differs becomes the value of a `ByMode` module, which answers for the mode the network is in
(`netcut_fx.mode_merging`). Where the structure differs (auxiliary classifiers, say), the graph of eval mode stays.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import nn


class ByMode(nn.Module):
    """A constant that depends on the mode.

    Parameters
    ----------
    train, eval : object
        What it yields in training and otherwise: a number, a flag, None.
    """

    def __init__(self, *, train: Any, eval: Any) -> None:
        super().__init__()
        self.in_training = train
        self.in_evaluation = eval

    def forward(self) -> Any:
        """Yield the constant of the present mode."""
        return self.in_training if self.training else self.in_evaluation

    def extra_repr(self) -> str:
        """Both constants."""
        return f"train={self.in_training!r}, eval={self.in_evaluation!r}"


@dataclass
class Watch:
    """Whether some module was asked for its mode."""

    asked: bool = False


@contextmanager
def watching_mode() -> Generator[Watch]:
    """While this holds, note whether ``training`` of any module is read where `noting_mode` says that it matters."""
    watch = Watch()

    def read(module: nn.Module) -> bool:
        watch.asked = watch.asked or _noting.get()
        return module.__dict__["training"]

    def write(module: nn.Module, value: bool) -> None:
        module.__dict__["training"] = value

    nn.Module.training = property(read, write)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield watch
    finally:
        del nn.Module.training


_noting: ContextVar[bool] = ContextVar("noting", default=False)


@contextmanager
def noting_mode(on: bool) -> Generator[None]:
    """Say whether what runs now is the model's own code: tracers look at the mode as well."""
    token = _noting.set(on)
    try:
        yield
    finally:
        _noting.reset(token)


def in_training(model: nn.Module) -> nn.Module:
    """Copy the modules of `model`, but not its tensors, and put the copy into training mode."""
    held = (t for part in model.modules() for t in (*part._parameters.values(), *part._buffers.values()))  # pyright: ignore[reportPrivateUsage]
    return copy.deepcopy(model, {id(t): t for t in held if t is not None}).train()
