"""Gated networks as pieces: each path computes what the gated network does, with less work."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from netcut_fx.errors import PassError
from netcut_fx.gating.path_choice import set_paths
from netcut_fx.gating.paths import Paths
from netcut_fx.gating.pieces import cells_of, entry_piece, gates_of, path_piece, path_scales
from netcut_fx.gating.pricing import cost_table, flops, path_flops
from netcut_fx.gating.program import Program, lay_out
from netcut_fx.passes import GatePass
from netcut_fx.verify import check
from tests.gating.deciding import disturb_norms, vary
from tests.passes.comparing import assert_near, results
from tests.zoo import traced_zoo

Widths = tuple[tuple[int, ...], ...]


def run(gated: Any, widths: Widths, images: Tensor) -> list[Tensor]:
    """Entry, choice and path in torch."""
    scales = [path_scales(gated, one) for one in widths]
    slots = tuple(cell.slots for cell in cells_of(gated))
    program, columns = lay_out(gates_of(gated).total, Paths(slots, widths, tuple(range(len(widths)))), scales)
    assert Program.from_json(json.loads(json.dumps(program.to_json()))) == program
    entry = entry_piece(gated, columns)
    paths = [path_piece(gated, one) for one in widths]
    for piece in (entry, *paths):
        check(piece)
    made: list[Tensor] = []
    with torch.no_grad():
        for image in images:
            numbers, early = entry.graph_module(image[None])
            chosen = program.paths.choose(numbers[0, : program.total].numpy())
            given = [torch.from_numpy(scale) for scale in program.given(chosen, numbers[0].numpy())]
            made.append(paths[chosen].graph_module(early, *given))
    return made


def some_paths(gated: Any) -> Widths:
    """The least, the most, and two between."""
    ranges = [cell.slots.widths for cell in cells_of(gated)]
    least, most = (tuple(r[i] for r in ranges) for i in (0, -1))
    middle = tuple(r[len(r) // 2] for r in ranges)
    return (least, middle, (*least[:1], *most[1:]), most)


@pytest.mark.parametrize("name", ["residual", "inverted_residual", "transformer", "dense", "squeeze_excite"])
def test_paths_compute_what_the_gated_network_does(name: str) -> None:
    gated = GatePass(hidden=4)(traced_zoo(name))
    images = torch.randn(12, 3, 32, 32)
    vary(gated, images)
    widths = some_paths(gated)
    gated = set_paths(gated, Paths(gates_of(gated).slots, widths, tuple(range(len(widths)))))
    disturb_norms(gated)
    assert_near(run(gated, widths, images), [results(gated, (image[None],))[0] for image in images])


def test_a_narrower_path_has_fewer_operations() -> None:
    static = traced_zoo("residual")
    gated = GatePass()(static)
    table = cost_table(gated, flops, unit="flops", static=static)
    assert [list(costs) for costs in table.cells] == [[0, 1, 2, 3, 4]] * 4
    for costs in table.cells:
        assert costs[0] < costs[1] < costs[2] < costs[3] < costs[4]
        assert costs[1] < 0.4 * costs[4]
    assert path_flops(gated, [(4, 4, 4, 4), (0, 2, 0, 2)])[1] < 0.6 * table.full
    assert table.full == pytest.approx(path_flops(gated, [(4, 4, 4, 4)])[0], rel=1e-6)


def test_less_never_costs_more() -> None:
    gated = GatePass()(traced_zoo("residual"))
    random = np.random.default_rng(0)
    # Timers err: some narrower paths seem to take longer.
    table = cost_table(gated, lambda networks: [ms * random.uniform(0.8, 1.25) for ms in flops(networks)])
    for costs in table.cells:
        assert sorted(costs.values()) == [costs[width] for width in sorted(costs)]
        assert min(costs.values()) == 0


def test_a_skipped_cell_leaves_no_operation_behind() -> None:
    gated = GatePass(channels=False, scales=False)(traced_zoo("residual"))
    path = path_piece(gated, (0, 0, 1, 1))
    names = [str(node.meta["qualname"]) for node in path.nodes]
    assert not any(name.startswith("layer1") for name in names)  # a ReLU of what is positive already


def test_a_network_without_gates_has_no_pieces() -> None:
    with pytest.raises(PassError) as error:
        entry_piece(traced_zoo("residual"), [0])
    assert str(error.value) == "residual has no gates; run the pass gate on it first"
