"""Where the time goes: one bar per kernel of the uncut network, in execution order."""

from __future__ import annotations

from dataclasses import dataclass

from netcut_fx.pictures.svg import Element, Scale, drawing, round_ticks, tick_text
from netcut_fx.result_candidates import chosen_of
from netcut_fx.result_values import (
    UNKNOWN,
    Record,
    format_gflops_per_s,
    format_mflops,
    format_ms,
    items,
    number,
    records,
    shorten,
    text,
)

#: Kinds with a colour of their own, in the order of the legend; all others share one.
KINDS = (
    "conv2d",
    "pointwise_conv2d",
    "depthwise_conv2d",
    "grouped_conv2d",
    "matmul",
    "pool",
    "reduce",
    "elementwise",
    "data_movement",
)
_WIDTH, _ROW = 1080.0, 19.0
_LEFT, _RIGHT, _TOP = 236.0, 850.0, 34.0
_MAX_ROWS = 44


@dataclass(frozen=True)
class KernelBar:
    """One kernel, or several small ones together (`count` above 1)."""

    label: str
    kind: str
    ms: float | None
    flops: float | None
    kept: bool
    detail: tuple[str, ...] = ()
    count: int = 1


def kernels_of(result: Record) -> tuple[KernelBar, ...]:
    """All kernels of the uncut network in execution order; the time is the measured one where there is one."""
    chosen = chosen_of(result) is not None
    return tuple(_kernel(record, chosen) for record in records(result, "kernels"))


def bars_of(kernels: tuple[KernelBar, ...]) -> tuple[KernelBar, ...]:
    """Keep the slowest kernels in execution order, put the others into one bar for each side of the cut."""
    if len(kernels) <= _MAX_ROWS:
        return kernels
    # A kernel whose time is not known must not hide among the small ones.
    slowest = sorted(range(len(kernels)), key=lambda i: (kernels[i].ms is not None, -(kernels[i].ms or 0.0)))
    shown = set(slowest[: _MAX_ROWS - 2])
    bars = [kernel for index, kernel in enumerate(kernels) if index in shown]
    for kept in (True, False):
        rest = [kernel for index, kernel in enumerate(kernels) if index not in shown and kernel.kept == kept]
        if rest:
            bars.append(_together(rest, kept))
    return tuple(bars)


def format_kernel_ms(ms: float | None) -> str:
    """Milliseconds to the microsecond, so that a column of them lines up."""
    return UNKNOWN if ms is None else "<0.001" if 0 < ms < 0.0005 else f"{ms:.3f}"


def kernel_bars(result: Record) -> Element:
    """Bars of `result`'s kernels with milliseconds, share of the total and achieved GFLOP/s."""
    kernels = kernels_of(result)
    bars = bars_of(kernels)
    height = _TOP + _ROW * max(len(bars), 3) + 52
    picture = drawing(_WIDTH, height, "Time of each kernel in execution order", "kernel-bars")
    known = [bar.ms for bar in bars if bar.ms is not None]
    if not bars:
        picture.add("text", "no kernels are recorded", x=_WIDTH / 2, y=height / 2, class_="empty middle")
        return picture
    total_ms = sum(known)
    slowest = max((bar.ms for bar in bars if bar.ms is not None and bar.count == 1), default=1.0)
    x = Scale(0.0, slowest * 1.02 or 1.0, _LEFT, _RIGHT)
    bottom = _TOP + _ROW * len(bars)
    ticks = round_ticks(0.0, x.high, 7)
    for tick in ticks if known else ():
        picture.add("line", x1=x(tick), x2=x(tick), y1=_TOP - 4, y2=bottom + 4, class_="grid")
        picture.add("text", tick_text(tick, ticks), x=x(tick), y=bottom + 20, class_="tick middle")
    picture.add("text", "ms", x=(_LEFT + _RIGHT) / 2, y=bottom + 40, class_="axis-title middle")
    for content, at in (("ms", 912.0), ("share", 972.0), ("GFLOP/s", 1056.0)):
        picture.add("text", content, x=at, y=_TOP - 14, class_="column end")
    picture.add("text", "kernel, in execution order", x=_LEFT - 12, y=_TOP - 14, class_="column end")
    for row, bar in enumerate(bars):
        _row(picture, bar, _TOP + row * _ROW, x, total_ms)
    _cut_line(picture, bars)
    return picture


