"""Whether a bundle answers as torch does, and how much its times vary for one and the same input."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from netcut_fx.data import Dataset
from netcut_fx.gating.fitting import saliences
from netcut_fx.gating.gated_job import GatedResult
from netcut_fx.gating.pieces import gates_of
from netcut_fx.runtime import Runtime, load


def agreement(result: GatedResult, data: Dataset, count: int) -> dict[str, Any]:
    """Decisions and logits of the bundle against torch on test images.

    Returns
    -------
    dict
        ``images``, ``other_paths`` (images for which the two decide differently) and ``largest_relative_error`` of the
        logits of the others.
    """
    inputs = data.inputs("test")[:count]
    chosen = gates_of(result.traced).paths
    assert chosen is not None
    eager = [chosen.widths[chosen.choose(row)] for row in saliences(result.traced, inputs)]
    with torch.no_grad():
        expected = result.traced.graph_module(torch.from_numpy(inputs)).numpy()
    with load(result.bundle) as runtime:
        served = [result.paths.widths[path] for path in runtime.paths(inputs)]
        found = runtime.logits(inputs)
    same = np.array([a == b for a, b in zip(eager, served, strict=True)])
    errors = np.abs(found - expected).max(1) / np.abs(expected).max(1)
    return {
        "images": len(inputs),
        "other_paths": int((~same).sum()),
        "largest_relative_error": float(errors[same].max()) if same.any() else None,
    }


def over_again(runtime: Runtime, inputs: np.ndarray, over: np.ndarray, bound_ms: float, tries: int = 20) -> int:
    """How many of the inputs `over` (N,) a bound exceed it whenever they are timed again: noise goes, paths stay."""
    timer, count = runtime.timer(), 0
    for image in inputs[np.flatnonzero(over)]:
        runtime.logits(image[None])
        count += min(timer(1) * 1e3 for _ in range(tries)) > bound_ms
    return count


def noise_ms(runtime: Runtime, image: np.ndarray, rounds: int = 2000, runs: int = 5) -> float:
    """How far above its median the fastest of some runs lies for one input, in 999 of 1,000 rounds."""
    runtime.logits(image)
    timer = runtime.timer()
    ms = np.array([min(timer(1) for _ in range(runs)) * 1e3 for _ in range(rounds)])
    return float(np.quantile(ms, 0.999) - np.median(ms))
