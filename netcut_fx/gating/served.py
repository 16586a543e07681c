"""What the bundle of a gated network does with images, one at a time, and what its paths take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcut_fx.gating.gated_bundle import read_gated_bundle
from netcut_fx.runtime import Runtime, load

#: Runs of one image when it is timed; the fastest counts, since others use the machine as well.
_RUNS_PER_IMAGE = 5


@dataclass(frozen=True)
class Served:
    """What a bundle did with some images.

    Parameters
    ----------
    ms : float array (N,)
        Of each image, gates and dispatch included.
    paths : int array (N,)
        The number of the path of each.
    correct : bool array (N,)
        Whether the answer was right.
    static_ms : float array (N,)
        Of the network without gates, served alike, in the same rounds; empty if there was none.
    """

    ms: NDArray[np.float64]
    paths: NDArray[np.int64]
    correct: NDArray[np.bool_]
    static_ms: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Mean, median, 99th percentile (from 1,000 images on) and worst."""
        return {
            "images": len(self.ms),
            "accuracy": float(self.correct.mean()),
            "mean_ms": float(self.ms.mean()),
            "p50_ms": float(np.median(self.ms)),
            "p99_ms": float(np.quantile(self.ms, 0.99)) if len(self.ms) >= 1000 else None,
            "worst_ms": float(self.ms.max()),
            "static_ms": float(self.static_ms.mean()) if len(self.static_ms) else None,
        }


def serve(
    runtime: Runtime, inputs: NDArray[np.float32], labels: NDArray[np.int64], *, beside: Runtime | None = None
) -> Served:
    """Answer `inputs` one at a time and take the time of each, the fastest of five; `beside` answers in turn."""
    timer = runtime.timer()
    static = None if beside is None else beside.timer()
    ms, static_ms = np.empty(len(inputs)), np.empty(len(inputs) if static else 0)
    correct = np.empty(len(inputs), bool)
    for i, image in enumerate(inputs):
        correct[i] = int(runtime.logits(image[None])[0].argmax()) == labels[i]
        ms[i] = min(timer(1) for _ in range(_RUNS_PER_IMAGE)) * 1e3
        if static is not None:
            static_ms[i] = min(static(1) for _ in range(_RUNS_PER_IMAGE)) * 1e3
    return Served(ms, runtime.paths(inputs), correct, static_ms)


def served_costs(bundle: Path, rounds: int = 200) -> tuple[list[int], list[int]]:
    """What each path of a bundle takes as it is served, in nanoseconds, all in turn.

    Returns
    -------
    costs : list of int
        The median over rounds of the fastest of five runs.
    bounds : list of int
        The slowest round, the fastest of five runs in each as images are timed: single runs would say what the
        machine's other users do.
    """
    with load(bundle) as runtime:
        timers = [runtime.timer(path) for path in range(len(read_gated_bundle(bundle).program.paths.widths))]
        seconds = [[[timer(1) for _ in range(_RUNS_PER_IMAGE)] for timer in timers] for _ in range(rounds)]
    ns = np.array(seconds).transpose(1, 0, 2) * 1e9
    costs, bounds = np.median(ns.min(2), 1), ns.min(2).max(1)
    return np.rint(costs).astype(int).tolist(), np.ceil(bounds).astype(int).tolist()
