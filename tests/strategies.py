"""Hypothesis strategies: random small networks as directed acyclic graphs of operations.

All values are float32 maps ``(batch, 4, 4, 4)``, so that any two can be added, but for those that lost their batch
dimension ``(1, 4, 4, 4)`` and integer ones. Among the operations are in-place ones (used as an expression and as a
statement, on a value, on a view of it, on a part of it), views, sizes of other values, constants computed from a shared
parameter, and tuples. Values that nobody uses are dead branches.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

CHANNELS = 4

Operation = Callable[["RandomNetwork", int, list[Tensor]], Tensor | None]


def _relu_statement(_net: RandomNetwork, _step: int, x: list[Tensor]) -> None:
    x[0].relu_()


def _write_part(_net: RandomNetwork, _step: int, x: list[Tensor]) -> Tensor:
    first, second = torch.chunk(x[0], 2, 1)
    second.relu_()
    return torch.cat([second, first], 1)


def _swap_halves(_net: RandomNetwork, _step: int, x: list[Tensor]) -> Tensor:
    first, second = torch.chunk(x[0], 2, 1)
    return torch.cat([second, first], 1)


OPERATIONS: dict[str, Operation] = {
    "conv": lambda net, step, x: net.convs[str(step)](x[0]),
    "relu": lambda _net, _step, x: torch.relu(x[0]),
    "add": lambda _net, _step, x: x[0] + x[1],
    "constant": lambda net, _step, x: x[0] + net.scale * 2,
    "size": lambda _net, _step, x: x[0] * (x[1].size(2) + x[1].shape[3]),
    "view": lambda _net, _step, x: x[0].view(x[0].size(0), CHANNELS, 4, 4),
    "transpose": lambda _net, _step, x: x[0].transpose(2, 3),
    "relu_": lambda _net, _step, x: x[0].relu_(),
    "relu_statement": _relu_statement,
    "iadd": lambda _net, _step, x: operator.iadd(x[0], x[1]),
    "halves": _swap_halves,
    "write_part": _write_part,
    "sum_batch": lambda _net, _step, x: x[0].sum(0, keepdim=True),
    "argmax": lambda _net, _step, x: x[0].argmax(1, keepdim=True),
}
#: Drawn more often, so that networks have frontiers to find.
_PLAIN = ("conv", "conv", "conv", "relu", "relu", "add", "add", "add")


@dataclass(frozen=True)
class Step:
    """Apply `operation` to the values with these numbers."""

    operation: str
    operands: tuple[int, ...]


class RandomNetwork(nn.Module):
    """Runs `steps`; value numbers start with the inputs."""

    def __init__(self, inputs: int, steps: tuple[Step, ...], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.inputs, self.steps, self.outputs = inputs, steps, outputs
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, CHANNELS).reshape(1, CHANNELS, 1, 1))
        self.convs = nn.ModuleDict(
            {str(i): nn.Conv2d(CHANNELS, CHANNELS, 1) for i, step in enumerate(steps) if step.operation == "conv"}
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        values = [v for v in (x, y)[: self.inputs] if v is not None]
        for number, step in enumerate(self.steps):
            made = OPERATIONS[step.operation](self, number, [values[i] for i in step.operands])
            # A statement yields nothing; its operand stands in, so that numbers stay what they are.
            values.append(values[step.operands[0]] if made is None else made)
        return tuple(values[i] for i in self.outputs) if len(self.outputs) > 1 else values[self.outputs[0]]

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, steps={self.steps}, outputs={self.outputs}"


def examples(inputs: int, batch: int = 3) -> tuple[Tensor, ...]:
    """Example inputs of a `RandomNetwork`."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, CHANNELS, 4, 4, generator=generator) for _ in range(inputs))


@st.composite
def random_networks(draw: st.DrawFn, max_steps: int = 8) -> RandomNetwork:
    """Networks of up to `max_steps` operations, one or two inputs, one or two outputs."""
    inputs = draw(st.integers(1, 2))
    batched, floating = [True] * inputs, [True] * inputs
    steps: list[Step] = []
    for _ in range(draw(st.integers(2, max_steps))):
        operation = draw(st.sampled_from((*_PLAIN, *OPERATIONS)))
        # Recent values more often, so that networks get deep; in-place and most others need floats.
        count = len(batched)
        recent = [i for i in range(max(0, count - 3), count) if floating[i]] or [0]
        first = draw(st.sampled_from(recent))
        second = draw(st.integers(0, count - 1))
        if operation == "iadd" and batched[second] and not batched[first]:
            operation = "add"
        operands = (first, second) if operation in ("add", "iadd", "size") else (first,)
        steps.append(Step(operation, operands))
        grows = operation in ("add", "iadd")
        batched.append(operation != "sum_batch" and (batched[first] or (grows and batched[second])))
        floating.append(operation != "argmax")
    # A weighted operation behind the last float value: else most cuts would remove no parameter.
    steps.append(Step("conv", (max(i for i, is_float in enumerate(floating) if is_float),)))
    last = len(batched)
    outputs = (last, draw(st.integers(inputs, last))) if draw(st.booleans()) and last > inputs else (last,)
    return RandomNetwork(inputs, tuple(steps), outputs).eval()
