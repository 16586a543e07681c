"""One step of an exploration as a value that can travel to another process or machine, and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cost_models import LatencyEstimate
from netcut_fx.exploration.network_spec import NetworkSpec
from netcut_fx.job_options import RunOptions
from netcut_fx.measure import Measurement

#: ``survey``: frontiers, features, quick heads. ``train``: retrain one cut. ``time``: tune and profile the uncut
#: network, predict all cuts. ``measure``: compile and time one cut. ``deliver``: write a retrained cut as a bundle. The
#: last three belong on the target, one at a time.
Kind = Literal["survey", "train", "time", "measure", "deliver"]


@dataclass(frozen=True)
class Setting:
    """What all steps of an exploration share. Paths must mean the same wherever a step runs.

    Parameters
    ----------
    data : str
        SPEC of the images.
    input_size : (height, width)
        That every network reads.
    options : RunOptions
        What a run of one network is told.
    folder : Path
        Of the exploration.
    timings : Path
        Of tuning records and timings, which do not depend on the images and may serve several explorations.
    backend : str
        ``tvm`` or ``eager``.
    train_per_class : int or None
        See `ExploreOptions`.
    distillation : float
        See `ExploreOptions`.
    """

    data: str
    input_size: tuple[int, int]
    options: RunOptions
    folder: Path
    timings: Path
    backend: Literal["tvm", "eager"] = "tvm"
    train_per_class: int | None = None
    distillation: float = 0.0


@dataclass(frozen=True)
class Promise:
    """What a bundle says of its latency: the deadline it was chosen to meet, the prediction and the measurement."""

    deadline_ms: float
    estimate: LatencyEstimate
    measured: Measurement


@dataclass(frozen=True)
class Task:
    """One step.

    Parameters
    ----------
    kind : str
        What to do.
    network : NetworkSpec
        With which network.
    setting : Setting
        Under which circumstances.
    cut : str
        Of ``train``, ``measure`` and ``deliver``: which cut.
    teacher : NetworkSpec or None
        Of ``train`` and ``deliver`` with distillation: the network whose uncut form was trained already.
    promise : Promise or None
        Of ``deliver``.
    """

    kind: Kind
    network: NetworkSpec
    setting: Setting
    cut: str = ""
    teacher: NetworkSpec | None = None
    promise: Promise | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.network.name}" + (f" at {self.cut}" if self.cut else "")


@dataclass(frozen=True)
class Answer:
    """What a step yielded: a JSON object, or else the one line that says why it failed."""

    value: dict[str, Any] | None
    error: str = ""
