"""Compiled paths agree with torch and skip what the gates say."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from netcut_fx.backends.base import Backend
from netcut_fx.backends.eager import EagerBackend
from netcut_fx.gating.compiling import CompiledGated, compile_gated
from netcut_fx.gating.fitting import saliences
from netcut_fx.gating.paths import Paths
from netcut_fx.gating.pricing import cost_table, flops, ms_measured
from netcut_fx.graph import TracedModule
from netcut_fx.measure import Stopwatch
from netcut_fx.passes import GatePass
from tests.gating.deciding import cells_of, decide, gates_of, vary, wanted_paths
from tests.zoo import traced_zoo

IMAGES = 50
WATCH = Stopwatch(warmup=1, repeat=2, min_repeat_ms=0.1)


def gated(name: str, paths: int = 6, **options: Any) -> tuple[TracedModule, torch.Tensor]:
    """A network whose choices differ from image to image, between as many paths."""
    network = GatePass(hidden=8, **options)(traced_zoo(name))
    images = torch.randn(IMAGES, 3, 32, 32)
    vary(network, images)
    table = cost_table(network, flops, unit="flops")
    widths = wanted_paths(table, saliences(network, images.numpy()), paths)
    gates_of(network).paths = Paths(table.slots, widths, tuple(map(table.total, widths)))
    return network, images


def compiled_by(backend: Backend, network: TracedModule) -> CompiledGated:
    paths = gates_of(network).paths
    assert paths is not None
    return compile_gated(network, paths.widths, backend, watch=WATCH)


def eager_widths(network: TracedModule, image: torch.Tensor) -> tuple[tuple[int, ...], NDArray[np.float32]]:
    """Width of each cell as the gated network decides in torch, and its logits."""
    made: list[torch.Tensor] = []

    def remember(_module: object, _given: object, decided: torch.Tensor) -> None:
        made.append(decided)

    hook = gates_of(network).register_forward_hook(remember)
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


def agree(network: TracedModule, compiled: CompiledGated, images: torch.Tensor) -> None:
    run, widths = compiled.dispatcher(), compiled.program.paths.widths
    seen: set[int] = set()
    for image in images:
        expected, logits = eager_widths(network, image)
        found, path = run(image[None].numpy())
        assert widths[path] == expected
        assert np.abs(found - logits).max() <= 1e-4 * np.abs(logits).max()
        seen.add(path)
    assert len(seen) > 2


@pytest.mark.parametrize("options", [{}, {"channels": False}, {"layers": False}, {"scales": False}])
def test_decisions_agree_with_torch(options: dict[str, Any]) -> None:
    network, images = gated("residual", **options)
    agree(network, compiled_by(EagerBackend(), network), images)


def test_decisions_agree_with_tvm() -> None:
    from netcut_fx.backends.tvm import TvmBackend

    network, images = gated("residual", 4, groups=2)
    agree(network, compiled_by(TvmBackend(), network), images)


def test_what_is_skipped_is_not_called() -> None:
    network = GatePass()(traced_zoo("residual"))
    decide(network, layer_0=-1, layer_2=-1, group_6=-1)
    widths = ((0, 0, 0, 0), (0, 2, 0, 4), (4, 4, 4, 4))
    compiled = compile_gated(network, widths, EagerBackend(), watch=WATCH)
    calls: Counter[str] = Counter()
    names = ["entry", *("".join(map(str, one)) for one in compiled.program.paths.widths)]
    for module, name in zip(compiled.modules, names, strict=True):
        run = module.run_all
        module.run_all = lambda *given, run=run, name=name: (calls.update([name]), run(*given))[1]  # type: ignore[method-assign]
    _, path = compiled.dispatcher()(np.zeros((1, 3, 32, 32), np.float32))
    assert compiled.program.paths.widths[path] == (0, 2, 0, 4)
    assert calls == Counter(["entry", "0204"])


def test_a_budget_holds_for_every_input() -> None:
    network, images = gated("residual")
    # Costs of our own, so that nothing hangs on what this machine measures; two paths change places.
    compiled = compiled_by(EagerBackend(), network)
    widths = sorted(compiled.program.paths.widths, key=sum)
    order = [widths.index(one) for one in compiled.program.paths.widths]
    compiled = compiled.with_costs([[200, 400, 300, 500, 600, 700][i] for i in order])
    costs = compiled.program.paths.costs
    assert costs == (200, 300, 400, 500, 600, 700)
    assert list(compiled.program.paths.widths) == [widths[i] for i in (0, 2, 1, 3, 4, 5)]
    agree(network, compiled, images)
    budget = (costs[2] + costs[3]) // 2
    free, bound, filled = (
        [costs[run(image[None].numpy())[1]] for image in images]
        for run in (
            compiled.dispatcher(),
            compiled.dispatcher(budget=budget),
            compiled.dispatcher(budget=budget, fill=True),
        )
    )
    assert max(free) > budget >= max(filled)
    assert budget >= max(bound)
    assert np.mean(bound) <= np.mean(filled)


def test_bounds_go_with_their_paths_and_never_fall() -> None:
    network, _ = gated("residual")
    compiled = compiled_by(EagerBackend(), network).with_costs([10, 20, 30, 40, 50, 60])
    widths = compiled.program.paths.widths
    changed = compiled.with_costs([20, 10, 30, 40, 50, 60], [29, 18, 27, 45, 0, 70]).program.paths
    assert changed.widths == tuple(widths[i] for i in (1, 0, 2, 3, 4, 5))
    assert changed.bounds == (18, 29, 30, 45, 50, 70)


def test_measured_costs() -> None:
    network = GatePass(hidden=8, channels=False)(traced_zoo("residual"))
    table = cost_table(network, ms_measured(EagerBackend(), WATCH), dispatch=0.5)
    assert table.unit == "ms"
    assert table.full >= table.mandatory > 500_000
