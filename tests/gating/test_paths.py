"""Paths: which there are, and which one an input takes."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netcut_fx.errors import BudgetError
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.gate_network import Gates
from netcut_fx.gating.path_choice import choose_paths
from netcut_fx.gating.paths import Paths, gates_of_widths
from tests.gating.deciding import salient_widths
from tests.gating.test_budget import SLOTS, TABLE, tables

WIDTHS = ((0, 0, 1), (0, 1, 1), (2, 0, 3), (3, 1, 3))
PATHS = Paths(SLOTS, WIDTHS, (115, 165, 190, 270))
ALL_GATES = gates_of_widths(SLOTS, WIDTHS, 8)
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
        assert list(paths.widths[paths.choose(row)]) == salient_widths(TABLE, row)


def test_the_largest_sum_within_the_budget() -> None:
    # Steps: 3, 1, 1 of the first cell (5 stands on 1), 2 of the second, 4 and -1 of the third.
    assert PATHS.choose(SALIENT) == 3
    assert [PATHS.choose(SALIENT, budget) for budget in (115, 164, 165, 189, 190, 269, 270)] == [0, 0, 1, 1, 2, 2, 3]
    away = -np.abs(SALIENT)
    assert (PATHS.choose(away), PATHS.choose(away, 200)) == (0, 0)
    assert (PATHS.choose(away, 200, fill=True), PATHS.choose(away, 1000, fill=True)) == (2, 3)


def test_a_budget_looks_at_what_hardly_an_input_exceeds() -> None:
    paths = Paths(SLOTS, WIDTHS, (115, 165, 190, 270), (120, 200, 210, 300))
    assert [paths.choose(SALIENT, budget) for budget in (190, 200, 209, 210, 299, 300)] == [0, 1, 1, 2, 2, 3]
    assert Paths.from_json(json.loads(json.dumps(paths.to_json()))) == paths
    assert PATHS.bounds == PATHS.costs
    assert [paths.within(budget) for budget in (119, 120, 209, 300)] == [0, 1, 2, 4]
    with pytest.raises(BudgetError, match="is below the"):
        paths.budget(119e-6)
    assert paths.budget(121e-6) == 121


@given(tables(), st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_no_path_exceeds_the_budget(table: CostTable, seed: int, share: float, fill: bool) -> None:
    rng = np.random.default_rng(seed)
    budget = table.mandatory + int(share * 3000)
    saliences = rng.normal(size=(20, 50)).astype(np.float32)
    harms = [{width: float(rng.random()) for width in costs} for costs in table.cells]
    widths = choose_paths(harms, table, 0.5, 6, budget=budget)
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
    expected = ALL_GATES[[PATHS.choose(row) for row in rows]]
    assert np.array_equal(found, expected)
    assert len(np.unique(expected, axis=0)) == 4
    gates.fill = True
    filled = gates(torch.from_numpy(rows))[:, :8].numpy()
    assert np.array_equal(filled, ALL_GATES[[PATHS.choose(row, fill=True) for row in rows]])
    assert ALL_GATES[2].tolist() == [1, 0, 1, 1, 0, 1, 1, 1]


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


@given(tables(), st.integers(0, 2**32 - 1), st.floats(0.05, 1), st.integers(2, 6))
def test_paths_are_the_least_harmful_of_their_cost(table: CostTable, seed: int, rate: float, count: int) -> None:
    rng = np.random.default_rng(seed)
    harms = [{w: 0.0 if w == max(costs) else float(rng.random()) for w in costs} for costs in table.cells]
    found = choose_paths(harms, table, rate, count)
    assert found[-1] == tuple(max(costs) for costs in table.cells)
    assert 1 <= len(found) <= count
    every = [(table.total(w), sum(h[x] for h, x in zip(harms, w, strict=True))) for w in product(*table.cells)]
    least = min(cost for cost, _ in every)
    unit = max(1, (table.full - least) // 400)
    for widths in found:
        harm, room = sum(h[w] for h, w in zip(harms, widths, strict=True)), len(table.cells) * unit
        # Costs are told apart to a unit for each cell.
        assert harm <= min(h for cost, h in every if cost <= table.total(widths) - room or cost == least) + 1e-9


def test_which_paths_are_chosen() -> None:
    # The second cell harms nothing, the others the more, the more is left out.
    harms = [{0: 0.9, 1: 0.6, 2: 0.3, 3: 0.0}, {0: 0.0, 1: 0.0}, {1: 0.8, 2: 0.1, 3: 0.0}]
    found = choose_paths(harms, TABLE, 0.9, 3)
    assert found[0][1] == 0
    assert found[-1] == (3, 1, 3)
    assert [TABLE.total(one) for one in found] == sorted(TABLE.total(one) for one in found)
    bounded = choose_paths(harms, TABLE, 0.9, 3, budget=200)
    assert max(TABLE.total(one) for one in bounded) <= 200
    with pytest.raises(BudgetError) as error:
        choose_paths(harms, TABLE, 0.9, 1)
    assert str(error.value) == "1 paths leave nothing to decide; give 2 or more"


def test_json_and_errors() -> None:
    assert Paths.from_json(json.loads(json.dumps(PATHS.to_json()))) == PATHS
    with pytest.raises(BudgetError) as error:
        PATHS.choose(np.array([1, np.nan, 1, 1, 1, 1, 1, 1], np.float32))
    assert str(error.value) == "salience 1 of 8 is NaN: the gates decide nothing; train the network again"
    with pytest.raises(BudgetError, match=r"a budget of 0\.0001 ms is below the 0\.000115 ms that the network takes"):
        PATHS.budget(0.0001)


def test_explored_inputs_take_any_path_and_the_others_their_own() -> None:
    gates = Gates((1, 4), slots=SLOTS, layers=2, hidden=3).train()
    gates.paths = PATHS
    # Far from zero: the noise of training decides nothing.
    gates.raw = lambda early: torch.cat([torch.full((len(early), 8), 100.0), torch.ones(len(early), 8)], 1)  # type: ignore[method-assign]

    def shares(count: int) -> list[float]:
        made = gates(torch.zeros(count, 4))
        taken = np.array([[np.array_equal(row, path) for path in ALL_GATES] for row in made[:, :8].round().numpy()])
        assert (taken.sum(1) == 1).all()
        assert (taken.argmax(1) == made[:, -1].numpy()).all()
        return taken.mean(0).tolist()

    for explore in (0.0, 0.25):
        gates.explore = explore
        assert shares(4000) == pytest.approx([explore / 4] * 3 + [1 - explore * 3 / 4], abs=0.03)
    gates.explore = 1.0
    batches = [shares(3) for _ in range(1000)]
    assert {max(one) for one in batches} == {1.0}  # all inputs of a batch take the same path
    assert np.mean(batches, 0).tolist() == pytest.approx([0.25] * 4, abs=0.05)
