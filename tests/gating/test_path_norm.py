"""Batch-norms of their own on each path."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netcut_fx.gating.path_choice import on_path, set_paths
from netcut_fx.gating.path_norm import PathNorm
from netcut_fx.gating.paths import Paths
from netcut_fx.graph import TracedModule
from netcut_fx.passes import GatePass
from tests.gating.deciding import cells_of, disturb_norms, gates_of, vary
from tests.passes.comparing import results
from tests.zoo import traced_zoo

WIDTHS = ((0, 4, 2, 0), (4, 0, 0, 3), (4, 4, 4, 4))


def with_norms() -> TracedModule:
    gated = GatePass(hidden=4)(traced_zoo("residual"))
    return set_paths(gated, Paths(gates_of(gated).slots, WIDTHS, (1, 2, 3)))


def disturbed_norm() -> PathNorm:
    norm = PathNorm(nn.BatchNorm2d(6), 3)
    for i, one in enumerate(norm.norms):
        one.weight.data.fill_(1 + i)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return norm


@pytest.mark.parametrize("training", [False, True])
def test_rows_are_normalised_as_their_path_does(training: bool) -> None:
    norm, alone = disturbed_norm().train(training), disturbed_norm().train(training)
    x, rows = torch.randn(9, 6, 4, 4), torch.tensor([2, 0, 0, 2, 0, 0, 2, 2, 0])
    norm.rows = rows
    found = norm(x)
    for path in (0, 2):
        torch.testing.assert_close(found[rows == path], alone.norms[path](x[rows == path]))
    for one, other in zip(norm.norms.buffers(), alone.norms.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    # The path that none took has learnt nothing.
    assert torch.equal(norm.norms[1].get_buffer("running_var"), torch.ones(6))


def test_groups_are_exact_under_automatic_casts() -> None:
    norm, exact = disturbed_norm().train(), disturbed_norm().train()
    x = torch.randn(8, 6, 4, 4)
    norm.rows = exact.rows = torch.tensor([0, 1, 0, 1, 1, 0, 2, 2])
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x)
    torch.testing.assert_close(found, exact(x))
    for one, other in zip(norm.norms.buffers(), exact.norms.buffers(), strict=True):
        assert torch.equal(one, other)


def test_frozen_statistics_stay_while_the_network_learns() -> None:
    norm = disturbed_norm().train()
    norm.norms.eval()
    x, rows = torch.randn(6, 6, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    norm.rows = rows
    found = norm(x)
    torch.testing.assert_close(found, (1 + rows)[:, None, None, None] * x / (1 + 1e-5) ** 0.5)
    assert all(torch.equal(one.get_buffer("running_mean"), torch.zeros(6)) for one in norm.norms)


def test_one_row_without_positions_is_normalised_with_what_is_known() -> None:
    norm = disturbed_norm().train()
    norm.rows = torch.tensor([1, 0, 1])
    found = norm(torch.randn(3, 6, 1, 1))
    assert found.isfinite().all()
    assert norm.norms[0].training
    assert norm.norms[0].num_batches_tracked == 0


def test_gates_and_norms_alone_change_nothing() -> None:
    static, network, x = traced_zoo("residual"), with_norms(), torch.randn(5, 3, 32, 32)
    assert torch.equal(results(network, (x,))[0], results(static, (x,))[0])


def test_each_input_gets_the_norms_of_its_path() -> None:
    network, x = with_norms(), torch.randn(12, 3, 32, 32)
    vary(network, x)
    disturb_norms(network)
    found = results(network, (x,))[0]
    seen: set[int] = set()
    for image, row in zip(x, found, strict=True):
        answers: list[torch.Tensor] = []
        for widths in WIDTHS:
            with on_path(network, widths):
                answers.append(results(network, (image[None],))[0][0])
        errors = [float((answer - row).abs().max()) for answer in answers]
        assert min(errors) < 1e-5
        assert sorted(errors)[1] > 1e-3
        seen.add(errors.index(min(errors)))
    assert len(seen) > 1


def test_paths_of_an_earlier_batch_do_not_stay() -> None:
    network, x = with_norms(), torch.randn(12, 3, 32, 32)
    vary(network, x)
    disturb_norms(network)
    results(network, (x,))
    other = (4, 4, 4, 3)  # no path: the norms of the last one
    with on_path(network, other):
        found = results(network, (x[:5],))[0]
        for cell in cells_of(network):
            for norm in cell.body.modules():
                if isinstance(norm, PathNorm):
                    assert norm.rows is None
                    norm.norms[0] = norm.norms[1] = norm.norms[2]
        assert torch.equal(found, results(network, (x[:5],))[0])


def test_a_batch_on_one_path_computes_that_path_alone() -> None:
    network = with_norms()
    gates, calls = gates_of(network), [0] * 4
    for number, cell in enumerate(cells_of(network)):
        cell.body.register_forward_hook(lambda *_, number=number: calls.__setitem__(number, calls[number] + 1))
    gates.explore = 1.0
    network.graph_module.train()
    taken = [0] * 4
    for seed in range(20):
        torch.manual_seed(seed)
        network.graph_module(torch.randn(4, 3, 32, 32)).sum().backward()
        assert gates.last is not None
        layers = gates.last[0, :4] > 0.5
        taken = [count + int(on) for count, on in zip(taken, layers, strict=True)]
    assert calls == taken
    assert 0 < taken[0] < 20
    gates.explore = 0.25  # gates learn: all is computed, whatever it is multiplied by
    network.graph_module(torch.randn(16, 3, 32, 32))
    assert calls == [count + 1 for count in taken]
