"""What cannot be traced is refused in one line, and which state a network's hash covers."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.errors import TraceError
from netcut_fx.graph import state_hash
from netcut_fx.tracing import trace


class Masked(nn.Module):
    """A weight under two names, a buffer in the state dict and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) * self.kept + self.hidden


def test_a_model_that_cannot_be_copied() -> None:
    model = nn.Linear(2, 2)
    model.guard = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(TraceError) as error:
        trace(model, torch.zeros(1, 2), name="guarded")
    assert str(error.value) == (
        "cannot copy guarded, which is traced as a copy: cannot pickle '_thread.lock' object; let it hold only what "
        "copy.deepcopy can copy: no open files, locks or generators, and no tensors that belong to a computation "
        "(detach them)"
    )


def test_a_model_that_holds_a_tensor_of_a_computation() -> None:
    model = nn.Linear(2, 2)
    model.scaled = model.weight * 2  # type: ignore[assignment]
    with pytest.raises(TraceError, match=r"^cannot copy Linear, which is traced as a copy: Only Tensors created") as e:
        trace(model, torch.zeros(1, 2))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["first.weight", "kept", "hidden"])
def test_the_hash_covers_every_parameter_and_buffer(name: str) -> None:
    model = Masked()
    before = state_hash(model)
    assert state_hash(model) == before
    tensor = dict(model.named_parameters(), **dict(model.named_buffers()))[name]
    with torch.no_grad():
        tensor[0] += 1
    assert state_hash(model) != before


def test_the_hash_covers_each_name_of_a_shared_tensor() -> None:
    torch.manual_seed(0)
    tied = Masked()
    untied = Masked()
    untied.load_state_dict(tied.state_dict())
    untied.second.weight = nn.Parameter(tied.first.weight.detach().clone())
    assert state_hash(untied) == state_hash(tied)
    untied.second = nn.Identity()  # type: ignore[assignment]
    assert state_hash(untied) != state_hash(tied)
