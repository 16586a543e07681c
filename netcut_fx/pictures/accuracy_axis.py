"""What plots of accuracy against latency share: the axes, and the stairs of a Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from netcut_fx.pictures.svg import Element, Labels, Scale, number_text, round_ticks, tick_text

#: Accuracies that a logarithmic error axis may mark.
_ROUND_ACCURACIES = (
    *(tenth / 10 for tenth in range(9)),
    *(0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999),
)
#: Room between the axis's marks, in pixels.
_APART = 18


@dataclass(frozen=True)
class Frame:
    """Where in the drawing the plot lies, in pixels."""

    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True)
class AccuracyAxis:
    """A scale, and whether it shows the logarithm of the errors; `perfect` where an accuracy of one occurs."""

    scale: Scale
    logarithmic: bool
    perfect: bool


def accuracy_axis(values: Sequence[float], frame: Frame) -> AccuracyAxis:
    """An axis on which `values` can be told apart.

    Where they reach beyond 90 % and lie apart, differences that matter lie between 95 % and 100 %: the error is then
    shown logarithmically. No error at all has no logarithm, so it is drawn as half the smallest one that occurs.
    """
    low, high = min(values), max(values)
    if high > 0.9 and high - low > 0.12:
        floor = min(1 - v for v in values if v < 1) / 2 if high >= 1 else 1e-9

        def transform(accuracy: float) -> float:
            return -math.log10(max(1 - accuracy, floor))

        return AccuracyAxis(Scale(low, high, frame.bottom - 28, frame.top + 32, transform), True, high >= 1)
    margin = max((high - low) * 0.1, 0.005)
    bottom, top = max(low - margin, 0.0), min(high + margin, 1.0 + margin / 2)
    return AccuracyAxis(Scale(bottom, top, frame.bottom, frame.top), False, high >= 1)


def draw_accuracy_axis(picture: Element, axis: AccuracyAxis, frame: Frame, title: str) -> None:
    """Lines across the frame, their accuracies, and `title` beside them."""
    y = axis.scale
    if axis.logarithmic:
        marks = [(1.0, "100\u00a0%")] if axis.perfect else []
        wanted = (a for a in reversed(_ROUND_ACCURACIES) if frame.top <= y(a) <= frame.bottom)
        marks += [(a, f"{a * 100:g}\u00a0%") for a in wanted]
    else:
        ticks = round_ticks(y.low * 100, min(y.high, 1.0) * 100, 7)
        marks = [(tick / 100, tick_text(tick, ticks) + "\u00a0%") for tick in reversed(ticks)]
    last = -math.inf
    for accuracy, content in marks:
        at = y(accuracy)
        if at - last < _APART:
            continue
        last = at
        picture.add("line", x1=frame.left, x2=frame.right, y1=at, y2=at, class_="grid")
        picture.add("text", content, x=frame.left - 9, y=at + 4, class_="tick end")
    middle = (frame.top + frame.bottom) / 2
    turned = f"rotate(-90 18 {number_text(middle)})"
    content = title + (" (error on a log scale)" if axis.logarithmic else "")
    picture.add("text", content, x=18, y=middle, transform=turned, class_="axis-title middle")


def draw_latency_axis(picture: Element, x: Scale, ticks: Sequence[tuple[float, str]], frame: Frame, title: str) -> None:
    """The line below the frame with `ticks`, each a value and its text, and `title`."""
    for tick, content in ticks:
        picture.add("line", x1=x(tick), x2=x(tick), y1=frame.bottom, y2=frame.bottom + 5, class_="axis")
        picture.add("text", content, x=x(tick), y=frame.bottom + 20, class_="tick middle")
    picture.add("line", x1=frame.left, x2=frame.right, y1=frame.bottom, y2=frame.bottom, class_="axis")
    at = (frame.left + frame.right) / 2
    picture.add("text", title, x=at, y=frame.bottom + 42, class_="axis-title middle")


def stairs(corners: Sequence[tuple[float, float]], x: Scale, y: Scale, labels: Labels) -> str:
    """Path of a front through `corners`, each (ms, accuracy), fastest first; labels keep off it."""
    path = f"M{number_text(x(corners[0][0]))},{number_text(y(corners[0][1]))}"
    for (ms, accuracy), (next_ms, next_accuracy) in pairwise(corners):
        path += f"H{number_text(x(next_ms))}V{number_text(y(next_accuracy))}"
        labels.reserve((x(ms), y(accuracy) - 2, x(next_ms), y(accuracy) + 2))
        labels.reserve((x(next_ms) - 2, y(next_accuracy), x(next_ms) + 2, y(accuracy)))
    return path
