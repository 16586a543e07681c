"""The report of a run: one HTML file that needs nothing but a browser, and its main picture as an SVG file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from netcut_fx.atomic_files import atomic_write
from netcut_fx.pictures.accuracy_latency import accuracy_latency, not_drawn
from netcut_fx.pictures.graph_picture import graph_picture
from netcut_fx.pictures.kernel_bars import kernel_bars
from netcut_fx.pictures.predicted_measured import predicted_measured
from netcut_fx.pictures.svg import Element, inline, standalone
from netcut_fx.report_headline import headline, tiles
from netcut_fx.report_sections import (
    agreement_line,
    candidate_rows,
    comparison_rows,
    kernel_kinds,
    lines,
    setting_rows,
    split_of_time,
    stage_rows,
)
from netcut_fx.result_values import Record, clean, format_ms, number, text

_STYLES = ("colours.css", "pictures.css", "page.css")


def render(result: Record) -> str:
    """Lay out the report of `result` as HTML text: equal text for equal results.

    Parameters
    ----------
    result : mapping
        What a run prints as JSON. Missing keys, nulls and NaN are shown as unknown, never as zero.

    Returns
    -------
    str
        One document without scripts and without any reference to another file or host.
    """
    return page("report.html.j2", _context(result))


def page(template: str, content: Record) -> str:
    """HTML of a template of this package with the style of all reports; what it holds is escaped."""
    environment = Environment(
        loader=PackageLoader("netcut_fx", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render({**content, "style": Markup(style_text(*_STYLES))})


def write_report(result: Record, path: Path) -> Path:
    """Write the report of `result` to `path`, all of it or nothing, and return `path`.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    return write_text(render(result), Path(path))


def write_accuracy_latency_svg(result: Record, path: Path) -> Path:
    """Write the plot of accuracy against latency to `path` as an SVG file of its own, and return `path`.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    return write_text(standalone(accuracy_latency(result), style_text(*_STYLES[:2])), Path(path))


def _context(result: Record) -> dict[str, Any]:
    return {
        "model": text(result, "model", "network"),
        "data": text(result, "data", "unknown data"),
        "deadline": format_ms(number(result, "deadline_ms")),
        "headline": headline(result),
        "tiles": tiles(result),
        "plot": _markup(accuracy_latency(result)),
        "not_drawn": not_drawn(result),
        "rows": candidate_rows(result),
        "scatter": _markup(predicted_measured(result)),
        "comparison": comparison_rows(result),
        "kinds": kernel_kinds(result),
        "split": split_of_time(result),
        "bars": _markup(kernel_bars(result)),
        "graph": _markup(graph_picture(result)),
        "decision": lines(result, "decision"),
        "stages": stage_rows(result),
        "settings": setting_rows(result),
        "agreement": agreement_line(result),
        "schema_version": clean(result.get("schema_version", "unknown")),
    }


def _markup(picture: Element) -> Markup:
    # Safe: every name went through the XML serialiser, which escapes it.
    return Markup(inline(picture))


def style_text(*names: str) -> str:
    """Style sheets of this package, one after the other."""
    folder = resources.files("netcut_fx") / "templates"
    return "".join((folder / name).read_text(encoding="utf-8") for name in names)


def write_text(content: str, path: Path) -> Path:
    """Write a file, all of it or nothing, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content.encode("utf-8"))
    return path
