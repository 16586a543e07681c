"""Compile the pieces of a gated network with any backend, and run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcut_fx.backends.base import Backend, CompiledModule, Progress
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.dispatch import CellCalls, Dispatcher, Program
from netcut_fx.gating.pieces import CellPieces, Pieces
from netcut_fx.gating.pricing import cost_table
from netcut_fx.graph import TracedModule
from netcut_fx.measure import Stopwatch


@dataclass(frozen=True)
class CompiledGated:
    """A gated network, compiled.

    Parameters
    ----------
    name : str
        Of the network.
    modules : tuple of CompiledModule
        Its pieces.
    program : Program
        In which order they are called.
    pieces : tuple of TracedModule
        What each was compiled from.
    """

    name: str
    modules: tuple[CompiledModule, ...]
    program: Program
    pieces: tuple[TracedModule, ...]

    def dispatcher(self, table: CostTable, *, budget: int | None = None, fill: bool = False) -> Dispatcher:
        """Run it through the backend, as a reference for what a bundle does."""

        def call(index: int, value: NDArray[np.float32], scales: Sequence[NDArray[np.float32]]) -> Any:
            return self.modules[index].run(value, *scales)

        return Dispatcher(self.program, table, call, np.asarray, budget=budget, fill=fill)

    def measured(self, source: Pieces, stopwatch: Stopwatch, dispatch_ms: float = 0.0) -> CostTable:
        """The cost table with every piece measured by itself, in turn with all others."""
        found = stopwatch.measure_interleaved([module.timer() for module in self.modules])
        ms = {id(piece): one.ms for piece, one in zip(self.pieces, found, strict=True)}
        return cost_table(source, lambda piece: ms[id(piece)], dispatch=dispatch_ms)


def compile_gated(
    pieces: Pieces,
    backend: Backend,
    *,
    trials: int = 0,
    database: Path | None = None,
    progress: Progress | None = None,
) -> CompiledGated:
    """Compile every piece; with `trials`, tune each first.

    Parameters
    ----------
    pieces : Pieces
        From `netcut_fx.gating.pieces.split`.
    backend : Backend
        The compiler.
    trials : int
        Schedules tried per kernel; needs `database`. Narrow variants have kernels of their own.
    database : Path, optional
        Folder of tuning records.
    progress : callable, optional
        Called with pieces done, pieces in all, and the name.
    """
    listed, program = _program(pieces)
    modules: list[CompiledModule] = []
    for number, piece in enumerate(listed):
        if progress is not None:
            progress(number, len(listed), piece.name)
        if trials and database is not None:
            backend.tune(piece, trials=trials, database=database)
        modules.append(backend.compile(piece, database=database))
    return CompiledGated(pieces.name, tuple(modules), program, tuple(listed))


def _program(pieces: Pieces) -> tuple[list[TracedModule], Program]:
    """All pieces in a list, and how they are called."""
    listed = [pieces.stem, pieces.gates]
    steps: list[int | CellCalls] = []
    for step in pieces.steps:
        if isinstance(step, CellPieces):
            variants: dict[int, int | None] = {}
            for width, variant in step.variants.items():
                variants[width] = None if variant is None else len(listed)
                listed += [] if variant is None else [variant]
            shapes: Mapping[int, tuple[tuple[int, ...], ...]] = {
                w: () if v is None else tuple(spec.shape for spec in v.input_specs[1:])
                for w, v in step.variants.items()
            }
            steps.append(CellCalls(step.name, step.slots, variants, shapes, step.channel_groups or {}))
        else:
            steps.append(len(listed))
            listed.append(step)
    return listed, Program(pieces.total, tuple(steps))
