"""Costs and budgets."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netcut_fx.errors import BudgetError
from netcut_fx.gating.cost_table import CostTable, as_cost
from netcut_fx.gating.objective import CostObjective
from netcut_fx.gating.slots import Slots, assign_slots

SLOTS = (Slots(0, 2, 3), Slots(1, None, 1), Slots(None, 5, 3))
TABLE = CostTable("ms", 100, ({0: 10, 1: 40, 2: 60, 3: 90}, {0: 0, 1: 50}, {1: 5, 2: 20, 3: 30}), SLOTS)


def test_slots() -> None:
    assert assign_slots([(True, 3), (True, 0), (False, 3)]) == (SLOTS, 2, 6)
    assert [s.columns for s in SLOTS] == [(0, 3, 4), (1,), (6, 7)]
    assert [list(s.widths) for s in SLOTS] == [[0, 1, 2, 3], [0, 1], [1, 2, 3]]


@st.composite
def tables(draw: st.DrawFn) -> CostTable:
    kinds = draw(st.lists(st.tuples(st.booleans(), st.booleans()).filter(any), min_size=1, max_size=6))
    slots, _, _ = assign_slots([(skippable, draw(st.integers(2, 4)) * grouped) for skippable, grouped in kinds])
    # Wider need not be slower: measured tables are not monotone.
    cells = tuple({w: draw(st.integers(0, 1000)) for w in s.widths} for s in slots)
    return CostTable("ms", draw(st.integers(0, 1000)), cells, slots)


@given(tables(), st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_no_choice_exceeds_the_budget(table: CostTable, seed: int, share: float, fill: bool) -> None:
    rng = np.random.default_rng(seed)
    budget = table.mandatory + int(share * 3000)
    for _ in range(20):
        saliences = rng.normal(size=50).astype(np.float32)
        widths = table.choose(saliences, budget, fill=fill)
        assert table.total(widths) <= budget
        assert all(width in costs for width, costs in zip(widths, table.cells, strict=True))


def test_the_most_salient_fit_first() -> None:
    saliences = np.array([3, 2, 9, 1, 5, 9, 4, -1], np.float32)
    assert table_choice(saliences, None) == [3, 1, 2]
    # 115 always; then +15 (salience 4), +30 (3), +50 (2), +20 and +30 (both 1, since 5 comes after 1).
    assert table_choice(saliences, 115) == [0, 0, 1]
    assert table_choice(saliences, 160) == [1, 0, 2]
    assert table_choice(saliences, 210) == [1, 1, 2]
    assert table_choice(saliences, 239) == [2, 1, 2]
    assert table_choice(saliences, 10**6) == [3, 1, 2]
    assert TABLE.choose(saliences, 10**6, fill=True) == [3, 1, 3]


def table_choice(saliences: np.ndarray, budget: int | None) -> list[int]:
    widths = TABLE.choose(saliences, budget)
    assert budget is None or TABLE.total(widths) <= budget
    return widths


def test_a_step_that_does_not_fit_blocks_those_on_top_of_it() -> None:
    saliences = np.array([9, -1, 0, 8, 7, 0, -1, -1], np.float32)
    assert TABLE.choose(saliences, 130) == [0, 0, 1]


def test_totals() -> None:
    assert (TABLE.mandatory, TABLE.full) == (115, 270)
    assert CostTable.from_json(json.loads(json.dumps(TABLE.to_json()))) == TABLE


def test_errors() -> None:
    with pytest.raises(BudgetError) as error:
        TABLE.choose(np.array([1, np.nan, 1, 1, 1, 1, 1, 1], np.float32))
    assert str(error.value) == "salience 1 of 8 is NaN: the gates decide nothing; train the network again"
    with pytest.raises(BudgetError) as error:
        TABLE.budget(0.0001)
    assert str(error.value) == (
        "a budget of 0.0001 ms is below the 0.000115 ms that the network takes with all that can be skipped left out; "
        "give at least that, or cut the network first"
    )
    with pytest.raises(BudgetError, match="a budget of nan is not possible; give a positive number of ms"):
        TABLE.budget(float("nan"))
    with pytest.raises(BudgetError) as error:
        as_cost("ms", float("nan"), "net.stem")
    assert str(error.value) == (
        "the cost of net.stem is nan; a gated network needs the cost of each part: profile it first, or count FLOPs "
        "instead"
    )


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.01, float("nan")])
def test_a_target_outside_its_range(rate: float) -> None:
    with pytest.raises(BudgetError) as error:
        CostObjective(TABLE, rate)
    assert str(error.value) == f"a target rate of {rate} is not possible; give a share above 0 and at most 1"


def test_a_target_below_the_mandatory_part() -> None:
    with pytest.raises(BudgetError) as error:
        CostObjective(TABLE, 0.3)
    assert str(error.value) == (
        "a target rate of 0.3 cannot be reached: with all that can be skipped left out the network still takes 0.426 "
        "of its cost; give at least that, or cut the network first"
    )
    assert CostObjective.of_cost(TABLE, 0.000135).rate == pytest.approx(0.5)


def test_the_expected_cost_is_the_mean_of_the_tables() -> None:
    saliences = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    gates = torch.from_numpy(saliences > 0).float()
    expected = np.mean([TABLE.total(TABLE.choose(row)) for row in saliences])
    assert float(CostObjective(TABLE, 1.0).expected(gates)) == pytest.approx(float(expected), rel=1e-5)
