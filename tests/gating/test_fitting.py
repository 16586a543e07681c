"""Gates learn which path is worth its cost for which input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from netcut_fx.errors import NetcutError
from netcut_fx.gating import fitting
from netcut_fx.gating.fitting import FitOptions, fit_gates, pooled_features, saliences, step_costs
from netcut_fx.gating.path_choice import (
    harms_of_widths,
    losses_on_path,
    some_rows,
    statistics_of_inputs,
    with_paths,
)
from netcut_fx.gating.pieces import gates_of, path_piece
from netcut_fx.gating.pricing import cost_table, flops
from netcut_fx.graph import TracedModule, state_hash
from netcut_fx.passes import GatePass, HeadPass
from netcut_fx.passes.cut import cut_nodes
from tests.gating.test_budget import TABLE
from tests.test_retrain import coloured
from tests.zoo import traced_zoo


def gated() -> TracedModule:
    traced = traced_zoo("residual")
    headed = HeadPass(3)(cut_nodes(traced, [traced.by_qualname["layer2.1.relu#2"].name]))
    return GatePass(hidden=16, scales=False)(headed)


def test_inputs_for_which_a_path_loses_little_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data, network = coloured(), gated()
    table = cost_table(network, flops, unit="flops")
    network = with_paths(network, data, table, 0.7, 2)
    paths = gates_of(network).paths
    assert paths is not None
    assert len(paths.widths) == 2

    def losses(_network: object, widths: object, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        # The cheap path cannot tell class 2.
        return np.where((labels == 2) & (widths == paths.widths[0]), 3.0, 0.1).astype(np.float32)

    monkeypatch.setattr(fitting, "losses_on_path", losses)
    rate = (paths.costs[0] * 2 + paths.costs[1]) / 3 / table.full
    fitted = fit_gates(network, data, table, rate, FitOptions(epochs=60, lr=1e-2))
    found = gates_of(fitted).paths
    assert found == paths
    inputs, labels = data.inputs("test"), data.labels[data.splits["test"]]
    chosen = np.array([paths.choose(row) for row in saliences(fitted, inputs)])
    assert (chosen == (labels == 2)).mean() > 0.9
    assert gates_of(network).paths == paths
    assert not np.array_equal(saliences(network, inputs), saliences(fitted, inputs))


def test_images_are_drawn_from_all_classes_of_sorted_data() -> None:
    data = coloured()
    rows = data.splits["train"]
    by_class = replace(
        data, digest="", splits={**data.splits, "train": rows[np.argsort(data.labels[rows], kind="stable")]}
    )
    few = some_rows(by_class, 12)
    assert len(set(few.tolist())) == 12
    assert set(few) <= set(rows)
    assert set(data.labels[few]) == {0, 1, 2}
    assert np.array_equal(few, some_rows(by_class, 12))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 1.0])
def test_validation_images_meet_the_target(share: float) -> None:
    data, network = coloured(), gated()
    table = cost_table(network, flops, unit="flops")
    rate = (table.mandatory + share * (table.full - table.mandatory)) / table.full
    network = fit_gates(with_paths(network, data, table, rate, 4), data, table, rate, FitOptions(epochs=2))
    paths = gates_of(network).paths
    assert paths is not None
    costs = [paths.costs[paths.choose(row)] for row in saliences(network, data.inputs("validation"))]
    assert np.mean(costs) <= rate * table.full + 1
    # As near as one image more on the next dearer path.
    gaps = np.diff(paths.costs)
    assert np.mean(costs) >= min(rate * table.full, paths.costs[-1]) - gaps.max()


def test_losses_on_a_path_are_those_of_its_own_network() -> None:
    data, network = coloured(), gated()
    inputs, labels = data.inputs("test")[:6], data.labels[data.splits["test"]][:6]
    for widths in ((4, 4, 4, 4), (0, 2, 1, 0), (0, 1, 4, 3)):
        found = losses_on_path(network, widths, inputs, labels)
        piece = path_piece(network, widths).graph_module
        early: list[torch.Tensor] = []
        hook = gates_of(network).register_forward_pre_hook(lambda _, given: early.append(given[0]))  # noqa: B023
        with torch.no_grad():
            network.graph_module(torch.from_numpy(inputs))
            hook.remove()
            logits = torch.cat([piece(one[None].permute(0, 2, 3, 1)) for one in early[0]])
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
        assert np.allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_harms_are_zero_where_nothing_is_left_out() -> None:
    data, network = coloured(), gated()
    table = cost_table(network, flops, unit="flops")
    harms = harms_of_widths(network, data.inputs("test"), data.labels[data.splits["test"]], table)
    assert [set(harm) for harm in harms] == [set(costs) for costs in table.cells]
    assert all(harm[max(harm)] == 0 for harm in harms)
    assert all(value >= 0 for harm in harms for value in harm.values())


def test_harm_is_told_by_the_statistics_of_what_reaches_a_norm() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)).eval()
    images = 5 + 3 * torch.randn(6, 3, 8, 8)
    before = state_hash(network)
    with torch.no_grad():
        with statistics_of_inputs(network):
            found = network.eval()(images)
        kept = network(images)
    assert found.mean((0, 2, 3)).abs().max() < 1e-4
    assert (found.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-3
    assert (kept - found).abs().max() > 0.1
    assert state_hash(network) == before


def test_harms_do_not_depend_on_statistics_that_were_kept() -> None:
    data, network = coloured(), gated()
    table = cost_table(network, flops, unit="flops")
    rows = data.splits["test"]
    before = harms_of_widths(network, data.inputs("test"), data.labels[rows], table)
    norms = [m for m in network.graph_module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        assert norm.running_mean is not None
        norm.running_mean += 1.0
    assert harms_of_widths(network, data.inputs("test"), data.labels[rows], table) == before
    assert any(value > 0 for harm in before for value in harm.values())


def test_step_costs() -> None:
    # Two layers, then three groups of the first cell and three of the last.
    found = (step_costs(TABLE, 8) * TABLE.full).round().int().tolist()
    widths = [0, 0, 1]
    total = TABLE.total(widths)
    assert total + sum(found) == TABLE.full
    assert found[2] == found[5] == 0  # the first group of a cell is its layer's, or always there


def test_pooled_features_are_what_the_gates_read() -> None:
    data, network = coloured(), gated()
    inputs = data.inputs("test")[:4]
    gates, raw = gates_of(network), list[torch.Tensor]()
    hook = gates.register_forward_pre_hook(lambda _, given: raw.append(gates.raw(given[0])))
    with torch.no_grad():
        network.graph_module(torch.from_numpy(inputs))
        hook.remove()
        found = gates.from_pooled(pooled_features(network, inputs))
    assert torch.equal(found, raw[0])


def test_without_paths_there_is_nothing_to_choose_from() -> None:
    network = gated()
    with pytest.raises(NetcutError, match="has no paths to choose from; set them with with_paths"):
        fit_gates(network, coloured(), cost_table(network, flops, unit="flops"), 0.7)
