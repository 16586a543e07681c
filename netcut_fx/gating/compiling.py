"""Compile the pieces of a gated network with any backend, measure them, and run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from netcut_fx.backends.base import Backend, CompiledModule, Progress
from netcut_fx.gating.paths import Paths
from netcut_fx.gating.pieces import cells_of, entry_piece, gates_of, path_piece, path_scales
from netcut_fx.gating.program import Array, Dispatcher, Program, lay_out
from netcut_fx.graph import TracedModule
from netcut_fx.measure import Stopwatch

Widths = Sequence[Sequence[int]]


@dataclass(frozen=True)
class CompiledGated:
    """A gated network, compiled.

    Parameters
    ----------
    name : str
        Of the network.
    modules : tuple of CompiledModule
        The entry, then the paths in the order of the program.
    program : Program
        What there is to choose from; its costs are in nanoseconds.
    """

    name: str
    modules: tuple[CompiledModule, ...]
    program: Program

    def dispatcher(self, *, budget: int | None = None, fill: bool = False) -> Dispatcher:
        """Run it through the backend, as a reference for what a bundle does."""

        def entry(image: Array) -> tuple[Array, Array]:
            numbers, early = self.modules[0].run_all(image)
            return numbers[0], early

        def path(index: int, early: Array, scales: list[Array]) -> Array:
            return self.modules[1 + index].run(early, *scales)

        return Dispatcher(self.program, entry, path, budget=budget, fill=fill)

    def with_costs(self, costs: Sequence[int], bounds: Sequence[int] | None = None) -> CompiledGated:
        """The same where the paths cost as much, in nanoseconds, deciding and calling included; in ascending order.

        A path that costs more has no lower bound: where it was measured so, it was by chance.
        """
        order = sorted(range(len(costs)), key=lambda i: (costs[i], i))
        paths, scales = self.program.paths, self.program.scales
        sorted_paths = Paths(
            paths.slots,
            tuple(paths.widths[i] for i in order),
            tuple(costs[i] for i in order),
            () if bounds is None else tuple(accumulate((max(bounds[i], costs[i]) for i in order), max)),
        )
        modules = (self.modules[0], *(self.modules[1 + i] for i in order))
        program = Program(self.program.total, sorted_paths, tuple(scales[i] for i in order))
        return CompiledGated(self.name, modules, program)


def compile_gated(
    gated: TracedModule,
    widths: Widths,
    backend: Backend,
    *,
    watch: Stopwatch | None = None,
    trials: int = 0,
    database: Path | None = None,
    progress: Progress | None = None,
) -> CompiledGated:
    """Compile the entry and every path, and measure them in turn; with `trials`, tune each first.

    Parameters
    ----------
    gated : TracedModule
        With gates.
    widths : sequence of sequences of int
        The width of each cell on each path; see `netcut_fx.gating.path_choice.choose_paths`.
    backend : Backend
        The compiler.
    watch : Stopwatch, optional
        Default: 25 rounds.
    trials : int
        Schedules tried per kernel; needs `database`. Narrow variants have kernels of their own.
    database : Path, optional
        Folder of tuning records.
    progress : callable, optional
        Called with pieces done, pieces in all, and the name.
    """
    slots = tuple(cell.slots for cell in cells_of(gated))
    listed = [tuple(one) for one in widths]
    scales = [path_scales(gated, one) for one in listed]
    total = gates_of(gated).total
    program, columns = lay_out(total, Paths(slots, tuple(listed), (0,) * len(listed)), scales)
    pieces = [entry_piece(gated, columns), *(path_piece(gated, one) for one in listed)]
    modules: list[CompiledModule] = []
    for number, piece in enumerate(pieces):
        if progress is not None:
            progress(number, len(pieces), piece.name)
        if trials and database is not None:
            backend.tune(piece, trials=trials, database=database)
        modules.append(backend.compile(piece, database=database))
    watch = watch or Stopwatch(repeat=25, min_repeat_ms=2.0)
    # The fastest round: what others do on the machine meanwhile is no cost of a path.
    entry, *each = [round(m.min_ms * 1e6) for m in watch.measure_interleaved([module.timer() for module in modules])]
    return CompiledGated(gated.name, tuple(modules), program).with_costs([entry + one for one in each])
