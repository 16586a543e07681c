"""Paths: which there are, and which one an input takes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netcut_fx.errors import BudgetError
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.gate_network import Gates
from netcut_fx.gating.paths import Paths, pick_paths
from tests.gating.test_budget import SLOTS, TABLE, tables

WIDTHS = ((0, 0, 1), (0, 1, 1), (2, 0, 3), (3, 1, 3))
PATHS = Paths(SLOTS, WIDTHS, (115, 165, 190, 270))
#: Columns: two layers, then three groups each for the first and the last cell.
SALIENT = np.array([3, 2, 9, 1, 5, 9, 4, -1], np.float32)


def saliences_of(seed: int, rows: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)


def all_paths(table: CostTable = TABLE) -> Paths:
    widths = [(a, b, c) for a in range(4) for b in range(2) for c in range(1, 4)]
    widths.sort(key=table.total)
    return Paths(SLOTS, tuple(widths), tuple(map(table.total, widths)))


def test_where_every_choice_is_a_path_it_is_taken() -> None:
    paths = all_paths()
    for row in saliences_of(0):
        assert list(paths.widths[paths.choose(row)]) == TABLE.choose(row)


def test_the_largest_sum_within_the_budget() -> None:
    # Steps: 3, 1, 1 of the first cell (5 stands on 1), 2 of the second, 4 and -1 of the third.
    assert PATHS.choose(SALIENT) == 3
    assert [PATHS.choose(SALIENT, budget) for budget in (115, 164, 165, 189, 190, 269, 270)] == [0, 0, 1, 1, 2, 2, 3]
    away = -np.abs(SALIENT)
    assert (PATHS.choose(away), PATHS.choose(away, 200)) == (0, 0)
    assert (PATHS.choose(away, 200, fill=True), PATHS.choose(away, 1000, fill=True)) == (2, 3)


@given(tables(), st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_no_path_exceeds_the_budget(table: CostTable, seed: int, share: float, fill: bool) -> None:
    rng = np.random.default_rng(seed)
    budget = table.mandatory + int(share * 3000)
    saliences = rng.normal(size=(20, 50)).astype(np.float32)
    widths = pick_paths([table.choose(row, budget, fill=fill) for row in saliences], table, 6, budget=budget)
    paths = Paths(table.slots, widths, tuple(table.total(one) for one in widths))
    assert list(paths.costs) == sorted(paths.costs)
    assert 1 <= len(widths) <= 6
    for row in saliences:
        assert paths.costs[paths.choose(row, budget, fill=fill)] <= budget


def test_torch_takes_the_same_path() -> None:
    gates = Gates((1, 4), slots=SLOTS, layers=2, hidden=3).eval()
    gates.paths = PATHS
    rows = saliences_of(1)
    gates.raw = lambda early: torch.cat([early, torch.ones_like(early)], 1)  # type: ignore[method-assign]
    found = gates(torch.from_numpy(rows))[:, :8].numpy()
    expected = PATHS.gates(8)[[PATHS.choose(row) for row in rows]]
    assert np.array_equal(found, expected)
    assert len(np.unique(expected, axis=0)) == 4
    gates.fill = True
    filled = gates(torch.from_numpy(rows))[:, :8].numpy()
    assert np.array_equal(filled, PATHS.gates(8)[[PATHS.choose(row, fill=True) for row in rows]])
    assert PATHS.gates(8)[2].tolist() == [1, 0, 1, 1, 0, 1, 1, 1]


def test_gradients_reach_the_saliences_through_paths() -> None:
    gates = Gates((1, 4), slots=SLOTS, layers=2, hidden=3).train()
    gates.paths = PATHS
    assert gates.l_net is not None
    assert gates.c_net is not None
    gates.l_net.salience.bias.data.zero_()
    gates.c_net.salience.bias.data.zero_()
    made = gates(torch.randn(64, 4))[:, :8]
    assert set(made.detach().round(decimals=4).abs().unique().tolist()) == {0.0, 1.0}
    made.sum().backward()
    assert gates.l_net.salience.weight.grad is not None
    assert float(gates.l_net.salience.weight.grad.abs().sum()) > 0


def test_which_paths_are_picked() -> None:
    wanted = [[1, 0, 2]] * 5 + [[2, 1, 1]] * 3 + [[0, 1, 1]]
    assert pick_paths(wanted, TABLE, 4) == ((0, 0, 1), (1, 0, 2), (2, 1, 1), (3, 1, 3))
    assert pick_paths(wanted, TABLE, 4, budget=170) == ((0, 0, 1), (1, 0, 2), (0, 1, 1))
    with pytest.raises(BudgetError) as error:
        pick_paths(wanted, TABLE, 1)
    assert str(error.value) == "1 paths leave nothing to decide; give 2 or more"


def test_json_and_errors() -> None:
    assert Paths.from_json(json.loads(json.dumps(PATHS.to_json()))) == PATHS
    with pytest.raises(BudgetError) as error:
        PATHS.choose(np.array([1, np.nan, 1, 1, 1, 1, 1, 1], np.float32))
    assert str(error.value) == "salience 1 of 8 is NaN: the gates decide nothing; train the network again"
    with pytest.raises(BudgetError, match=r"a budget of 0\.0001 ms is below the 0\.000115 ms that the network takes"):
        PATHS.budget(0.0001)
