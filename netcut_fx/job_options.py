"""What `netcut run` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from netcut_fx.decision import check_deadline
from netcut_fx.errors import SpecError
from netcut_fx.ignored_scope import IgnoredScope
from netcut_fx.passes.head import HeadKind
from netcut_fx.pooling import PoolOption
from netcut_fx.retraining_options import RetrainOptions
from netcut_fx.tracing import Via

Granularity = Literal["block", "kernel", "node"]


@dataclass(frozen=True)
class RunOptions:
    """Options of the main job; the defaults suit a first run.

    Parameters
    ----------
    deadline_ms : float, optional
        The bound on the latency of one image.
    deadline_fraction : float, optional
        Instead: this share of what the uncut network takes once it is tuned here.
    target : str
        ``native``, ``llvm``, ``llvm -mcpu=NAME``, ``cuda``.
    threads : int
        Threads the artefact uses.
    trials : int
        Schedules tried per kernel.
    granularity : str
        ``block``, ``kernel`` or ``node``: where cuts are looked for.
    max_width : int
        How many tensors may cross a cut.
    ignored : IgnoredScope
        Where no cut may be. The uncut network stays a candidate all the same.
    head : str
        ``netcut`` or ``linear``.
    hidden : (int, int)
        Widths of the hidden layers of the ``netcut`` head.
    pool : str
        How the head pools what crosses: ``auto`` as the network suggests, ``mean`` or ``class-token``.
    leaf_modules : tuple of str
        Modules that stay whole when the network is traced: paths, or names of classes.
    via : str
        How it is traced: ``auto``, ``fx`` or ``export``.
    shortlist : int
        How many candidates are retrained in full.
    retrain : RetrainOptions
        The training recipe, but for its seed; the same for all candidates and for the uncut network.
    seed : int
        Of splits, heads, training and search.
    """

    deadline_ms: float | None = None
    deadline_fraction: float | None = None
    target: str = "native"
    threads: int = 1
    trials: int = 24
    granularity: Granularity = "block"
    max_width: int = 1
    ignored: IgnoredScope = field(default_factory=IgnoredScope)
    head: HeadKind = "netcut"
    hidden: tuple[int, int] = (256, 128)
    pool: PoolOption = "auto"
    leaf_modules: tuple[str, ...] = ()
    via: Via = "auto"
    shortlist: int = 2
    retrain: RetrainOptions = field(default_factory=RetrainOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.deadline_ms is None) == (self.deadline_fraction is None):
            raise SpecError("give the deadline either in ms (--deadline-ms) or as a share (--deadline-fraction)")
        if self.deadline_ms is not None:
            check_deadline(self.deadline_ms)
        if self.deadline_fraction is not None and not 0 < self.deadline_fraction <= 1:
            raise SpecError(
                "a deadline as a share of the uncut network must be above 0 and at most 1, got "
                f"{self.deadline_fraction}"
            )
        if self.granularity not in ("block", "kernel", "node"):
            raise SpecError(f"granularity is block, kernel or node, got {self.granularity!r}")
        for name, least in (("threads", 1), ("trials", 0), ("max_width", 1), ("shortlist", 1)):
            if getattr(self, name) < least:
                raise SpecError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.head not in ("netcut", "linear"):
            raise SpecError(f"head is netcut or linear, got {self.head!r}")
        if self.pool not in get_args(PoolOption):
            raise SpecError(f"pool is {', '.join(get_args(PoolOption))}, got {self.pool!r}")
        if self.via not in get_args(Via):
            raise SpecError(f"via is {', '.join(get_args(Via))}, got {self.via!r}")
