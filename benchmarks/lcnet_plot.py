"""Accuracy against FLOPs and against measured time of all methods, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.lcnet_summary import static_of

Row = dict[str, Any]

_SIZE, _MARGIN = 420.0, 56.0
_COLOURS = {
    "static": "#777777",
    "static longer": "#222222",
    "lc-net": "#4477aa",
    "l-net": "#66ccee",
    "c-net": "#228833",
    "cut": "#ee6677",
    "random": "#ccbb44",
    "early-exit": "#aa3377",
    "deadline": "#004488",
    "mask": "#bbbbbb",
}
_AXES = (("mean_flops", "FLOPs, share of the static network"), ("mean_ms", "measured ms, share of the static network"))


def plot(rows: list[Row]) -> str:
    """For each network a row of two panels, one dot for each point and seed; lines join the rates of a method."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    parts = [
        _panel([r for r in rows if r["network"] == name], rows, f"{name}", i, j)
        for i, name in enumerate(networks)
        for j in range(len(_AXES))
    ]
    shown = [name for name in _COLOURS if any(row["method"] == name for row in rows)]
    legend = [
        f'<circle cx="{2 * _SIZE + 16:.0f}" cy="{60 + 22 * i}" r="5" fill="{_COLOURS[name]}"/>'
        f'<text x="{2 * _SIZE + 28:.0f}" y="{64 + 22 * i}">{name}</text>'
        for i, name in enumerate(shown)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * _SIZE + 150:.0f} {len(networks) * _SIZE:.0f}" '
        'font-family="sans-serif" font-size="13"><title>Accuracy against FLOPs and time</title>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}{"".join(legend)}</svg>\n'
    )


def _panel(own: Sequence[Row], rows: Sequence[Row], title: str, row_index: int, column: int) -> str:
    key, label = _AXES[column]
    left, top = column * _SIZE, row_index * _SIZE
    points = [(row, share, 100 * row["accuracy"]) for row in own if (share := _share(row, rows, key)) is not None]
    points = [point for point in points if point[0]["method"] in _COLOURS]
    lowest = min((value for _, _, value in points), default=0.0)
    highest = max((value for _, _, value in points), default=100.0)
    low, high = lowest - 0.5, max(highest, lowest + 1) + 0.5
    widest = max([1.1, *(share for _, share, _ in points)])

    def x(share: float) -> float:
        return left + _MARGIN + share / widest * (_SIZE - 1.5 * _MARGIN)

    def y(value: float) -> float:
        return top + _SIZE - _MARGIN - (value - low) / (high - low) * (_SIZE - 1.8 * _MARGIN)

    parts = [
        f'<text x="{left + _SIZE / 2:.0f}" y="{top + 24:.0f}" text-anchor="middle">{title}</text>',
        f'<text x="{left + _SIZE / 2:.0f}" y="{top + _SIZE - 14:.0f}" text-anchor="middle">{label}</text>',
        f'<text transform="rotate(-90 {left + 14:.0f} {top + _SIZE / 2:.0f})" x="{left + 14:.0f}" '
        f'y="{top + _SIZE / 2:.0f}" text-anchor="middle">top-1 on test, %</text>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="#eee"/>'
            f'<text x="{x(tick):.1f}" y="{top + _SIZE - 36:.0f}" text-anchor="middle">{tick:g}</text>'
        )
    for step in range(6):
        value = low + (high - low) * step / 5
        parts.append(f'<text x="{x(0) - 6:.1f}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for method, colour in _COLOURS.items():
        for seed in sorted({row["seed"] for row, _, _ in points}):
            curve = sorted((s, v) for row, s, v in points if row["method"] == method and row["seed"] == seed)
            path = " ".join(f"{x(share):.1f},{y(value):.1f}" for share, value in curve)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-opacity="0.5"/>')
            parts += [
                f'<circle cx="{x(share):.1f}" cy="{y(value):.1f}" r="4" fill="{colour}">'
                f"<title>{method}, seed {seed}: {value:.1f} %</title></circle>"
                for share, value in curve
            ]
    return "".join(parts)


def _share(row: Row, rows: Sequence[Row], key: str) -> float | None:
    """Of the static network: served beside it where that was done, else as it was measured alone."""
    base = static_of(row, rows)
    if base is None:
        return None
    whole = row.get("static_ms") if key == "mean_ms" else None
    return row[key] / (whole or base[key])
