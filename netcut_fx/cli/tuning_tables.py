"""How ``netcut tune --status`` shows a database, and the kernels of a network."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from netcut_fx.backends.tvm.tune_status import FolderStatus, KernelStatus
from netcut_fx.cli.console import ms, percent


def print_folders(database: Path, folders: Sequence[FolderStatus]) -> None:
    """One line a target."""
    if not folders:
        print(f"{database}: no tuning records")
        return
    table = Table(title=escape(f"tuning records in {database}"))
    table.add_column("target")
    for column in ("workloads", "records", "failed", "set aside", "MB", "last use"):
        table.add_column(column, justify="right")
    for folder in folders:
        table.add_row(
            escape(folder.target),
            str(folder.workloads),
            str(folder.records),
            str(folder.failed),
            str(folder.set_aside),
            f"{folder.bytes / 1e6:.1f}",
            folder.last_use or "unknown",
        )
    _console().print(table)


def print_kernels(network: str, kernels: Sequence[KernelStatus]) -> None:
    """One line a kernel, and what is left in all."""
    table = Table(title=escape(f"kernels of {network}"))
    table.add_column("kernel", no_wrap=True)
    for column in ("calls", "trials", "best ms", "share of time", "of the peak"):
        table.add_column(column, justify="right")
    table.add_column("next")
    for kernel in kernels:
        table.add_row(
            escape(kernel.name),
            str(kernel.calls),
            str(kernel.trials),
            ms(kernel.best_ms),
            percent(kernel.share),
            percent(kernel.peak_share),
            kernel.finished or f"at most {kernel.left} trials",
        )
    _console().print(table)
    untuned = sum(kernel.best_ms is None for kernel in kernels)
    going = [kernel for kernel in kernels if kernel.finished is None]
    share = sum(kernel.share or 0.0 for kernel in going)
    print(
        f"{len(kernels) - untuned} of {len(kernels)} kernels tuned; {len(going)} unfinished, {percent(share)} of the "
        f"measured time, at most {sum(kernel.left for kernel in going)} trials left"
    )


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 170)
