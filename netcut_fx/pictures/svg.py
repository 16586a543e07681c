"""The little of SVG that the pictures need: elements, axes, and labels that do not overlap."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from netcut_fx.result_values import clean

#: Width of an average character as a share of the font size: sans serif as drawn by common system fonts, monospaced.
_SANS, _MONO = 0.54, 0.61

Box = tuple[float, float, float, float]


def number_text(value: float) -> str:
    """Format a coordinate with at most two decimals: short, and the same on every machine."""
    rounded = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if rounded in ("-0", "") else rounded


class Element:
    """One SVG element that its children are added to; attribute names take ``_`` for ``-`` and ``class_``."""

    def __init__(self, tag: str, **attributes: str | float) -> None:
        self.node = ET.Element(tag)
        for name, value in attributes.items():
            self.set(name, value)

    def set(self, name: str, value: str | float) -> None:
        """Set one attribute."""
        key = name if name == "viewBox" else name.rstrip("_").replace("_", "-")
        self.node.set(key, clean(value) if isinstance(value, str) else number_text(value))

    def add(self, tag: str, content: str | None = None, **attributes: str | float) -> Element:
        """Append and return a child; `content` is its text."""
        child = Element(tag, **attributes)
        if content is not None:
            child.node.text = clean(content)
        self.node.append(child.node)
        return child

    def tooltip(self, *lines: str) -> Element:
        """Text that browsers show while the pointer rests on the element, and screen readers read."""
        self.add("title", "\n".join(line for line in lines if line))
        return self


def drawing(width: float, height: float, label: str, class_: str) -> Element:
    """Make an empty picture of `width` x `height` pixels that scales down with the page; `label` is its spoken name."""
    return Element(
        "svg",
        viewBox=f"0 0 {number_text(width)} {number_text(height)}",
        width=width,
        height=height,
        class_=f"picture {class_}",
        role="img",
        aria_label=label,
    )


def inline(picture: Element) -> str:
    """Text of `picture` to put into an HTML page."""
    return ET.tostring(picture.node, encoding="unicode")


def standalone(picture: Element, style: str) -> str:
    """Text of `picture` as a file of its own, with its style sheet inside and a background."""
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **picture.node.attrib})
    ET.SubElement(root, "style").text = style
    size = {"width": picture.node.attrib["width"], "height": picture.node.attrib["height"]}
    ET.SubElement(root, "rect", {"class": "background", "rx": "10", **size})
    root.extend(list(picture.node))
    return ET.tostring(root, encoding="unicode") + "\n"


def text_width(content: str, size: float, *, mono: bool = False) -> float:
    """Estimated width in pixels; no font is at hand, so it errs on the wide side."""
    return len(content) * size * (_MONO if mono else _SANS)


@dataclass(frozen=True)
class Scale:
    """Maps data in ``[low, high]`` to pixels in ``[start, end]`` through `transform` (identity by default)."""

    low: float
    high: float
    start: float
    end: float
    transform: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        """Pixel of `value`; beyond the ends it goes on in the same way."""
        low, high = self.transform(self.low), self.transform(self.high)
        share = (self.transform(value) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def round_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """At most about `count` ticks within ``[low, high]`` at multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return (low,)
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def decade_ticks(low: float, high: float) -> tuple[float, ...]:
    """1, 2 and 5 times powers of ten within ``[low, high]``, for logarithmic axes; round ticks where these are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = tuple(round(f * 10.0**d, 12) for d in decades for f in (1, 2, 5) if low <= f * 10.0**d <= high)
    return ticks if len(ticks) >= 3 else round_ticks(low, high, 6)


def tick_text(value: float, ticks: Iterable[float]) -> str:
    """`value` with the decimals that tell all `ticks` apart."""
    gaps = sorted(ticks)
    step = min((b - a for a, b in pairwise(gaps)), default=1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:.{decimals}f}"


@dataclass
class Labels:
    """Places labels beside points so that they cover neither points nor each other nor the frame."""

    frame: Box
    taken: list[Box] = field(default_factory=list[Box])

    def block(self, x: float, y: float, radius: float) -> None:
        """Keep labels off a marker."""
        self.taken.append((x - radius, y - radius, x + radius, y + radius))

    def reserve(self, box: Box) -> None:
        """Keep labels off a rectangle (x0, y0, x1, y1)."""
        self.taken.append(box)

    def place(self, x: float, y: float, content: str, *, size: float, gap: float) -> tuple[float, float, str] | None:
        """Baseline position and text-anchor for a label of the point (x, y), or None where there is no room."""
        width, ascent, descent = text_width(content, size, mono=True), size * 0.9, size * 0.3
        middle = (ascent - descent) / 2
        for dx, dy, anchor in (
            (gap, middle, "start"),
            (-gap, middle, "end"),
            (0, -gap, "middle"),
            (0, gap + ascent, "middle"),
            (gap, -gap * 0.6, "start"),
            (gap, gap * 0.6 + ascent, "start"),
            (-gap, -gap * 0.6, "end"),
            (-gap, gap * 0.6 + ascent, "end"),
            (0, -gap - size, "middle"),
            (0, gap + ascent + size, "middle"),
        ):
            left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (left, y + dy - ascent, left + width, y + dy + descent)
            if self._free(box):
                self.taken.append(box)
                return x + dx, y + dy, anchor
        return None

    def _free(self, box: Box) -> bool:
        x0, y0, x1, y1 = self.frame
        if box[0] < x0 or box[1] < y0 or box[2] > x1 or box[3] > y1:
            return False
        return not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in self.taken
        )


def diamond(cx: float, cy: float, radius: float) -> str:
    """Path of a square that stands on its corner."""
    top = f"M{number_text(cx)},{number_text(cy - radius)}"
    r = number_text(radius)
    return f"{top}l{r},{r}l-{r},{r}l-{r},-{r}z"
