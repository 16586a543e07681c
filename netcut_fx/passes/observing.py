"""What every node yields at two batch sizes: which numbers are constants, and which follow the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from netcut_fx.graph import Spec, TensorSpec, TracedModule, spec_of
from netcut_fx.passes.copying import weightless


@dataclass(frozen=True)
class Seen:
    """What one node yielded in one run.

    Parameters
    ----------
    spec : Spec
        Of the value.
    constant : object
        The value itself where it is no tensor and holds none; else None.
    contiguous : bool
        Whether it is a tensor laid out row by row.
    """

    spec: Spec
    constant: Any
    contiguous: bool


@dataclass(frozen=True)
class Observation:
    """What the nodes of one network yield, by fx name.

    Parameters
    ----------
    given : dict
        At the batch size that was traced.
    other : dict or None
        With one image more in the batch; None for a network that only takes the batch size it was traced with.
    """

    given: dict[str, Seen]
    other: dict[str, Seen] | None

    def runs(self, name: str) -> tuple[Seen, ...]:
        """What a node yielded, once for each run that was possible."""
        return (self.given[name],) if self.other is None else (self.given[name], self.other[name])

    def same_shape(self, one: str, two: str) -> bool:
        """Whether two nodes yield tensors of the same shape and type, whatever the batch size."""
        pairs = zip(self.runs(one), self.runs(two), strict=True)
        return all(isinstance(a.spec, TensorSpec) and a.spec == b.spec for a, b in pairs)

    def shapes(self, name: str) -> tuple[tuple[int, ...], ...] | None:
        """Shape of a tensor in each run; None for what is no tensor."""
        found = tuple(seen.spec.shape for seen in self.runs(name) if isinstance(seen.spec, TensorSpec))
        return found if len(found) == len(self.runs(name)) else None


def observe(traced: TracedModule) -> Observation | None:
    """Run `traced` without weights at its own batch size and at one more; None if it needs values to run at all."""
    empty = weightless(traced)
    given = _attempt(empty, traced.input_specs)
    return None if given is None else Observation(given, _attempt(empty, _one_more(traced.input_specs)))


def spec_with_one_more(traced: TracedModule) -> Spec | None:
    """What `traced` returns with one image more in the batch; None if it cannot take it."""
    seen = _attempt(weightless(traced), _one_more(traced.input_specs))
    return None if seen is None else seen[traced.output.name].spec


class RunError(Exception):
    """A node could not be run without values."""

    def __init__(self, node: fx.Node, cause: Exception) -> None:
        super().__init__(" ".join(str(cause).split()) or type(cause).__name__)
        self.node = node


def run_without_values(empty: TracedModule, specs: Sequence[TensorSpec]) -> dict[str, Seen]:
    """Run a `weightless` network on inputs of these specs.

    Raises
    ------
    RunError
        Naming the node.
    """
    watcher = _Watcher(empty.graph_module)
    with torch.no_grad():
        watcher.run(*(torch.empty(spec.shape, dtype=spec.dtype, device="meta") for spec in specs))
    return watcher.seen


def _one_more(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    return [TensorSpec((s.shape[0] + 1, *s.shape[1:]) if s.shape else s.shape, s.dtype) for s in specs]


def _attempt(empty: TracedModule, specs: Sequence[TensorSpec]) -> dict[str, Seen] | None:
    try:
        return run_without_values(empty, specs)
    except RunError:
        return None


#: Modules that yield what their input looks like. Without values torch works that out in slow Python code.
_SAME_FORM = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.SiLU,
    nn.GELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.LeakyReLU,
    nn.ELU,
    nn.Mish,
)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


class _Watcher(fx.Interpreter):
    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.extra_traceback = False
        self.seen: dict[str, Seen] = {}

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:
            # Whatever a network raises, its own checks included.
            raise RunError(n, error) from error
        contiguous = isinstance(value, Tensor) and value.is_contiguous()
        self.seen[n.name] = Seen(spec_of(value), _constant(value), contiguous)
        return value

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module: Any = self.fetch_attr(target)
        value = args[0] if len(args) == 1 else None
        if isinstance(value, Tensor) and value.is_floating_point():
            same = type(module) in _SAME_FORM
            rank = 4 if type(module) is nn.BatchNorm2d else 5
            norm = type(module) in _NORMS and not module.training and value.dim() == rank
            if same or (norm and value.shape[1] == module.num_features):
                return torch.empty_like(value)
        return super().call_module(target, args, kwargs)


def _constant(value: Any) -> Any:
    """`value` as it may stand in a graph, or None if it may not: tensors, and devices, which are meta here."""
    if isinstance(value, (bool, int, float, torch.dtype)):
        return value
    if isinstance(value, (tuple, list)):
        parts = tuple(_constant(part) for part in value)  # pyright: ignore[reportUnknownVariableType]
        return None if any(part is None for part in parts) else parts
    return None
