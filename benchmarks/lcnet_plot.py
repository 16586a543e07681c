"""Accuracy against FLOPs and against measured time of all methods, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.lcnet_summary import static_of, trainings
from netcut_fx.pictures.accuracy_axis import Frame, accuracy_axis, draw_accuracy_axis, draw_latency_axis
from netcut_fx.pictures.style import style_sheet
from netcut_fx.pictures.svg import Element, Scale, drawing, number_text, standalone

Row = dict[str, Any]
#: A row, its share of the static network, and its accuracy.
Point = tuple[Row, float, float]

_WIDTH, _HEIGHT, _LEGEND = 460.0, 380.0, 130.0
_FRAME = Frame(left=78.0, right=_WIDTH - 16, top=34.0, bottom=_HEIGHT - 56)
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
_TICKS = tuple((tick, f"{tick:g}") for tick in (0.0, 0.25, 0.5, 0.75, 1.0))


def plot(rows: Sequence[Row]) -> str:
    """For each training two panels side by side, one dot for each point and seed; lines join the rates of a method."""
    panels = trainings(rows)
    picture = drawing(2 * _WIDTH + _LEGEND, len(panels) * _HEIGHT, "Accuracy against FLOPs and time", "lcnet")
    for place, (name, own) in enumerate(panels.items()):
        for column, (key, label) in enumerate(_AXES):
            at = f"translate({number_text(column * _WIDTH)} {number_text(place * _HEIGHT)})"
            shares = [(row, _share(row, rows, key), row["accuracy"]) for row in own]
            points = [(r, share, a) for r, share, a in shares if share is not None and r["method"] in _COLOURS]
            if points:
                _panel(picture.add("g", transform=at), points, name, label)
    shown = [name for name in _COLOURS if any(row["method"] == name for row in rows)]
    for number, name in enumerate(shown):
        y = 50 + 22 * number
        picture.add("circle", cx=2 * _WIDTH + 12, cy=y, r=5, fill=_COLOURS[name])
        picture.add("text", name, x=2 * _WIDTH + 24, y=y + 4, class_="legend-text")
    return standalone(picture, style_sheet("colours.css", "pictures.css"))


def _panel(panel: Element, points: Sequence[Point], title: str, label: str) -> None:
    axis = accuracy_axis([accuracy for _, _, accuracy in points], _FRAME)
    x, y = Scale(0.0, max(1.05, *(1.02 * share for _, share, _ in points)), _FRAME.left, _FRAME.right), axis.scale
    draw_accuracy_axis(panel, axis, _FRAME, "top-1 on test")
    draw_latency_axis(panel, x, _TICKS, _FRAME, label)
    panel.add("text", title, x=(_FRAME.left + _FRAME.right) / 2, y=20, class_="axis-title middle")
    curves: dict[tuple[str, int], list[Point]] = {}
    for point in sorted(points, key=lambda found: found[1]):
        curves.setdefault((point[0]["method"], point[0]["seed"]), []).append(point)
    for (method, seed), curve in curves.items():
        colour, places = _COLOURS[method], [(x(share), y(accuracy), accuracy) for _, share, accuracy in curve]
        line = " ".join(f"{number_text(left)},{number_text(top)}" for left, top, _ in places)
        panel.add("polyline", points=line, fill="none", stroke=colour, stroke_opacity=0.5)
        for left, top, accuracy in places:
            dot = panel.add("circle", cx=left, cy=top, r=4, fill=colour)
            dot.tooltip(f"{method}, seed {seed}: {100 * accuracy:.1f} %")


def _share(row: Row, rows: Sequence[Row], key: str) -> float | None:
    """Of the static network: served beside it where that was done, else as it was measured alone."""
    base = static_of(row, rows)
    if base is None:
        return None
    whole = row.get("static_ms") if key == "mean_ms" else None
    return row[key] / (whole or base[key])
