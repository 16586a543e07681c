"""An exploration small enough for tests: networks of the zoo on a few hundred 32x32 digits, on torch eager."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netcut_fx.exploration.explore import explore
from netcut_fx.exploration.explorer import Explorer
from netcut_fx.exploration.network_spec import parse_network
from netcut_fx.exploration.options import ExploreOptions
from netcut_fx.exploration.tasks import Setting, Task
from netcut_fx.job_options import RunOptions
from netcut_fx.job_values import Reporter
from netcut_fx.verbs import Silent
from tests.small_run import DATA, RETRAIN

RESIDUAL, PLAIN = "tests/zoo.py:Residual,name=residual", "tests/zoo.py:PlainChain,name=plain"
SIZE = (32, 32)


def options(**fields: Any) -> ExploreOptions:
    """Options of a quick exploration."""
    if "deadlines_ms" not in fields:
        fields.setdefault("sweep", 3)
    each = RunOptions(deadline_fraction=1.0, trials=0, shortlist=1, retrain=fields.pop("retrain", RETRAIN))
    return ExploreOptions(each=each, **fields)


def explored(folder: Path, *networks: str, jobs: int = 0, reporter: Reporter | None = None, **fields: Any) -> Any:
    """The result of exploring `networks`."""
    return explore(
        networks or (PLAIN, RESIDUAL),
        DATA,
        out=folder,
        options=options(**fields),
        input_size=SIZE,
        jobs=jobs,
        backend="eager",
        reporter=reporter or Silent(),
    )


def setting(folder: Path, **fields: Any) -> Setting:
    """What the tasks of a quick exploration share."""
    return Setting(DATA, SIZE, options(**fields).each, folder, folder / "timings", "eager")


def survey_task(network: str, folder: Path, **fields: Any) -> Task:
    """The first task of a network."""
    return Task("survey", parse_network(network), setting(folder, **fields))


__all__ = ["PLAIN", "RESIDUAL", "SIZE", "Explorer", "explored", "options", "setting", "survey_task"]
