"""Training of gated networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from netcut_fx.errors import BudgetError, SpecError
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.gate_network import Gates
from netcut_fx.gating.pricing import cost_table, flops
from netcut_fx.gating.staged import default_stages, train_gated
from netcut_fx.graph import TracedModule
from netcut_fx.passes import GatePass, HeadPass
from netcut_fx.passes.cut import cut_nodes
from netcut_fx.retraining import RetrainOptions
from tests.gating.deciding import gates_of, salient_widths
from tests.test_retrain import coloured
from tests.zoo import traced_zoo

OPTIONS = RetrainOptions(epochs=16, head_epochs=0, batch_size=16, lr=1e-2, gate_factor=20.0)


def gated(**options: Any) -> tuple[TracedModule, CostTable]:
    traced = traced_zoo("residual")
    headed = HeadPass(3)(cut_nodes(traced, [traced.by_qualname["layer2.1.relu#2"].name]))
    network = GatePass(**options)(headed)
    return network, cost_table(network, flops, unit="flops")


def mean_cost(network: TracedModule, table: CostTable) -> float:
    made: list[torch.Tensor] = []
    gates_of(network).register_forward_hook(
        lambda _, given, __: made.append(gates_of(network).raw(given[0])[:, : gates_of(network).total])
    )
    data = coloured()
    with torch.no_grad():
        network.graph_module(torch.from_numpy(data.inputs("test")))
    paths = gates_of(network).paths
    if paths is None:
        return sum(table.total(salient_widths(table, row.numpy())) for row in made[0]) / len(made[0])
    return sum(paths.costs[paths.choose(row.numpy())] for row in made[0]) / len(made[0])


def test_training_moves_the_cost_to_its_target_and_leaves_the_source(tmp_path: Path) -> None:
    network, table = gated()
    before, full = network.state_hash(), mean_cost(network, table)
    assert full == table.full
    trained = train_gated(network, coloured(), table, 0.6, options=OPTIONS, weight=20.0, checkpoint_dir=tmp_path)
    assert network.state_hash() == before
    assert gates_of(trained).stage == "all"
    assert mean_cost(trained, table) < full
    written = [file.stat().st_mtime_ns for file in sorted(tmp_path.iterdir())]
    again = train_gated(network, coloured(), table, 0.6, options=OPTIONS, weight=20.0, checkpoint_dir=tmp_path)
    assert [file.stat().st_mtime_ns for file in sorted(tmp_path.iterdir())] == written
    assert again.state_hash() == trained.state_hash()
    assert len(list(tmp_path.iterdir())) == 4  # one checkpoint a stage
    paths = gates_of(trained).paths
    assert paths is not None
    assert paths == gates_of(again).paths
    assert paths.widths[-1] == (4, 4, 4, 4)
    assert len(paths.widths) <= 6


def test_stages() -> None:
    both, _ = gated()
    layers, _ = gated(channels=False)
    gates: Gates = gates_of(both)
    assert default_stages(gates, 8) == (("layers", 1), ("channels", 1), ("paths", 4), ("joint", 2))
    assert default_stages(gates, 3) == (("paths", 3),)
    assert default_stages(gates_of(layers), 9) == (("paths", 7), ("joint", 2))


def test_errors() -> None:
    network, table = gated()
    with pytest.raises(BudgetError, match=r"a target rate of 1\.5 is not possible"):
        train_gated(network, coloured(), table, 1.5)
    with pytest.raises(SpecError) as error:
        train_gated(network, coloured(), table, 0.9, stages=[("joint", 0)])
    assert str(error.value) == (
        "stages [('joint', 0)] cannot be trained; give pairs of layers, channels, paths, joint and epochs from 1 on"
    )
