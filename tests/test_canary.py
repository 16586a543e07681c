"""The canary of an exploration, on torch eager with made-up clocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from netcut_fx.backends.eager import EagerBackend
from netcut_fx.exploration.canary import CanaryWatch
from netcut_fx.measure import Timer


def constant(ms: float) -> Timer:
    return lambda number: number * ms / 1e3


def test_what_the_canary_took_at_its_best_is_kept_for_the_next_process(tmp_path: Path) -> None:
    first = CanaryWatch(EagerBackend(), tmp_path)
    first.canary = constant(2.0)
    assert first.measure(constant(5.0)).ms == pytest.approx(5.0)
    second = CanaryWatch(EagerBackend(), tmp_path)
    assert second.best_ms == pytest.approx(2.0)
    # Never calm: half of the time is the neighbours'.
    second.canary, second.longest_s = constant(4.0), 0.0
    assert second.measure(constant(10.0)).ms == pytest.approx(5.0)
    assert CanaryWatch(EagerBackend(), tmp_path).best_ms == pytest.approx(2.0)
