"""Whether a bundle answers as torch does, and how much its times vary for one and the same input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netcut_fx.data import Dataset
from netcut_fx.evaluate import predict_logits
from netcut_fx.gating.fitting import saliences
from netcut_fx.gating.gated_job import GatedResult
from netcut_fx.gating.pieces import gates_of
from netcut_fx.runtime import Runtime, load

#: A network at rest takes at most so many times what it takes in the fastest tenth of its runs.
_AT_REST = 1.05


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
    expected = predict_logits(result.traced.graph_module, inputs)
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


def gate_overhead(result: GatedResult, rounds: int = 400) -> dict[str, float]:
    """What deciding and calling costs where nothing is skipped: the whole path beside the static network, in turn.

    The fastest tenth of the rounds counts: what others do on the machine only adds.
    """
    with load(result.bundle) as gated, load(result.static_bundle) as static:
        timers = [gated.timer(len(result.paths.widths) - 1), static.timer()]
        ms = np.array([[_fastest_ms(timer) for timer in timers] for _ in range(rounds)])
    whole, without = np.quantile(ms, 0.1, 0)
    return {"gate_overhead_ms": float(whole - without), "gate_overhead_pct": float(100 * (whole / without - 1))}


def timed_again(
    result: GatedResult, inputs: np.ndarray, over: np.ndarray, bound_ms: float, tries: int = 200
) -> dict[str, int]:
    """Time the inputs `over` (N,) a bound again, each until the static network beside it takes what it takes at rest.

    Rest is told to five per cent, so that much beyond the bound is no violation.

    Returns
    -------
    dict
        ``violations``, which exceed the bound even then, and ``undecided``, for which the machine was never at rest.
    """
    calm_ms = _AT_REST * np.quantile(result.served.static_ms, 0.1)
    violations = undecided = 0
    with load(result.bundle) as gated, load(result.static_bundle) as static:
        timer, canary = gated.timer(), static.timer()
        for image in inputs[np.flatnonzero(over)]:
            gated.logits(image[None])
            for _ in range(tries):
                ms = _fastest_ms(timer, 20)  # the canary has taken the caches
                if _fastest_ms(canary) <= calm_ms or ms <= bound_ms:
                    violations += int(ms > _AT_REST * bound_ms)
                    break
            else:
                undecided += 1
    return {"violations": violations, "undecided": undecided}


def noise_ms(runtime: Runtime, image: np.ndarray, rounds: int = 2000) -> float:
    """How far above its median the fastest of some runs lies for one input, in 999 of 1,000 rounds."""
    runtime.logits(image)
    timer = runtime.timer()
    ms = np.array([_fastest_ms(timer) for _ in range(rounds)])
    return float(np.quantile(ms, 0.999) - np.median(ms))


def _fastest_ms(timer: Callable[[int], float], runs: int = 5) -> float:
    return min(timer(1) for _ in range(runs)) * 1e3
