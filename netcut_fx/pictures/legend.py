"""What the marks of the accuracy-latency plot mean."""

from __future__ import annotations

from collections.abc import Sequence

from netcut_fx.pictures.svg import Element, diamond, number_text, text_width
from netcut_fx.result_candidates import Candidate


def legend(picture: Element, drawn: Sequence[Candidate], *, has_front: bool, frame: tuple[float, float, float]) -> None:
    """Explain the marks that occur in `drawn`, centred between left and right at height y of `frame`."""
    cuts = [c for c in drawn if c.verdict != "uncut"]
    entries: list[tuple[str, str]] = []
    if any(c.validation is None or c.quick is not None for c in cuts):
        entries.append(("circle", "quick head on the frozen trunk"))
    if any(c.validation is not None for c in cuts):
        entries.append(("diamond", "retrained"))
    entries.append(("fill", "hollow: latency predicted, filled: measured"))
    if any(c.low_ms is not None for c in cuts):
        entries.append(("interval", "predicted interval"))
    if has_front:
        entries.append(("front", "Pareto front"))
    widths = [30 + text_width(content, 12) + 18 for _, content in entries]
    start, end, at = frame
    left = max(start, (start + end - sum(widths)) / 2)
    for (shape, content), width in zip(entries, widths, strict=True):
        group = picture.add("g", class_="legend tone-legend")
        if shape == "circle":
            group.add("circle", cx=left + 12, cy=at, r=5, class_="hollow")
        elif shape == "diamond":
            group.add("path", d=diamond(left + 12, at, 6.5), class_="hollow")
        elif shape == "fill":
            group.add("circle", cx=left + 5, cy=at, r=5, class_="hollow")
            group.add("circle", cx=left + 18, cy=at, r=5, class_="filled")
        elif shape == "interval":
            group.add("path", d=f"M{number_text(left)},{number_text(at)}h24m0,-3v6m-24,0v-6", class_="interval")
        else:
            group.add("path", d=f"M{number_text(left)},{number_text(at + 4)}h12v-8h12", class_="front")
        group.add("text", content, x=left + 30, y=at + 4, class_="legend-text")
        left += width
