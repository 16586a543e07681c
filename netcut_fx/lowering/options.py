# torch has no public way to see which weights a module declares but does not have.
# pyright: reportPrivateUsage=false
"""What decides what a node does, but for the values of its weights: as a key, and as a module without weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from netcut_fx.lowering.tracks import Layout

#: Attributes every module has; the others are options.
_PLAIN_MODULE_KEYS = frozenset(nn.Module().__dict__)


def without_weights(module: nn.Module, prefix: str, paths: dict[int, str], alive: list[Tensor]) -> nn.Module:
    """Copy `module` shallowly, with tensors that have no storage; note their paths by id and keep them in `alive`."""

    def bare(name: str, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        copy = Layout.of(tensor).tensor()
        paths[id(copy)] = prefix + name
        alive.append(copy)
        return copy

    copy = module.__new__(type(module))
    copy.__dict__ = dict(module.__dict__)
    copy.__dict__["_parameters"] = {k: bare(k, t) for k, t in module._parameters.items()}
    copy.__dict__["_buffers"] = {k: bare(k, t) for k, t in module._buffers.items()}
    copy.__dict__["_modules"] = {
        k: None if m is None else without_weights(m, f"{prefix}{k}.", paths, alive) for k, m in module._modules.items()
    }
    return copy


def module_options(module: nn.Module) -> Any:
    """Collect all that decides what `module` does to inputs of a given layout, but for the values of its weights."""
    options = {k: v for k, v in module.__dict__.items() if k not in _PLAIN_MODULE_KEYS}
    weights = {
        k: None if t is None else (Layout.of(t), isinstance(t, nn.Parameter))
        for part in (module._parameters, module._buffers)
        for k, t in part.items()
    }
    children = {k: None if m is None else module_options(m) for k, m in module._modules.items()}
    return (type(module), options, weights, children, module.training)


def hashable(value: Any) -> Any:
    """Make a key of nested options; None where one cannot be told apart from another."""
    try:
        frozen = _freeze(value)
        hash(frozen)
    except TypeError:
        return None
    return frozen


def _freeze(value: Any) -> Any:
    if isinstance(value, dict):
        return ("dict", tuple((k, _freeze(v)) for k, v in value.items()))  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, tuple(_freeze(v) for v in value))  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, slice):
        return ("slice", _freeze(value.start), _freeze(value.stop), _freeze(value.step))
    if isinstance(value, (Tensor, nn.Module)):
        raise TypeError("a tensor or module among the options is compared by identity, not by content")
    # 1, 1.0 and True are equal but do not mean the same to an operator.
    return (type(value).__name__, value) if isinstance(value, (bool, int, float)) else value
