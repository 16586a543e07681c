"""An exploration measures for an hour on a machine that others may use: rounds count in which a canary is fast."""

from __future__ import annotations

from pathlib import Path

from netcut_fx.backends.base import Backend
from netcut_fx.calm import CalmWatch
from netcut_fx.job_keys import timing_facts
from netcut_fx.measure import Measurement, Timer
from netcut_fx.probe_networks import reference_network
from netcut_fx.workspace import Workspace

#: A network is watched so long at most for rounds in which nothing disturbs.
_WATCHED_S = 20.0


class CanaryWatch(CalmWatch):
    """A watch whose canary is compiled by each process anew; what it took at its best is kept for the next.

    Parameters
    ----------
    backend : Backend
        Compiles for the target and measures on it.
    timings : Path
        Folder of timings.
    """

    def __init__(self, backend: Backend, timings: Path) -> None:
        self._stage = Workspace(timings, shared=True).stage("canary", timing_facts(backend.target.fingerprint()))
        stored: dict[str, float] | None = self._stage.load()
        canary = backend.compile(reference_network())
        super().__init__(canary.timer(), None if stored is None else stored["best_ms"], longest_s=_WATCHED_S)

    def measure(self, timer: Timer) -> Measurement:
        """See `CalmWatch`."""
        found = super().measure(timer)
        if self.best_ms is None or self.best() < self.best_ms:
            self.best_ms = self.best()
            self._stage.save({"best_ms": self.best_ms})
        return found