def _kernel(record: Record, chosen: bool) -> KernelBar:
    measured, predicted = number(record, "measured_ms"), number(record, "predicted_ms")
    ms = predicted if measured is None else measured
    origin = [str(name) for name in items(record, "origin")]
    flops = number(record, "flops")
    detail = (
        text(record, "kind", "unknown kind"),
        "from " + ", ".join(origin) if origin else "",
        "runs " + ", ".join(str(op) for op in items(record, "ops")) if items(record, "ops") else "",
        text(record, "key"),
        f"measured {format_ms(measured)} ms, predicted {format_ms(predicted)} ms, {format_mflops(flops)} MFLOP",
    )
    return KernelBar(
        label=(origin[0] if origin else "") or text(record, "name", "kernel"),
        kind=text(record, "kind", "unknown kind"),
        ms=ms,
        flops=flops,
        kept=bool(record.get("in_chosen")) or not chosen,
        detail=detail,
    )


def _together(rest: list[KernelBar], kept: bool) -> KernelBar:
    """Small kernels as one; unknown as soon as one of them is."""
    times = [kernel.ms for kernel in rest]
    flops = [kernel.flops for kernel in rest]
    return KernelBar(
        label=f"{len(rest)} smaller kernels, {'kept' if kept else 'cut away'}",
        kind="rest",
        ms=None if None in times else sum(ms for ms in times if ms is not None),
        flops=None if None in flops else sum(value for value in flops if value is not None),
        kept=kept,
        count=len(rest),
    )


def _row(picture: Element, bar: KernelBar, top: float, x: Scale, total_ms: float) -> None:
    group = picture.add("g", class_="kernel" if bar.kept else "kernel removed")
    group.tooltip(bar.label, *bar.detail, "" if bar.kept else "cut away")
    middle = top + _ROW / 2
    group.add("text", shorten(bar.label, 32), x=_LEFT - 12, y=middle + 4, class_="row-name end")
    if bar.ms is None:
        group.add("text", UNKNOWN, x=_LEFT + 4, y=middle + 4, class_="unknown")
    elif bar.count > 1:
        # Their sum would dwarf the single kernels: a dotted line leads to the number instead.
        group.add("line", x1=_LEFT, x2=_RIGHT, y1=middle, y2=middle, class_="leader")
    else:
        kind = bar.kind if bar.kind in KINDS else "opaque"
        width = max(x(bar.ms) - _LEFT, 1.0)
        group.add("rect", x=_LEFT, y=top + 3, width=width, height=_ROW - 6, rx=2, class_=f"bar kind-{kind}")
    share = "–" if bar.ms is None or total_ms <= 0 else f"{bar.ms / total_ms * 100:.1f} %"
    group.add("text", format_kernel_ms(bar.ms), x=912, y=middle + 4, class_="figure end")
    group.add("text", share, x=972, y=middle + 4, class_="figure end")
    group.add("text", format_gflops_per_s(bar.flops, bar.ms), x=1056, y=middle + 4, class_="figure end")


def _cut_line(picture: Element, bars: tuple[KernelBar, ...]) -> None:
    """Draw a line where the kept kernels end, if they end once."""
    rows = [bar.kept for bar in bars if bar.count == 1]
    changes = [row for row in range(1, len(rows)) if rows[row] != rows[row - 1]]
    if len(changes) == 1 and rows[0]:
        at = _TOP + changes[0] * _ROW
        picture.add("line", x1=12, x2=1056, y1=at, y2=at, class_="cut-line")
        picture.add("text", "kept ↑", x=_RIGHT, y=at - 6, class_="cut-text end")
        picture.add("text", "cut away ↓", x=_RIGHT, y=at + 15, class_="cut-text quiet end")
