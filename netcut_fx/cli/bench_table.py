"""How ``netcut bench`` shows what it found: artefacts, then the kernels that leave most of the machine's peak."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from netcut_fx.cli.console import ms, percent
from netcut_fx.comparison.shares import KernelShare, Peak
from netcut_fx.comparison.versus import RUNS_FOR_P99, Comparison, Timing
from netcut_fx.manifest import Manifest

_KERNELS_SHOWN = 12
# Narrower terminals show fewer columns: a figure that is cut off or broken over two lines cannot be read.
_WIDE = 118
# All columns of a kernel but its name, borders included.
_KERNEL_FIGURES, _KERNEL_FIGURES_WIDE = 59, 76
_LONGEST_KERNEL = 60


def print_comparison(found: Comparison, manifest: Manifest) -> None:
    """Print the tables, what was measured when the bundle was built, and whether it meets its deadline."""
    # A pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140)
    console.print(_artefacts(found, manifest, wide=console.width >= _WIDE))
    for count, peak in found.peaks.items():
        console.print(
            f"peak of {_threads(count)}: {peak.flops_per_s / 1e9:.1f} GFLOP/s, {peak.bytes_per_s / 1e9:.1f} GB/s"
        )
    for timing in found.timings:
        if timing.kernels:
            console.print(_kernels(timing, found.peaks.get(timing.threads), console.width))
    own = next(timing for timing in found.timings if timing.bundle is not None)
    print(f"{manifest.name}: {own.measured}, {_threads(manifest.threads)}")
    then, deadline_ms = manifest.measurement.get("ms"), manifest.measurement.get("deadline_ms")
    if then is not None:
        print(f"when it was built: {then:.3f} ms")
    if deadline_ms is not None:
        print(f"deadline {deadline_ms:.3f} ms: {'met' if own.measured.ms <= deadline_ms else 'BROKEN'}")


def _artefacts(found: Comparison, manifest: Manifest, *, wide: bool) -> Table:
    table = Table(title=escape(f"{manifest.name}, batch {manifest.batch}, {manifest.target.cpu_model}"))
    table.add_column("runtime", no_wrap=True)
    headers = ["threads", "median\nms", "p99\nms", "speed-up\nby netcut", "of peak\nFLOP/s"]
    if wide:
        # Fewer rounds cannot give an interval, see `Measurement`.
        interval = "95 % interval" if all(t.measured.rounds >= 6 for t in found.timings) else "range"
        headers += [f"{interval}\nms", "of peak\nbandwidth", "memory\nMB"]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    ours = {timing.threads: timing.measured.ms for timing in found.timings if timing.bundle is not None}
    for timing in found.timings:
        own, peer = ours.get(timing.threads), timing.bundle is None
        cells = [
            escape(f"{timing.name} {timing.version.partition('+')[0]}" if peer else timing.name),
            str(timing.threads),
            ms(timing.measured.ms),
            ms(timing.p99_ms),
            f"{timing.measured.ms / own:.2f}x" if own is not None and peer else "",
            percent(timing.flops_share),
        ]
        if wide:
            cells += [
                f"{timing.measured.low_ms:.3f}–{timing.measured.high_ms:.3f}",
                percent(timing.bandwidth_share),
                "–" if timing.memory_bytes is None else f"{timing.memory_bytes / 1e6:.0f}",
            ]
        table.add_row(*cells, style=None if peer else "bold")
    table.caption = "; ".join(_notes(found, wide))
    return table


def _notes(found: Comparison, wide: bool) -> list[str]:
    notes: list[str] = []
    peers = [timing for timing in found.timings if timing.bundle is None]
    if peers:
        worst = max(timing.relative_error for timing in peers)
        notes.append(f"answers agree with netcut's (largest relative error {worst:.0e})")
    if all(timing.p99_ms is None for timing in found.timings):
        notes.append(f"a 99th percentile needs --runs {RUNS_FOR_P99}")
    if not wide:
        notes.append(f"--json, and {_WIDE} columns, show more")
    return notes


def _kernels(timing: Timing, peak: Peak | None, width: int) -> Table:
    """The kernels in the order of what they lose; of their time where the peak is unknown."""
    ordered = sorted(timing.kernels, key=lambda k: -(k.ms if k.lost_ms is None else k.lost_ms))
    wide = width >= _WIDE
    longest = max(12, min(_LONGEST_KERNEL, width - (_KERNEL_FIGURES_WIDE if wide else _KERNEL_FIGURES)))
    what = "slowest kernels" if peak is None else "what holds netcut back"
    table = Table(title=f"{what}, {_threads(timing.threads)}")
    table.add_column("kernel", no_wrap=True)
    for header in ("ms", "MFLOP", "GFLOP/s", "of peak", "ms beyond\nthe roofline"):
        table.add_column(header, justify="right", no_wrap=True)
    if wide:
        table.add_column("output", no_wrap=True)
    for kernel in ordered[:_KERNELS_SHOWN]:
        cells = [
            escape(_shown_name(kernel, longest)),
            ms(kernel.ms),
            *_rates(kernel),
            percent(kernel.flops_share),
            ms(kernel.lost_ms),
            kernel.output,
        ]
        table.add_row(*(cells if wide else cells[:-1]))
    rest = ordered[_KERNELS_SHOWN:]
    if rest:
        lost = [kernel.lost_ms for kernel in rest if kernel.lost_ms is not None]
        time = ms(sum(kernel.ms for kernel in rest))
        table.add_row(f"{len(rest)} others", time, "", "", "", ms(sum(lost)) if lost else "–", style="dim")
    return table


def _rates(kernel: KernelShare) -> tuple[str, str]:
    if kernel.flops is None:
        return "–", "–"
    return f"{kernel.flops / 1e6:.1f}", f"{kernel.flops / kernel.ms / 1e6:.1f}"


def _shown_name(kernel: KernelShare, longest: int) -> str:
    """What every kernel's name has says nothing; where it is too long, its end still tells it from its like."""
    note = " (untuned)" if kernel.tuned is False else ""
    name, most = kernel.name.removeprefix("fused_").removesuffix("_prepacked"), longest - len(note)
    if len(name) > most:
        end = (most - 1) // 2
        name = f"{name[: most - 1 - end]}…{name[len(name) - end :]}"
    return name + note


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"
