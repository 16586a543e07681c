"""How ``netcut bench`` shows what it found: artefacts, then the kernels that leave most of the machine's peak."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from netcut_fx.cli.console import ms, percent
from netcut_fx.comparison.shares import Peak
from netcut_fx.comparison.versus import RUNS_FOR_P99, Comparison, Timing
from netcut_fx.manifest import Manifest

_KERNELS_SHOWN = 12


def print_comparison(found: Comparison, manifest: Manifest) -> None:
    """Print the tables, what was measured when the bundle was built, and whether it meets its deadline."""
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(_artefacts(found, manifest))
    for count, peak in found.peaks.items():
        console.print(
            f"peak of {count} thread{'s' * (count != 1)}: {peak.flops_per_s / 1e9:.1f} GFLOP/s, "
            f"{peak.bytes_per_s / 1e9:.1f} GB/s"
        )
    for timing in found.timings:
        if timing.kernels:
            console.print(_kernels(timing, found.peaks.get(timing.threads)))
    own = next(timing for timing in found.timings if timing.bundle is not None)
    print(f"{manifest.name}: {own.measured}, {manifest.threads} thread(s)")
    then, deadline_ms = manifest.measurement.get("ms"), manifest.measurement.get("deadline_ms")
    if then is not None:
        print(f"when it was built: {then:.3f} ms")
    if deadline_ms is not None:
        print(f"deadline {deadline_ms:.3f} ms: {'met' if own.measured.ms <= deadline_ms else 'BROKEN'}")


def _artefacts(found: Comparison, manifest: Manifest) -> Table:
    table = Table(title=escape(f"{manifest.name}, batch 1, {manifest.target.cpu_model}"))
    table.add_column("runtime", no_wrap=True)
    for column in ("threads", "median ms", "95 % interval", "p99 ms", "netcut is", "of peak FLOP/s", "of bandwidth"):
        table.add_column(column, justify="right")
    for column in ("memory MB", "relative error"):
        table.add_column(column, justify="right")
    ours = {timing.threads: timing.measured.ms for timing in found.timings if timing.bundle is not None}
    for timing in found.timings:
        own = ours.get(timing.threads)
        faster = "" if own is None or timing.bundle is not None else f"{timing.measured.ms / own:.2f}x as fast"
        table.add_row(
            escape(timing.name if timing.bundle is not None else f"{timing.name} {timing.version}"),
            str(timing.threads),
            ms(timing.measured.ms),
            f"{timing.measured.low_ms:.3f}–{timing.measured.high_ms:.3f}",
            ms(timing.p99_ms),
            faster,
            percent(timing.flops_share),
            percent(timing.bandwidth_share),
            "–" if timing.memory_bytes is None else f"{timing.memory_bytes / 1e6:.0f}",
            f"{timing.relative_error:.0e}",
            style="bold" if timing.bundle is not None else None,
        )
    if not any(timing.p99_ms is not None for timing in found.timings):
        table.caption = f"a 99th percentile needs --runs {RUNS_FOR_P99}"
    return table


def _kernels(timing: Timing, peak: Peak | None) -> Table:
    """The kernels in the order of what they lose; of their time where the peak is unknown."""
    ordered = sorted(timing.kernels, key=lambda k: -(k.ms if k.lost_ms is None else k.lost_ms))
    rest = ordered[_KERNELS_SHOWN:]
    title = f"what holds netcut back, {timing.threads} thread{'s' * (timing.threads != 1)}"
    table = Table(title=title if peak is not None else f"slowest kernels, {timing.threads} thread(s)")
    table.add_column("kernel", no_wrap=True, max_width=60)
    for column in ("ms", "MFLOP", "GFLOP/s", "of peak", "ms beyond the roofline"):
        table.add_column(column, justify="right")
    for kernel in ordered[:_KERNELS_SHOWN]:
        known = kernel.flops is not None
        table.add_row(
            escape(kernel.name) + ("" if kernel.tuned is not False else " (untuned)"),
            ms(kernel.ms),
            f"{(kernel.flops or 0) / 1e6:.1f}" if known else "–",
            f"{(kernel.flops or 0) / kernel.ms / 1e6:.1f}" if known else "–",
            percent(kernel.flops_share),
            ms(kernel.lost_ms),
        )
    if rest:
        lost = [kernel.lost_ms for kernel in rest if kernel.lost_ms is not None]
        table.add_row(
            f"{len(rest)} others", ms(sum(k.ms for k in rest)), "", "", "", ms(sum(lost)) if lost else "–", style="dim"
        )
    return table
