"""Which schedules were tried for which workload, and how long each took: one JSON line a trial, beside the records.

TVM's records hold traces, which say nothing to other workloads. Names of plans do: a plan that was best on one workload
is worth trying first on its neighbours. Failed trials stand here only: written as a record with an absurd time they
would be applied where all of a workload's failed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from netcut_fx.backends.tvm.records import append_line, set_aside, split_lines

TRIALS = "trials.jsonl"


@dataclass(frozen=True)
class Workload:
    """A kernel as its neighbours see it.

    Parameters
    ----------
    name : str
        TVM's structural hash.
    kind : str
        Family of schedules, see `netcut_fx.backends.tvm.workload_kinds`.
    extents : mapping of str to int
        What tells it from others of its kind: rows, channels, depth, window.
    """

    name: str
    kind: str = "other"
    extents: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Trial:
    """One schedule tried.

    Parameters
    ----------
    workload : Workload
        The kernel.
    plan : str or None
        Name of one of our own schedules; None for MetaSchedule's.
    seconds : float or None
        One call; None if it failed to build, to run or to compute the right thing.
    """

    workload: Workload
    plan: str | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Trial:
        """Inverse of `to_json`."""
        return cls(Workload(**value["workload"]), value["plan"], value["seconds"])


class TrialLog:
    """All trials of a records folder.

    Parameters
    ----------
    folder : Path
        The records folder.
    repair : bool
        Set aside lines that a killed writer left incomplete; only for the holder of the folder's locks.
    """

    def __init__(self, folder: Path, *, repair: bool = False) -> None:
        self._path = folder / TRIALS
        self._trials: defaultdict[str, list[Trial]] = defaultdict(list)
        good, bad = split_lines(self._path, _is_trial, stop_at_bad=False)
        self.corrupt = len(bad)
        if repair:
            set_aside(self._path, good, bad)
        for line in good:
            self._remember(Trial.from_json(json.loads(line)))

    def of(self, workload: str) -> list[Trial]:
        """Trials of one workload, in the order in which they were made."""
        return list(self._trials.get(workload, ()))

    def by_workload(self) -> Mapping[str, list[Trial]]:
        """All trials."""
        return self._trials

    def add(self, trial: Trial) -> None:
        """Write one trial down."""
        append_line(self._path, json.dumps(trial.to_json()))
        self._remember(trial)

    def _remember(self, trial: Trial) -> None:
        self._trials[trial.workload.name].append(trial)


def trial_lines(folder: Path) -> list[str]:
    """Whole lines of the log in `folder`, as they stand."""
    return split_lines(folder / TRIALS, _is_trial, stop_at_bad=False)[0]


def _is_trial(value: Any) -> bool:
    try:
        trial = Trial.from_json(value)
    except (TypeError, KeyError):
        return False
    return isinstance(trial.seconds, float | None) and isinstance(trial.workload.name, str)
