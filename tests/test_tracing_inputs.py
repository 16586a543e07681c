"""However people call their model: nested, by name, with constants; the traced network takes flat tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.errors import TraceError
from netcut_fx.graph import TracedModule
from netcut_fx.tracing import Via, trace

VIAS: tuple[Via, ...] = ("fx", "export")


class Answer(NamedTuple):
    total: Tensor
    parts: list[Tensor]


class Nested(nn.Module):
    """Takes and returns nested tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(
        self, image: Tensor, more: dict[str, list[Tensor]], scale: float = 2.0, *, negate: bool = False
    ) -> dict[str, Any]:
        left, right = more["pair"]
        total = self.fc(image + left) * scale - right
        if negate:
            total = -total
        return {"answer": Answer(total, [left + right]), "none": None}


def flat(traced: TracedModule, *inputs: Tensor) -> Any:
    with torch.no_grad():
        return traced.graph_module(*inputs)


@pytest.mark.parametrize("via", VIAS)
def test_nested_inputs_and_outputs(via: Via) -> None:
    model, (a, b, c) = Nested().eval(), torch.randn(3, 2, 4)
    traced = trace(model, (a, {"pair": [b, c]}), via=via)
    assert traced.traced_by == via
    assert [node.target for node in traced.inputs] == ["image", "more_pair_0", "more_pair_1"]
    result = flat(traced, a, b, c)
    expected = model(a, {"pair": [b, c]})
    assert list(result) == ["answer", "none"]
    assert result["none"] is None
    assert type(result["answer"]) is tuple
    assert torch.equal(result["answer"][0], expected["answer"].total)
    assert torch.equal(result["answer"][1][0], expected["answer"].parts[0])


@pytest.mark.parametrize("via", VIAS)
def test_by_name_with_constants(via: Via) -> None:
    model, (a, b, c) = Nested().eval(), torch.randn(3, 2, 4)
    given = {"more": {"pair": [b, c]}, "image": a}
    traced = trace(model, given, concrete_args={"negate": True, "scale": 3.0}, via=via)
    expected = model(**given, negate=True, scale=3.0)["answer"].total
    assert torch.equal(flat(traced, *(a, b, c))["answer"][0], expected)


def test_examples_by_position_fill_what_no_constant_fills() -> None:
    class Mode(nn.Module):
        def forward(self, kind: str, x: Tensor, y: Tensor | None = None) -> Tensor:
            if kind == "twice":
                x = x * 2
            return x if y is None else x + y

    traced = trace(Mode(), torch.ones(1, 2), concrete_args={"kind": "twice"})
    assert flat(traced, torch.ones(1, 2)).tolist() == [[2.0, 2.0]]


def test_any_number_of_inputs() -> None:
    class Sum(nn.Module):
        def forward(self, *parts: Tensor, **named: Tensor) -> Tensor:
            return sum(parts) + named.get("last", 0)  # type: ignore[return-value]

    traced = trace(Sum(), [torch.ones(1), torch.ones(1)])
    assert [node.target for node in traced.inputs] == ["parts_0", "parts_1"]
    traced = trace(Sum(), {"last": torch.ones(1)})
    assert [node.target for node in traced.inputs] == ["last"]


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(TraceError) as error:
        trace(nn.Linear(2, 2), (torch.zeros(1, 2), torch.zeros(1, 2)), name="net")
    assert str(error.value) == (
        "cannot trace net: forward(input) cannot be called with examples for input and 1 more: too many positional "
        "arguments; pass one tensor per argument, and what is no tensor as concrete_args"
    )
    with pytest.raises(TraceError) as error:
        trace(Nested(), {"image": torch.zeros(1, 4)}, concrete_args={"negate": True})
    assert str(error.value) == (
        "cannot trace Nested: forward(image, more, scale=2.0, *, negate=False) cannot be called with examples for "
        "image, concrete_args negate: missing a required argument: 'more'; pass one tensor per argument, and what is "
        "no tensor as concrete_args"
    )


def test_no_tensor_at_all() -> None:
    class Constant(nn.Module):
        def forward(self, n: int) -> Tensor:
            return torch.zeros(n)

    with pytest.raises(TraceError) as error:
        trace(Constant(), [3])
    assert str(error.value) == ("cannot trace Constant: there is no tensor among the example inputs; pass at least one")


def test_an_example_that_does_not_fit_is_named_once() -> None:
    with pytest.raises(TraceError) as error:
        trace(nn.Sequential(nn.Linear(3, 3)), torch.zeros(1, 2), name="net")
    assert str(error.value) == (
        "example input float32[1, 2] does not fit net: 0 failed with mat1 and mat2 shapes cannot be multiplied "
        "(1x2 and 3x3); pass an input of the size the network expects"
    )
