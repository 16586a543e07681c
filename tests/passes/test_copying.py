"""Copies: own storage, same names, ties kept, and no data where none is wanted."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from netcut_fx.passes import copy_traced, weightless
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from netcut_fx.verify import check, check_no_shared_storage
from tests.passes.comparing import assert_equal, results
from tests.zoo import ZOO


@pytest.mark.parametrize("name", ZOO)
def test_copy_is_the_same_network_with_its_own_weights(name: str) -> None:
    model, inputs = ZOO[name]()
    traced = trace(model, inputs)
    again = copy_traced(traced)
    check(again)
    check_no_shared_storage(traced, again)
    assert [node.name for node in again.nodes] == [node.name for node in traced.nodes]
    assert to_text(again) == to_text(traced)
    assert again.state_hash() == traced.state_hash()
    assert_equal(results(again, inputs), results(traced, inputs))


@pytest.mark.parametrize("name", ZOO)
def test_weightless_has_every_shape_and_no_data(name: str) -> None:
    model, inputs = ZOO[name]()
    traced = trace(model, inputs)
    empty = weightless(traced)
    check(empty)
    assert to_text(empty) == to_text(traced)
    assert all(t.is_meta for t in (*empty.graph_module.parameters(), *empty.graph_module.buffers()))
    assert not any(t.is_meta for t in traced.graph_module.parameters())


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4)
            self.two = nn.Linear(4, 4)
            self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x))

    traced = trace(Tied(), torch.zeros(1, 4))
    for again in (copy_traced(traced), weightless(traced)):
        assert again.graph_module.one.weight is again.graph_module.two.weight
    assert copy_traced(traced).graph_module.one.weight is not traced.graph_module.one.weight


def test_meta_of_nodes_is_not_shared() -> None:
    model, inputs = ZOO["plain_chain"]()
    traced = trace(model, inputs)
    again = copy_traced(traced)
    before = copy.copy(traced.nodes[1].meta["qualname"])
    again.nodes[1].meta["qualname"] = "other"
    assert traced.nodes[1].meta["qualname"] == before
