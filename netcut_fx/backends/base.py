"""What a compiler has to offer. Everything above this package is written against these protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from netcut_fx.graph import TracedModule
from netcut_fx.measure import Timer
from netcut_fx.target import Target

#: Called with (done, total, what) while something long runs.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class CompiledKernel:
    """One call in the compiled program.

    Parameters
    ----------
    name : str
        The compiler's name of the function.
    key : str
        `cost_models.Kernel.key` of the workload.
    tuned : bool
        Whether a tuning record was applied; False means the first schedule that the backend's rules propose, or the
        compiler's naive loop nest where they know none.
    """

    name: str
    key: str
    tuned: bool


@dataclass(frozen=True)
class KernelTiming:
    """Time of one kernel within the running network, one value per round."""

    name: str
    key: str
    samples_ms: tuple[float, ...]


@dataclass(frozen=True)
class Profile:
    """Kernels timed inside the running network, and what the network takes besides them.

    Parameters
    ----------
    kernels : tuple of KernelTiming
        In execution order, one entry per call.
    overhead_ms : float
        Time of the uninstrumented network minus the sum of its kernels, at least zero: dispatch and allocation.
    whole_ms : tuple of float
        What the network as a whole took just before each round, if that was timed.
    """

    kernels: tuple[KernelTiming, ...]
    overhead_ms: float
    whole_ms: tuple[float, ...] = ()


@dataclass(frozen=True)
class TuneReport:
    """What tuning did.

    Parameters
    ----------
    kernels : int
        Distinct workloads of the network.
    searched : int
        How many were searched now; the others had their records already.
    trials : int
        Candidates measured now.
    failed_trials : int
        Candidates that did not build or run; they cost their trial, never the run.
    seconds : float
        Wall time.
    trials_left : int
        Candidates that a longer budget might still have measured, at most.
    notes : tuple of str
        What the user should know: records that were damaged, or cannot be used here.
    """

    kernels: int
    searched: int
    trials: int
    failed_trials: int
    seconds: float
    trials_left: int = 0
    notes: tuple[str, ...] = ()


class CompiledModule(Protocol):
    """A network compiled for one target."""

    @property
    def kernels(self) -> Sequence[CompiledKernel]:
        """Calls in execution order."""
        ...

    def run(self, inputs: np.ndarray, *more: np.ndarray) -> np.ndarray:
        """What the network yields for one batch of the compiled shape, float32; `more` if it has several inputs."""
        ...

    def run_all(self, inputs: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        """The same where it yields several values; `run` gives the first of them."""
        ...

    def timer(self) -> Timer:
        """For `Stopwatch`: runs the network n times."""
        ...

    def profile(self, rounds: int = 50) -> Profile:
        """Time every kernel inside the running network."""
        ...

    def save(self, folder: Path) -> Mapping[str, Path]:
        """Write ``library``, ``runtime_library`` and ``params`` and say where they are."""
        ...


class Backend(Protocol):
    """A compiler for one target."""

    @property
    def target(self) -> Target:
        """What it compiles for."""
        ...

    def kernels(self, traced: TracedModule) -> Sequence[CompiledKernel]:
        """The calls that `traced` compiles to, in execution order, before anything is tuned."""
        ...

    def tune(
        self,
        traced: TracedModule,
        *,
        trials: int,
        database: Path,
        seed: int = 0,
        progress: Progress | None = None,
        minutes: float | None = None,
        seeds: bool = True,
    ) -> TuneReport:
        """Search for schedules; records go to `database` as they come, those that are there are used.

        At most `trials` a kernel, those in `database` included, and at most `minutes`. `progress` gets trials made,
        trials in all at most, and words. Without `seeds`, records that ship with the package are not taken over.
        """
        ...

    def compile(self, traced: TracedModule, *, database: Path | None = None) -> CompiledModule:
        """Compile with the best records of `database`."""
        ...
