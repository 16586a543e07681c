"""Pareto fronts of many networks: accuracy against latency, the networks as they come and what was cut from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from netcut_fx.pictures.accuracy_axis import Frame, accuracy_axis, draw_accuracy_axis, draw_latency_axis, stairs
from netcut_fx.pictures.svg import (
    Element,
    Labels,
    Scale,
    decade_ticks,
    diamond,
    drawing,
    number_text,
    text_width,
)
from netcut_fx.result_values import Record, format_ms, format_percent, mapping, number, records, shorten, text

_WIDTH, _HEIGHT = 1080.0, 560.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 1056.0, 40.0, 460.0
_FRAME = Frame(_LEFT, _RIGHT, _TOP, _BOTTOM)
#: Factor between the marks at the ends and the frame.
_MARGIN = 1.25


@dataclass(frozen=True)
class _Mark:
    """A retrained and measured candidate."""

    network: str
    cut: str
    uncut: bool
    ms: float
    accuracy: float


def front_steps(result: Record) -> Element:
    """Plot of an exploration's `result`; it says so where nothing can be drawn."""
    picture = drawing(_WIDTH, _HEIGHT, "Accuracy against latency of all retrained candidates", "exploration-fronts")
    marks = [m for n in records(result, "networks") for c in records(n, "cuts") if (m := _mark(c)) is not None]
    if not marks:
        picture.add("text", "nothing was both retrained and measured", x=_WIDTH / 2, y=_HEIGHT / 2).set(
            "class", "empty middle"
        )
        return picture
    fastest, slowest = min(m.ms for m in marks), max(m.ms for m in marks)
    x = Scale(fastest / _MARGIN, slowest * _MARGIN, _LEFT, _RIGHT, math.log10)
    axis = accuracy_axis([m.accuracy for m in marks], _FRAME)
    y = axis.scale
    ticks = [(tick, f"{tick:g}") for tick in decade_ticks(x.low, x.high)]
    draw_latency_axis(picture, x, ticks, _FRAME, "measured latency, ms (logarithmic)")
    draw_accuracy_axis(picture, axis, _FRAME, "test accuracy")
    fronts = mapping(result, "fronts")
    labels = Labels((_LEFT, _TOP, _RIGHT, _BOTTOM))
    _front(picture, x, y, records(fronts, "off_the_shelf"), "tone-uncut", labels)
    _front(picture, x, y, records(fronts, "ours"), "tone-chosen", labels)
    on_front = {(text(p, "network"), text(p, "cut")) for p in records(fronts, "ours")}
    for mark in marks:
        labels.block(x(mark.ms), y(mark.accuracy), 7)
    for mark in sorted(marks, key=lambda m: (m.uncut, (m.network, m.cut) in on_front)):
        _draw(picture, x(mark.ms), y(mark.accuracy), mark, (mark.network, mark.cut) in on_front)
    for mark in sorted(marks, key=lambda m: (not m.uncut, (m.network, m.cut) not in on_front)):
        if mark.uncut or (mark.network, mark.cut) in on_front:
            name = mark.network if mark.uncut else f"{mark.network} @ {mark.cut}"
            content = shorten(name, 30)
            spot = labels.place(x(mark.ms), y(mark.accuracy), content, size=11.5, gap=11)
            if spot is not None:
                tone = "tone-uncut strong" if mark.uncut else "tone-chosen"
                picture.add("text", content, x=spot[0], y=spot[1], text_anchor=spot[2], class_=f"name {tone}")
    _legend(picture)
    return picture


def _mark(cut: Record) -> _Mark | None:
    ms, accuracy = number(cut, "measured_ms"), number(cut, "test_accuracy")
    if ms is None or ms <= 0 or accuracy is None:
        return None
    return _Mark(text(cut, "network"), text(cut, "cut"), bool(cut.get("uncut")), ms, accuracy)


def _front(picture: Element, x: Scale, y: Scale, points: Sequence[Record], tone: str, labels: Labels) -> None:
    known = [(number(p, "ms"), number(p, "test_accuracy")) for p in points]
    corners = [(ms, accuracy) for ms, accuracy in known if ms is not None and accuracy is not None]
    if not corners:
        return
    # Whoever may wait longer still has the last network.
    path = stairs(corners, x, y, labels) + f"H{number_text(_RIGHT)}"
    labels.reserve((x(corners[-1][0]), y(corners[-1][1]) - 2, _RIGHT, y(corners[-1][1]) + 2))
    picture.add("g", class_=tone).add("path", d=path, class_="interval")


def _draw(picture: Element, at_x: float, at_y: float, mark: _Mark, on_front: bool) -> None:
    tone = "uncut" if mark.uncut else "chosen" if on_front else "infeasible"
    group = picture.add("g", class_=f"mark tone-{tone}")
    group.tooltip(
        f"{mark.network}, uncut" if mark.uncut else f"{mark.network} cut at {mark.cut}",
        f"{format_ms(mark.ms)} ms measured",
        f"test accuracy {format_percent(mark.accuracy)}",
    )
    if mark.uncut:
        group.add("rect", x=at_x - 5.5, y=at_y - 5.5, width=11, height=11, rx=1.5, class_="filled")
    else:
        group.add("path", d=diamond(at_x, at_y, 7 if on_front else 5), class_="filled")


def _legend(picture: Element) -> None:
    entries = (("uncut", "network off the shelf"), ("chosen", "cut, on our front"), ("infeasible", "other cut"))
    left, at = _LEFT + 120, _HEIGHT - 22
    for tone, content in entries:
        group = picture.add("g", class_=f"legend tone-{tone}")
        if tone == "uncut":
            group.add("rect", x=left, y=at - 5.5, width=11, height=11, rx=1.5, class_="filled")
        else:
            group.add("path", d=diamond(left + 6, at, 6.5), class_="filled")
        group.add("text", content, x=left + 20, y=at + 4, class_="legend-text")
        left += text_width(content, 12) + 60
