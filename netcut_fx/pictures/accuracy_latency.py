"""Accuracy against latency: every frontier, the deadline, the Pareto front, the chosen cut and the uncut network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netcut_fx.pictures.accuracy_axis import Frame, accuracy_axis, draw_accuracy_axis, draw_latency_axis, stairs
from netcut_fx.pictures.legend import legend
from netcut_fx.pictures.svg import (
    Element,
    Labels,
    Scale,
    diamond,
    drawing,
    round_ticks,
    text_width,
    tick_text,
)
from netcut_fx.result_candidates import Candidate, candidates_of, pareto, uncut_of
from netcut_fx.result_values import Record, format_interval, format_ms, format_percent, number, shorten

_WIDTH, _HEIGHT = 1080.0, 540.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 1056.0, 40.0, 440.0
_FRAME = Frame(_LEFT, _RIGHT, _TOP, _BOTTOM)
_LABEL_SIZE = 11.5
#: With more frontiers than this only the measured ones are named; the others say their name under the pointer.
_MANY = 40


@dataclass(frozen=True)
class _Point:
    """A candidate that can be drawn, and where: at what is best known of it."""

    candidate: Candidate
    ms: float
    accuracy: float

    @property
    def large(self) -> bool:
        return self.candidate.verdict in ("chosen", "uncut")


@dataclass(frozen=True)
class _Canvas:
    """What every part of the plot draws on."""

    picture: Element
    x: Scale
    y: Scale
    labels: Labels


def accuracy_latency(result: Record) -> Element:
    """Plot of `result`; it says so where nothing can be drawn."""
    candidates, uncut = candidates_of(result), uncut_of(result)
    deadline_ms = number(result, "deadline_ms")
    points = [
        _Point(candidate, candidate.best_ms, candidate.best_accuracy)
        for candidate in (*candidates, uncut)
        if candidate.best_ms is not None and candidate.best_accuracy is not None
    ]
    # The last drawn lies on top.
    points.sort(key=lambda point: {"chosen": 3, "uncut": 2, "feasible": 1}.get(point.candidate.verdict, 0))
    picture = drawing(_WIDTH, _HEIGHT, "Accuracy against latency of all frontiers", "accuracy-latency")
    if not points:
        picture.add("text", "no frontier has both a latency and an accuracy", x=_WIDTH / 2, y=_HEIGHT / 2).set(
            "class", "empty middle"
        )
        return picture
    axis = accuracy_axis(_accuracies(points), _FRAME)
    x = _latency_scale(points, deadline_ms)
    canvas = _Canvas(picture, x, axis.scale, Labels((_LEFT, _TOP, _RIGHT, _BOTTOM)))
    _background(canvas, deadline_ms)
    ticks = round_ticks(x.low, x.high, 10)
    draw_latency_axis(picture, x, [(tick, tick_text(tick, ticks)) for tick in ticks], _FRAME, "latency, ms")
    draw_accuracy_axis(picture, axis, _FRAME, "validation accuracy")
    front = pareto(point.candidate for point in points)
    _front(canvas, front)
    for point in points:
        _intervals(canvas, point)
    for point in points:
        _markers(canvas, point, 5 if len(points) <= _MANY else 3)
    _names(canvas, points, set(front))
    legend(
        picture, [point.candidate for point in points], has_front=len(front) > 1, frame=(_LEFT, _RIGHT, _HEIGHT - 22)
    )
    return picture


def not_drawn(result: Record) -> tuple[str, ...]:
    """Names of the frontiers whose latency or accuracy is not known, so that the plot cannot show them."""
    return tuple(c.name for c in candidates_of(result) if c.best_ms is None or c.best_accuracy is None)


def _latency_scale(points: Sequence[_Point], deadline_ms: float | None) -> Scale:
    drawn = [point.candidate for point in points]
    values = [v for c in drawn for v in (c.predicted_ms, c.high_ms, c.measured_ms, c.measured_high_ms) if v is not None]
    latest = max(values)
    # A deadline far beyond everything would squash the points: the axis then ends before it.
    if deadline_ms is not None and deadline_ms < 3 * latest:
        latest = max(latest, deadline_ms)
    return Scale(0.0, latest * 1.06 or 1.0, _LEFT, _RIGHT)


def _accuracies(points: Sequence[_Point]) -> list[float]:
    return [v for point in points for v in (point.candidate.quick, point.candidate.validation) if v is not None]


def _background(canvas: _Canvas, deadline_ms: float | None) -> None:
    picture, x, labels = canvas.picture, canvas.x, canvas.labels
    if deadline_ms is None or deadline_ms <= 0:
        return
    if deadline_ms > x.high:
        picture.add("text", f"deadline {format_ms(deadline_ms)} ms is further right →", x=_RIGHT, y=_TOP - 12).set(
            "class", "deadline-text end"
        )
        picture.add("rect", x=_LEFT, y=_TOP, width=_RIGHT - _LEFT, height=_BOTTOM - _TOP, class_="feasible-area")
        return
    at = x(deadline_ms)
    picture.add("rect", x=_LEFT, y=_TOP, width=at - _LEFT, height=_BOTTOM - _TOP, class_="feasible-area")
    picture.add("line", x1=at, x2=at, y1=_TOP - 6, y2=_BOTTOM, class_="deadline")
    content = f"deadline {format_ms(deadline_ms)} ms"
    half = text_width(content, 12) / 2
    middle = min(max(at, _LEFT + half), _RIGHT - half)
    picture.add("text", content, x=middle, y=_TOP - 12, class_="deadline-text middle")
    labels.reserve((at - 2, _TOP, at + 2, _BOTTOM))
    meets = "meets the deadline"
    if at - _LEFT > text_width(meets, 11) + 20:
        picture.add("text", meets, x=_LEFT + 10, y=_TOP + 18, class_="area-text")
        labels.reserve((_LEFT, _TOP, _LEFT + text_width(meets, 11) + 14, _TOP + 24))


def _front(canvas: _Canvas, front: Sequence[tuple[float, float]]) -> None:
    if len(front) < 2:
        return
    line = canvas.picture.add("path", d=stairs(front, canvas.x, canvas.y, canvas.labels), class_="front")
    line.tooltip("Pareto front: none is both faster and more accurate")


def _intervals(canvas: _Canvas, point: _Point) -> None:
    x, candidate, at = canvas.x, point.candidate, canvas.y(point.accuracy)
    group = canvas.picture.add("g", class_=f"tone-{point.candidate.tone}")
    low, high = candidate.low_ms, candidate.high_ms
    if low is not None and high is not None:
        canvas.labels.reserve((x(low), at - 3, x(high), at + 3))
        group.add("line", x1=x(low), x2=x(high), y1=at, y2=at, class_="interval")
        for end in (low, high):
            group.add("line", x1=x(end), x2=x(end), y1=at - 3, y2=at + 3, class_="interval cap")
    before = _before_retraining(canvas, candidate)
    if before is not None:
        x1, y1, x2 = *before, x(point.ms)
        group.add("line", x1=x1, y1=y1, x2=x2, y2=at, class_="gain")
        for share in (0.25, 0.5, 0.75):
            canvas.labels.block(x1 + share * (x2 - x1), y1 + share * (at - y1), 3)


def _before_retraining(canvas: _Canvas, candidate: Candidate) -> tuple[float, float] | None:
    """Where a retrained candidate stood with its quick head."""
    if candidate.validation is None or candidate.quick is None or candidate.predicted_ms is None:
        return None
    return canvas.x(candidate.predicted_ms), canvas.y(candidate.quick)


def _markers(canvas: _Canvas, point: _Point, radius: float) -> None:
    candidate, labels = point.candidate, canvas.labels
    group = canvas.picture.add("g", class_=f"mark tone-{point.candidate.tone}")
    group.tooltip(*_tooltip(candidate))
    before = _before_retraining(canvas, candidate)
    if before is not None:
        group.add("circle", cx=before[0], cy=before[1], r=3.5, class_="hollow faded")
        labels.block(*before, 5)
    at = canvas.x(point.ms), canvas.y(point.accuracy)
    fill = "hollow" if candidate.measured_ms is None else "filled"
    if candidate.verdict == "chosen":
        group.add("circle", cx=at[0], cy=at[1], r=13, class_="halo")
    if candidate.verdict == "uncut":
        group.add("rect", x=at[0] - 6, y=at[1] - 6, width=12, height=12, rx=1.5, class_=fill)
    elif candidate.validation is not None:
        group.add("path", d=diamond(*at, 8.5 if point.large else 6.5), class_=fill)
    else:
        group.add("circle", cx=at[0], cy=at[1], r=7 if point.large else radius, class_=fill)
    labels.block(*at, 9 if point.large else 6)


def _tooltip(candidate: Candidate) -> tuple[str, ...]:
    quick = format_interval(candidate.quick_low, candidate.quick_high, 100)
    return (
        f"{candidate.name} ({candidate.verdict})",
        f"predicted {format_ms(candidate.predicted_ms)} ms {format_interval(candidate.low_ms, candidate.high_ms)}",
        "" if candidate.measured_ms is None else f"measured {format_ms(candidate.measured_ms)} ms",
        "" if candidate.quick is None else f"quick head {format_percent(candidate.quick)} {quick}",
        "" if candidate.validation is None else f"retrained, validation {format_percent(candidate.validation)}",
        "" if candidate.test is None else f"test {format_percent(candidate.test)}",
        candidate.reason,
    )


def _names(canvas: _Canvas, points: Sequence[_Point], front: set[tuple[float, float]]) -> None:
    """Name the points, the important ones first, as far as there is room."""

    def rank(point: _Point) -> tuple[int, float]:
        if point.large:
            return 0, -point.accuracy
        if point.candidate.measured_ms is not None:
            return 1, -point.accuracy
        return 2 if (point.ms, point.accuracy) in front else 3, -point.accuracy

    for point in sorted(points, key=rank):
        if len(points) > _MANY and rank(point)[0] > 1:
            break
        candidate = point.candidate
        content = "uncut" if candidate.verdict == "uncut" else shorten(candidate.name, 28)
        at = canvas.x(point.ms), canvas.y(point.accuracy)
        size = 13.0 if point.large else _LABEL_SIZE
        spot = canvas.labels.place(*at, content, size=size, gap=18 if candidate.verdict == "chosen" else 11)
        if spot is None and point.large:
            spot = (at[0], at[1] - 18, "middle")
        if spot is not None:
            kind = f"name tone-{point.candidate.tone}" + (" strong" if point.large else "")
            canvas.picture.add("text", content, x=spot[0], y=spot[1], text_anchor=spot[2], class_=kind)
