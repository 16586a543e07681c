"""The table beside the picture of a network: one line for each cut, at the height of its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netcut_fx.frontier_facts import FrontierFacts
from netcut_fx.pictures.svg import Element, text_width
from netcut_fx.result_values import (
    UNKNOWN,
    format_count,
    format_interval,
    format_mflops,
    format_ms,
    format_percent,
    format_shape,
    shorten,
)

_GAP, _SIZE = 22.0, 12.0
_LONGEST = 44


@dataclass(frozen=True)
class Column:
    """One column: its title, what it says of a frontier, where it begins and ends, and whether figures end there."""

    title: str
    content: Callable[[FrontierFacts], str]
    left: float
    right: float
    figures: bool

    def write(self, picture: Element, facts: FrontierFacts, y: float) -> None:
        """Write the entry of one frontier."""
        content = self.content(facts)
        if self.figures:
            unknown = " unknown" if content == UNKNOWN else ""
            picture.add("text", content, x=self.right, y=y, class_=f"figure end{unknown}")
        else:
            kind = "frontier-name" if self.title == "frontier" else "figure"
            picture.add("text", content, x=self.left, y=y, class_=kind)


def columns(facts: Sequence[FrontierFacts], start: float) -> tuple[Column, ...]:
    """The columns for `facts`, from `start` to the right; those that would say nothing are left out."""
    wanted: list[tuple[str, Callable[[FrontierFacts], str], bool]] = [
        ("frontier", lambda f: shorten(f.frontier.name, _LONGEST), False),
        ("crossing", _crossing, False),
        ("width", lambda f: str(f.frontier.width), True),
    ]
    if any(tensor.pool for f in facts for tensor in f.tensors):
        wanted.append(("pooling", lambda f: ", ".join(dict.fromkeys(t.pool for t in f.tensors)), False))
    wanted += [("params kept", _params, True), ("MFLOPs kept", _flops, True)]
    if any(f.latency is not None for f in facts):
        wanted.append(("ms with a new head", _ms, True))
    found: list[Column] = []
    for title, content, figures in wanted:
        mono = title == "frontier"
        width = max((text_width(content(f), _SIZE, mono=mono) for f in facts), default=0.0)
        width = max(width, text_width(title, _SIZE))
        found.append(Column(title, content, start, start + width, figures))
        start += width + _GAP
    return tuple(found)


def heading(picture: Element, shown: Sequence[Column], y: float) -> None:
    """Titles of the columns."""
    for column in shown:
        if column.figures:
            picture.add("text", column.title, x=column.right, y=y, class_="column end")
        else:
            picture.add("text", column.title, x=column.left, y=y, class_="column")


def _crossing(facts: FrontierFacts) -> str:
    """Shape of a single tensor; of several, each shape once with how often it crosses."""
    shapes = [format_shape(spec.shape) for spec in facts.frontier.specs]
    parts = [s if shapes.count(s) == 1 else f"{shapes.count(s)} of {s}" for s in dict.fromkeys(shapes)]
    return ", ".join(parts[:2]) + (", …" if len(parts) > 2 else "")


def _params(facts: FrontierFacts) -> str:
    share = f" ({format_percent(facts.params_share)})" if facts.params_share is not None else ""
    return format_count(facts.frontier.kept_params) + share


def _flops(facts: FrontierFacts) -> str:
    share = f" ({format_percent(facts.flops_share)})" if facts.flops_share is not None else ""
    return f"{'' if facts.flops_known else '≥ '}{format_mflops(facts.frontier.kept_flops)}{share}"


def _ms(facts: FrontierFacts) -> str:
    if facts.latency is None or not facts.latency.is_known:
        return UNKNOWN
    return f"{format_ms(facts.latency.ms)} {format_interval(facts.latency.low_ms, facts.latency.high_ms)}"
