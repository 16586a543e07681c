"""What a job tells while it runs, and what it knows when it is finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cost_models import Calibration, Kernel, LatencyEstimate
from netcut_fx.backends.base import Backend, CompiledModule
from netcut_fx.data import Dataset
from netcut_fx.decision import Decision
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.job_options import RunOptions
from netcut_fx.measure import Measurement
from netcut_fx.quick import QuickResult
from netcut_fx.retraining import TrainedCandidate


class Reporter(Protocol):
    """Hears what the job is doing."""

    def stage(self, name: str) -> None:
        """A stage begins."""
        ...

    def progress(self, done: int, total: int, what: str) -> None:
        """Within the stage."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


@dataclass(frozen=True)
class StageRecord:
    """How long a stage took and whether its result was there already."""

    name: str
    seconds: float
    reused: bool


@dataclass
class Finished:
    """Everything a finished job knows; `netcut_fx.result` turns it into JSON."""

    options: RunOptions
    traced: TracedModule
    dataset: Dataset
    backend: Backend
    frontiers: tuple[Frontier, ...]
    uncut: Frontier
    uncut_kernels: tuple[Kernel, ...]
    uncut_measured: Measurement
    uncut_trained: TrainedCandidate
    calibration: Calibration
    estimates: dict[str, LatencyEstimate]
    quick: dict[str, QuickResult]
    deadline_ms: float
    deadline_reference_ms: float
    decision: Decision
    measured: dict[str, Measurement]
    refused: dict[str, str]
    trained: dict[str, TrainedCandidate]
    chosen: str
    chosen_kernels: tuple[Kernel, ...]
    compiled: CompiledModule
    stages: list[StageRecord]
