"""Predicted against measured latency, with the diagonal and a band of ten per cent."""

from __future__ import annotations

from netcut_fx.pictures.svg import Element, Labels, Scale, drawing, number_text, round_ticks, tick_text
from netcut_fx.result_candidates import Candidate, candidates_of, uncut_of
from netcut_fx.result_values import Record, format_interval, format_ms, shorten

_WIDTH, _HEIGHT = 520.0, 460.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 504.0, 14.0, 402.0
_BAND = 0.10


def compared(result: Record) -> tuple[Candidate, ...]:
    """Frontiers (and the uncut network) that were both predicted and measured, shallow to deep."""
    return tuple(c for c in (*candidates_of(result), uncut_of(result)) if c.error is not None)


def within_band(candidate: Candidate) -> bool:
    """Whether the predicted time lies within +-10 % of the measured one."""
    return candidate.error is not None and abs(candidate.error) <= _BAND


def predicted_measured(result: Record) -> Element:
    """Scatter plot of `compared`; it says so where nothing was measured."""
    points = compared(result)
    picture = drawing(_WIDTH, _HEIGHT, "Predicted against measured latency", "predicted-measured")
    if not points:
        picture.add("text", "nothing was both predicted and measured", x=_WIDTH / 2, y=_HEIGHT / 2).set(
            "class", "empty middle"
        )
        return picture
    values = [v for c in points for v in (c.predicted_ms, c.measured_ms) if v is not None]
    low, high = min(values), max(values)
    margin = max((high - low) * 0.12, high * 0.08)
    low, high = max(low - margin, 0.0), high + margin
    x, y = Scale(low, high, _LEFT, _RIGHT), Scale(low, high, _BOTTOM, _TOP)
    _band(picture, x, y)
    ticks = round_ticks(low, high, 6)
    for tick in ticks:
        content = tick_text(tick, ticks)
        picture.add("line", x1=_LEFT, x2=_RIGHT, y1=y(tick), y2=y(tick), class_="grid")
        picture.add("line", x1=x(tick), x2=x(tick), y1=_BOTTOM, y2=_BOTTOM + 5, class_="axis")
        picture.add("text", content, x=_LEFT - 8, y=y(tick) + 4, class_="tick end")
        picture.add("text", content, x=x(tick), y=_BOTTOM + 20, class_="tick middle")
    picture.add("line", x1=_LEFT, x2=_RIGHT, y1=_BOTTOM, y2=_BOTTOM, class_="axis")
    picture.add("text", "predicted, ms", x=(_LEFT + _RIGHT) / 2, y=_BOTTOM + 44, class_="axis-title middle")
    middle = (_TOP + _BOTTOM) / 2
    turned = f"rotate(-90 16 {number_text(middle)})"
    picture.add("text", "measured, ms", x=16, y=middle, transform=turned, class_="axis-title middle")
    labels = Labels((_LEFT, _TOP, _RIGHT, _BOTTOM))
    for candidate in points:
        _point(picture, candidate, x, y, labels)
    for candidate in sorted(points, key=lambda c: c.verdict not in ("chosen", "uncut")):
        content = "uncut" if candidate.verdict == "uncut" else shorten(candidate.name, 22)
        spot = labels.place(
            x(candidate.predicted_ms or 0.0), y(candidate.measured_ms or 0.0), content, size=11.5, gap=15
        )
        if spot is not None:
            kind = f"name tone-{candidate.tone}"
            picture.add("text", content, x=spot[0], y=spot[1], text_anchor=spot[2], class_=kind)
    return picture


def _band(picture: Element, x: Scale, y: Scale) -> None:
    """Draw the band within the frame: clipped by hand, for a clip path would need an id that is unique on the page."""
    low, high = x.low, x.high
    upper, lower = 1 / (1 - _BAND), 1 / (1 + _BAND)
    corners = [
        (low, min(low * upper, high)),
        (high / upper, high),
        (high, high),
        (high, high * lower),
        (max(low / lower, low), low),
        (low, low),
    ]
    if low * upper >= high or low / lower >= high:
        corners = [(low, low), (low, high), (high, high), (high, low)]
    points = " ".join(f"{number_text(x(a))},{number_text(y(b))}" for a, b in corners)
    picture.add("polygon", points=points, class_="band").tooltip("predicted within 10 % of the measurement")
    picture.add("line", x1=x(low), y1=y(low), x2=x(high), y2=y(high), class_="diagonal")
    picture.add("text", "±10 %", x=_RIGHT - 8, y=y(high * 0.9) + 62, class_="area-text end")


def _point(picture: Element, candidate: Candidate, x: Scale, y: Scale, labels: Labels) -> None:
    if candidate.predicted_ms is None or candidate.measured_ms is None:
        return
    at = x(candidate.predicted_ms), y(candidate.measured_ms)
    group = picture.add("g", class_=f"mark tone-{candidate.tone}")
    group.tooltip(
        candidate.name,
        f"predicted {format_ms(candidate.predicted_ms)} ms {format_interval(candidate.low_ms, candidate.high_ms)}",
        f"measured {format_ms(candidate.measured_ms)} ms "
        f"{format_interval(candidate.measured_low_ms, candidate.measured_high_ms)}",
    )
    if candidate.low_ms is not None and candidate.high_ms is not None:
        ends = max(x(candidate.low_ms), _LEFT), min(x(candidate.high_ms), _RIGHT)
        group.add("line", x1=ends[0], x2=ends[1], y1=at[1], y2=at[1], class_="interval")
        labels.reserve((ends[0], at[1] - 2, ends[1], at[1] + 2))
    if candidate.measured_low_ms is not None and candidate.measured_high_ms is not None:
        ends = max(y(candidate.measured_high_ms), _TOP), min(y(candidate.measured_low_ms), _BOTTOM)
        group.add("line", x1=at[0], x2=at[0], y1=ends[0], y2=ends[1], class_="interval")
    if candidate.verdict == "uncut":
        group.add("rect", x=at[0] - 5.5, y=at[1] - 5.5, width=11, height=11, rx=1.5, class_="filled")
    else:
        group.add("circle", cx=at[0], cy=at[1], r=5.5, class_="filled")
    labels.block(*at, 7)
