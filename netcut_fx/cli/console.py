"""What a person at a terminal sees: progress on standard error, tables on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

_VERDICT_STYLES = {
    "chosen": "bold green",
    "feasible": "green",
    "infeasible": "dim",
    "refused": "yellow",
    "unknown": "red",
}


class ConsoleReporter:
    """A `netcut_fx.job.Reporter` that draws a progress bar per stage on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._name = ""
        self._start = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close_stage()
        self._bars.stop()

    def stage(self, name: str) -> None:
        """A stage begins; the one before it is done."""
        self._close_stage()
        self._name, self._start = name, time.monotonic()
        self._task = self._bars.add_task(escape(name), total=None, what="")

    def progress(self, done: int, total: int, what: str) -> None:
        """Move the bar of the stage."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, what=escape(f"{done}/{total} {what}"[:90]))

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(f"[yellow]note[/] {escape(text)}")

    def notes(self, texts: Iterable[str]) -> None:
        """Print several lines above the bar."""
        for text in texts:
            self.note(text)

    def _close_stage(self) -> None:
        if self._task is None:
            return
        self._bars.remove_task(self._task)
        self.console.print(f"[dim]{time.monotonic() - self._start:7.1f} s[/]  {escape(self._name)}")
        self._task = None


def ms(value: float | None) -> str:
    """Milliseconds to three significant places, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share in per cent, or a dash."""
    return "–" if value is None else f"{value:.1%}"


def candidates_table(result: dict[str, Any]) -> Table:
    """All frontiers of a finished run."""
    table = Table(title=escape(f"{result['model']} on {result['data']}, deadline {result['deadline_ms']:.3f} ms"))
    table.add_column("frontier", no_wrap=True)
    for column in ("MFLOPs", "predicted ms", "interval", "measured ms", "quick val.", "val.", "test"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for row in result["candidates"]:
        known = row["predicted_ms"] is not None
        table.add_row(
            escape(row["name"]),
            f"{row['kept_flops'] / 1e6:.1f}",
            ms(row["predicted_ms"]) if known else "unknown",
            f"{row['low_ms']:.3f}–{row['high_ms']:.3f}" if known else "",
            ms(row["measured_ms"]),
            percent(row["quick_accuracy"]),
            percent(row["validation_accuracy"]),
            percent(row["test_accuracy"]),
            row["verdict"],
            style=_VERDICT_STYLES.get(row["verdict"]),
        )
    return table


def print_result(result: dict[str, Any]) -> None:
    """Table, winner, and where everything is."""
    # A pipe has no width of its own; a table cut to 80 columns would lose the names.
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(candidates_table(result))
    chosen, uncut = result["chosen"], result["uncut"]
    console.print(
        f"[bold green]{escape(chosen['frontier'])}[/]: {chosen['measured_ms']:.3f} ms measured "
        f"(predicted {chosen['predicted_ms']:.3f}), test accuracy {chosen['test_accuracy']:.1%} "
        f"[{chosen['test_low']:.1%}, {chosen['test_high']:.1%}]"
    )
    console.print(
        f"uncut: {uncut['measured_ms']:.3f} ms, test accuracy {uncut['test_accuracy']:.1%} "
        f"[{uncut['test_low']:.1%}, {uncut['test_high']:.1%}]"
    )
    console.print(f"bundle {escape(result['bundle'])}\nreport {escape(result['report'])}", soft_wrap=True)
