"""A run small enough for tests: the zoo's residual network on a few hundred 32x32 digits."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from netcut_fx.backends.eager import EagerBackend
from netcut_fx.data import Dataset, load_data
from netcut_fx.job import Job
from netcut_fx.job_options import RunOptions
from netcut_fx.job_values import Finished
from netcut_fx.retraining_options import RetrainOptions
from netcut_fx.verbs import Silent
from netcut_fx.workspace import Workspace
from tests.zoo import ZOO

MODEL = "tests/zoo.py:Residual"
DATA = "digits?limit=240"
SIZE = "32"
RETRAIN = RetrainOptions(epochs=1, head_epochs=3)


@cache
def digits() -> Dataset:
    """240 handwritten digits at 32x32."""
    return load_data(DATA, input_size=(32, 32))


def residual() -> nn.Module:
    """The zoo's residual network."""
    return ZOO["residual"]()[0]


class Listener(Silent):
    """Remembers what the job said."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, name: str) -> None:
        """Remember."""
        self.stages.append(name)

    def note(self, text: str) -> None:
        """Remember."""
        self.notes.append(text)


def options(**fields: Any) -> RunOptions:
    """Options of a quick run."""
    if "deadline_ms" not in fields:
        fields.setdefault("deadline_fraction", 1.0)
    return RunOptions(**{"retrain": RETRAIN, "trials": 1, **fields})


def finish(folder: Path, listener: Listener | None = None, **fields: Any) -> Finished:
    """A job on torch eager, to its end."""
    with Workspace(folder) as space:
        job = Job(residual(), "residual", digits(), options(**fields), EagerBackend(), space, listener or Listener())
        return job.run()
