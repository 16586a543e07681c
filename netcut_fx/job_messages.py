"""What a job says on the way: progress, and why no candidate was left."""

from __future__ import annotations

from typing import Any

from netcut_fx.backends.base import Progress
from netcut_fx.job_values import Reporter
from netcut_fx.measure import Measurement


def all_broken(measured: dict[str, Measurement], deadline_ms: float) -> str:
    """Say that no candidate met the deadline, and what the fastest took."""
    fastest = min(measured, key=lambda name: measured[name].ms)
    return (
        f"every feasible candidate broke the deadline of {deadline_ms:.3f} ms when measured; the fastest, cut at "
        f"{fastest}, took {measured[fastest].ms:.3f} ms: allow at least that, tune with more --trials, or run on a "
        "quiet machine"
    )


def progress_of(reporter: Reporter) -> Progress:
    """What a backend calls, to be heard by `reporter`."""

    def forward(done: int, total: int, what: str) -> None:
        reporter.progress(done, total, what)

    return forward


def training_line(record: Any) -> str:
    """Say how far a retraining is."""
    accuracy = record.get("validation_accuracy", record.get("accuracy"))
    shown = f", validation {accuracy:.1%}" if isinstance(accuracy, float) else ""
    return f"{record.get('stage', 'train')}{shown}"
