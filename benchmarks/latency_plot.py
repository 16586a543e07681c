"""Predicted against measured latency of all trimmed networks, as SVG."""

from __future__ import annotations

import math
from typing import Any

_SIZE, _MARGIN = 520.0, 60.0
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777")
_PANELS = (("own", "profiled", "own network profiled"), ("leave_one_out", "analytical", "network never seen"))


def plot(rows: list[dict[str, Any]]) -> str:
    """Two panels with logarithmic axes: `profiled` with its own network, `analytical` without."""
    values = [row["measured_ms"] for row in rows]
    values += [row[s][e]["predicted_ms"] for row in rows for s, e, _ in _PANELS if "predicted_ms" in row[s][e]]
    low, high = (min(values) / 1.2, max(values) * 1.2) if values else (1.0, 10.0)
    networks = list(dict.fromkeys(row["network"] for row in rows))
    parts = [_panel(rows, networks, low, high, i, panel) for i, panel in enumerate(_PANELS)]
    legend = [
        f'<circle cx="{2 * _SIZE + 16:.0f}" cy="{80 + 22 * i}" r="5" fill="{_colour(i)}"/>'
        f'<text x="{2 * _SIZE + 28:.0f}" y="{84 + 22 * i}">{name}</text>'
        for i, name in enumerate(networks)
    ]
    width, height = 2 * _SIZE + 180, _SIZE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" '
        f'font-size="13"><title>Predicted against measured latency</title>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}{"".join(legend)}</svg>\n'
    )


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _panel(
    rows: list[dict[str, Any]], networks: list[str], low: float, high: float, index: int, panel: tuple[str, str, str]
) -> str:
    setting, estimator, title = panel
    left = index * _SIZE

    def along(ms: float) -> float:
        return (math.log(min(max(ms, low), high)) - math.log(low)) / (math.log(high) - math.log(low))

    def x(ms: float) -> float:
        return left + _MARGIN + along(ms) * (_SIZE - 1.5 * _MARGIN)

    def y(ms: float) -> float:
        return _SIZE - _MARGIN - along(ms) * (_SIZE - 1.5 * _MARGIN)

    parts = [
        f'<text x="{left + _SIZE / 2:.0f}" y="20" text-anchor="middle">{estimator}, {title}</text>',
        f'<text x="{left + _SIZE / 2:.0f}" y="{_SIZE - 12:.0f}" text-anchor="middle">measured, ms</text>',
        f'<text transform="rotate(-90 {left + 16:.0f} {_SIZE / 2:.0f})" x="{left + 16:.0f}" y="{_SIZE / 2:.0f}" '
        'text-anchor="middle">predicted, ms</text>',
    ]
    for factor, dash in ((1.0, ""), (1.1, ' stroke-dasharray="4 4"'), (1 / 1.1, ' stroke-dasharray="4 4"')):
        start, end = max(low, low / factor), min(high, high / factor)
        parts.append(
            f'<line x1="{x(start):.1f}" y1="{y(start * factor):.1f}" x2="{x(end):.1f}" y2="{y(end * factor):.1f}" '
            f'stroke="#999"{dash}/>'
        )
    for tick in _ticks(low, high):
        parts.append(f'<text x="{x(tick):.1f}" y="{_SIZE - 40:.0f}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{left + _MARGIN - 8:.0f}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for row in rows:
        found = row[setting][estimator]
        if "predicted_ms" in found:
            at, (bottom, top) = x(row["measured_ms"]), found["interval_ms"]
            colour = _colour(networks.index(row["network"]))
            parts.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(bottom):.1f}" y2="{y(top):.1f}" stroke="{colour}" '
                f'stroke-opacity="0.4"/><circle cx="{at:.1f}" cy="{y(found["predicted_ms"]):.1f}" r="3.5" '
                f'fill="{colour}"><title>{row["network"]} at {row["frontier"]}</title></circle>'
            )
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]
