"""What ``netcut explore`` prints at the end."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from netcut_fx.exploration.overview import choice_rows

_STYLES = {"met": "green", "missed": "red", "none": "dim"}


def print_exploration(result: dict[str, Any]) -> None:
    """A row for each deadline and strategy, what failed, and where bundles and report are."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(title=escape(f"{len(result['networks'])} networks on {result['data']}"))
    table.add_column("deadline ms", justify="right")
    for column in ("off the shelf", "test", "strategy", "winner"):
        table.add_column(column)
    for column in ("measured ms", "test", "gain", "retrained", "CPU s"):
        table.add_column(column, justify="right")
    for row in choice_rows(result):
        cells = (row.deadline, row.shelf, row.shelf_accuracy, row.strategy, row.winner, row.ms, row.accuracy, row.gain)
        table.add_row(*(escape(c) for c in (*cells, row.retrained, row.seconds)), style=_STYLES[row.status])
    console.print(table)
    for network in result["networks"]:
        if network["failed"]:
            console.print(f"[red]failed[/] {escape(network['name'])}: {escape(network['failed'])}", soft_wrap=True)
    told: set[str] = set()
    for deadline in result["deadlines"]:
        bundle = deadline["best_known"]["bundle"]
        if bundle is not None and bundle not in told:
            told.add(bundle)
            console.print(f"bundle from {deadline['deadline_ms']:.3f} ms on: {escape(bundle)}", soft_wrap=True)
    console.print(f"report {escape(result['report'])}", soft_wrap=True)
