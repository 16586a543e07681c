"""What `netcut explore` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from netcut_fx.decision import check_deadline
from netcut_fx.errors import SpecError
from netcut_fx.job_options import RunOptions

Strategy = Literal["ranked", "netcut", "exhaustive"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

#: Deadlines of a sweep where nothing is said.
SWEEP = 16


@dataclass(frozen=True)
class ExploreOptions:
    """Options of an exploration.

    Parameters
    ----------
    deadlines_ms : tuple of float
        Bounds on the latency of one image.
    sweep : int
        Instead: so many deadlines, from the fastest cut of all to the slowest network, each longer than the one before
        by the same factor.
    strategies : tuple of str
        ``ranked`` retrains what has the highest potential on frozen features among what meets the deadline. ``netcut``
        retrains, for each network, the deepest cut whose estimate meets it. ``exhaustive`` retrains everything.
    each : RunOptions
        What a run of one network is told, seed and training recipe included. Its deadline is not looked at; its
        shortlist is how many candidates ``ranked`` retrains for a deadline.
    off_the_shelf : bool
        Retrain and measure every uncut network too, to compare with.
    train_per_class : int, optional
        Train on so many images of each class only; validation and test stay whole.
    distillation : float
        Share of the label that the best uncut network's answers take in the training of all cuts; 0 for none.
    """

    deadlines_ms: tuple[float, ...] = ()
    sweep: int = 0
    strategies: tuple[Strategy, ...] = ("ranked",)
    each: RunOptions = field(default_factory=lambda: RunOptions(deadline_fraction=1.0, shortlist=1))
    off_the_shelf: bool = True
    train_per_class: int | None = None
    distillation: float = 0.0

    def __post_init__(self) -> None:
        if bool(self.deadlines_ms) == bool(self.sweep):
            raise SpecError("give either deadlines (--deadline-ms, repeatable) or a sweep over all of them (--sweep)")
        for deadline_ms in self.deadlines_ms:
            check_deadline(deadline_ms)
        if self.sweep and self.sweep < 2:
            raise SpecError(f"a sweep has at least 2 deadlines, got {self.sweep}")
        for strategy in self.strategies:
            if strategy not in STRATEGIES:
                raise SpecError(f"strategy is {', '.join(STRATEGIES)}, got {strategy!r}")
        if not self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise SpecError("give each strategy once, and at least one")
        if self.train_per_class is not None and self.train_per_class < 1:
            raise SpecError(f"train_per_class must be at least 1, got {self.train_per_class}")
        if not 0 <= self.distillation < 1:
            raise SpecError(f"distillation must be 0 or more, below 1, got {self.distillation}")
        if self.distillation and not self.off_the_shelf:
            raise SpecError("distillation learns from the best uncut network; do not leave the uncut networks out")
