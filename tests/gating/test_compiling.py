"""Compiled pieces agree with torch and skip what the gates say."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from netcut_fx.backends.eager import EagerBackend
from netcut_fx.gating.compiling import CompiledGated, compile_gated
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.dispatch import Program
from netcut_fx.gating.pieces import Pieces, split
from netcut_fx.gating.pricing import cost_table, flops
from netcut_fx.graph import TracedModule
from netcut_fx.measure import Stopwatch
from netcut_fx.passes import GatePass
from tests.gating.deciding import cells_of, decide, gates_of, vary
from tests.zoo import traced_zoo

IMAGES = 50


def gated(name: str, **options: Any) -> tuple[TracedModule, Pieces, CostTable, torch.Tensor]:
    network = GatePass(hidden=8, **options)(traced_zoo(name))
    images = torch.randn(IMAGES, 3, 32, 32)
    vary(network, images)
    pieces = split(network)
    return network, pieces, cost_table(pieces, flops, unit="flops"), images


def eager_widths(network: TracedModule, image: torch.Tensor) -> tuple[tuple[int, ...], NDArray[np.float32]]:
    """Width of each cell as the gated network decides in torch, and its logits."""
    made: list[torch.Tensor] = []
    hook = gates_of(network).register_forward_hook(lambda _, __, decided: made.append(decided))
    with torch.no_grad():
        logits = network.graph_module(image[None]).numpy()
    hook.remove()
    widths: list[int] = []
    for cell in cells_of(network):
        width = cell.slots.widths[0]
        for column in cell.slots.columns:
            if not made[0][0, column]:
                break
            width += 1
        widths.append(width)
    return tuple(widths), logits


def agree(network: TracedModule, compiled: CompiledGated, table: CostTable, images: torch.Tensor) -> None:
    run = compiled.dispatcher(table)
    seen: set[tuple[int, ...]] = set()
    for image in images:
        expected, logits = eager_widths(network, image)
        found, widths = run(image[None].numpy())
        assert widths == expected
        assert np.abs(found - logits).max() <= 1e-4 * np.abs(logits).max()
        seen.add(widths)
    assert len(seen) > 5


@pytest.mark.parametrize("options", [{}, {"channels": False}, {"layers": False}, {"scales": False}])
def test_decisions_agree_with_torch(options: dict[str, Any]) -> None:
    network, pieces, table, images = gated("residual", **options)
    agree(network, compile_gated(pieces, EagerBackend()), table, images)


def test_decisions_agree_with_tvm() -> None:
    from netcut_fx.backends.tvm import TvmBackend

    network, pieces, table, images = gated("residual", groups=2)
    agree(network, compile_gated(pieces, TvmBackend()), table, images)


def test_what_is_skipped_is_not_called() -> None:
    network = GatePass()(traced_zoo("residual"))
    decide(network, layer_0=-1, layer_2=-1, group_6=-1)
    pieces = split(network)
    compiled = compile_gated(pieces, EagerBackend())
    calls: Counter[str] = Counter()
    for module, piece in zip(compiled.modules, compiled.pieces, strict=True):
        run = module.run
        module.run = lambda *given, run=run, name=piece.name: (calls.update([name]), run(*given))[1]  # type: ignore[method-assign]
    table = cost_table(pieces, flops, unit="flops")
    _, widths = compiled.dispatcher(table)(np.zeros((1, 3, 32, 32), np.float32))
    assert widths == (0, 2, 0, 4)
    assert calls == Counter(
        [f"residual.{name}" for name in ("stem", "gates", "layer1.1/2", "layer2.0/0", "layer2.1/4", "end")]
    )


def test_a_budget_holds_for_every_input() -> None:
    _, pieces, table, images = gated("residual")
    compiled = compile_gated(pieces, EagerBackend())
    budget = (table.mandatory + table.full) // 2
    run, full = compiled.dispatcher(table, budget=budget), compiled.dispatcher(table, budget=budget, fill=True)
    spent = [[table.total(r(image[None].numpy())[1]) for image in images] for r in (run, full)]
    assert max(spent[0]) <= max(spent[1]) <= budget
    assert np.mean(spent[0]) < np.mean(spent[1])


def test_measured_costs_and_the_program_as_json() -> None:
    _, pieces, _, _ = gated("residual", channels=False)
    compiled = compile_gated(pieces, EagerBackend())
    table = compiled.measured(pieces, Stopwatch(warmup=1, repeat=2, min_repeat_ms=0.1), dispatch_ms=0.5)
    assert table.unit == "ms"
    assert table.full > table.mandatory > 500_000
    assert Program.from_json(compiled.program.to_json()) == compiled.program
