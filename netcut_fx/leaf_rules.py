"""Which modules stay whole when a model is traced: one ``call_module`` node each. Everything else is traced through.

A module is a leaf if

* the caller says so: its class, its class's name or its path is among ``leaf_modules``;
* its ``forward`` is one of ``torch.nn``'s (convolutions, norms, activations, pooling, dropout ...; a subclass that
  only changes the constructor included), unless that only calls other modules (``Sequential``, transformer layers);
* it is an activation of the transformers library;
* it acts by mode and owns nothing: its ``forward`` looks at ``self.training`` (or calls a function that does), and it
  has neither parameters nor buffers nor children. This is stochastic depth under its many names. Traced through,
  its behaviour in training would be lost.

The rule is the same for `torch.fx` and for `torch.export`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from netcut_fx.errors import TraceError

#: Modules of torch.nn that only call others.
_CONTAINERS = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
_LIBRARIES = ("torch.nn.", "torch.ao.nn.")


@dataclass(frozen=True)
class LeafRule:
    """The rule above, with what the caller adds.

    Parameters
    ----------
    types : tuple of type
        Classes, subclasses included.
    names : frozenset of str
        Paths of modules and names of classes.
    """

    types: tuple[type[nn.Module], ...] = ()
    names: frozenset[str] = frozenset()

    def is_leaf(self, module: nn.Module, path: str) -> bool:
        """Whether `module`, at `path`, stays whole."""
        if isinstance(module, self.types) or path in self.names or type(module).__name__ in self.names:
            return True
        if isinstance(module, _CONTAINERS):
            return False
        return _is_library_forward(module) or acts_by_mode(module)


def leaf_rule(model: nn.Module, leaf_modules: Sequence[type[nn.Module] | str], label: str) -> LeafRule:
    """Check the caller's leaf modules against `model`.

    Raises
    ------
    TraceError
        For one that no module of `model` matches, naming the nearest.
    """
    types = tuple(entry for entry in leaf_modules if isinstance(entry, type))
    names = frozenset(entry for entry in leaf_modules if isinstance(entry, str))
    if names or types:
        modules = dict(model.named_modules())
        known = {*modules, *(type(module).__name__ for module in modules.values())} - {""}
        for name in sorted(names - known):
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else "; give the path of a module or its class"
            raise TraceError(f"leaf_modules of {label}: no module has the path or class {name!r}{hint}")
        for kind in types:
            if not any(isinstance(module, kind) for module in modules.values()):
                raise TraceError(
                    f"leaf_modules of {label}: no module is a {kind.__name__}; give the path of a module or its class"
                )
    return LeafRule(types, names)


def acts_by_mode(module: nn.Module) -> bool:
    """Whether `module` looks at ``self.training`` and owns nothing: no parameters, no buffers, no children."""
    if any(vars(module)[held] for held in ("_parameters", "_buffers", "_modules")):
        return False
    function = inspect.unwrap(type(module).forward)
    if not isinstance(function, FunctionType):
        return False
    if _reads_training(function.__code__):
        return True
    called = (function.__globals__.get(name) for name in function.__code__.co_names)
    return any(isinstance(f, FunctionType) and _reads_training(inspect.unwrap(f).__code__) for f in called)


def _is_library_forward(module: nn.Module) -> bool:
    if type(module).__module__.startswith(_LIBRARIES) or type(module).__module__ == "transformers.activations":
        return True
    owner = next((kind for kind in type(module).__mro__ if "forward" in vars(kind)), nn.Module)
    return owner is not nn.Module and owner.__module__.startswith(_LIBRARIES)


def _reads_training(code: CodeType) -> bool:
    inner: Any = (part for part in code.co_consts if isinstance(part, CodeType))
    return "training" in code.co_names or any(_reads_training(part) for part in inner)
