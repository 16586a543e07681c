"""Costs and budgets."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from netcut_fx.errors import BudgetError
from netcut_fx.gating.cost_table import CostTable, as_cost
from netcut_fx.gating.objective import CostObjective
from netcut_fx.gating.slots import Slots, assign_slots
from tests.gating.deciding import salient_widths

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


def test_totals() -> None:
    assert (TABLE.mandatory, TABLE.full) == (115, 270)
    assert CostTable.from_json(json.loads(json.dumps(TABLE.to_json()))) == TABLE


def test_errors() -> None:
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
    expected = np.mean([TABLE.total(salient_widths(TABLE, row)) for row in saliences])
    assert float(CostObjective(TABLE, 1.0).expected(gates)) == pytest.approx(float(expected), rel=1e-5)
