"""The report over all networks of an exploration: one HTML file that needs nothing but a browser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from netcut_fx.pictures.front_steps import front_steps
from netcut_fx.pictures.svg import inline, standalone
from netcut_fx.report import page, style_text, write_text
from netcut_fx.result_values import (
    NONE,
    UNKNOWN,
    Record,
    format_interval,
    format_ms,
    format_percent,
    format_signed,
    items,
    mapping,
    number,
    records,
    text,
)


@dataclass(frozen=True)
class ChoiceRow:
    """What one strategy chose for one deadline; all cells are text."""

    deadline: str
    shelf: str
    shelf_accuracy: str
    strategy: str
    winner: str
    ms: str
    accuracy: str
    interval: str
    gain: str
    regret: str
    retrained: str
    seconds: str
    speedup: str
    status: str


def render_overview(result: Record) -> str:
    """Lay out the report of an exploration's `result`: equal text for equal results.

    Missing keys and nulls are shown as unknown, never as zero.
    """
    rows = choice_rows(result)
    networks = records(result, "networks")
    return page(
        "exploration.html.j2",
        {
            "data": text(result, "data", "unknown data"),
            "networks": len(networks),
            "failed": [(text(n, "name"), text(n, "failed")) for n in networks if text(n, "failed")],
            "failures": [f for f in records(result, "failures") if text(f, "cut")],
            "sentence": _sentence(result),
            "plot": Markup(inline(front_steps(result))),  # the serialiser escapes every name
            "rows": rows,
            "bill": _bill_rows(result),
            "totals": _totals(result),
            "better": [_better(r) for r in records(result, "better_and_faster")],
            "candidates": [_candidate(c) for n in networks for c in records(n, "cuts")],
            "settings": _settings(result),
        },
    )


def write_overview(result: Record, path: Path) -> Path:
    """Write the report of `result` to `path`, all of it or nothing, and return `path`."""
    return write_text(render_overview(result), path)


def write_fronts_svg(result: Record, path: Path) -> Path:
    """Write the plot of the Pareto fronts to `path` as an SVG file of its own, and return `path`."""
    return write_text(standalone(front_steps(result), style_text("colours.css", "pictures.css")), path)


def choice_rows(result: Record) -> list[ChoiceRow]:
    """A row for each deadline and strategy, and one for the best of all that was retrained where that is another."""
    rows: list[ChoiceRow] = []
    for deadline in records(result, "deadlines"):
        chosen = mapping(deadline, "strategies")
        rows += [_choice(deadline, strategy, found) for strategy, found in chosen.items()]
        best = mapping(deadline, "best_known")
        first = mapping(chosen, str(next(iter(chosen), "")))
        if mapping(best, "winner") and _name(mapping(best, "winner")) != _name(mapping(first, "winner")):
            rows.append(replace(_choice(deadline, "best known", {**best, "meets": True}), seconds=NONE))
    return rows


def _choice(deadline: Record, strategy: str, chosen: Record) -> ChoiceRow:
    shelf, winner = mapping(deadline, "off_the_shelf"), mapping(chosen, "winner")
    low, high = number(winner, "test_low"), number(winner, "test_high")
    retrained, seconds, speedup = (number(chosen, k) for k in ("retrained", "cpu_seconds", "speedup"))
    meets = chosen.get("meets")
    return ChoiceRow(
        deadline=format_ms(number(deadline, "deadline_ms")),
        shelf=text(shelf, "network") or "none in time",
        shelf_accuracy=format_percent(number(shelf, "test_accuracy")),
        strategy=strategy,
        winner=_name(winner) if winner else "nothing in time",
        ms=format_ms(number(winner, "measured_ms"), NONE),
        accuracy=format_percent(number(winner, "test_accuracy")),
        interval=format_interval(low, high, 100),
        gain=format_signed(number(chosen, "gain_pct"), "\u00a0%"),
        regret=format_signed(number(chosen, "regret_points")),
        retrained=NONE if retrained is None else f"{retrained:.0f}",
        seconds=UNKNOWN if seconds is None else f"{seconds:,.0f}",
        speedup=NONE if speedup is None else f"{speedup:.1f}×",
        status="none" if not winner else "met" if meets else "missed",
    )


def _name(point: Record) -> str:
    return text(point, "network") + (", uncut" if point.get("uncut") else f" @ {text(point, 'cut')}")


def _sentence(result: Record) -> str:
    gains = [
        (gain, number(d, "deadline_ms"))
        for d in records(result, "deadlines")
        if (gain := number(mapping(d, "best_known"), "gain_pct")) is not None
    ]
    if not gains:
        return "At none of the deadlines is there both a network off the shelf and a choice of ours to compare."
    best, worst = max(gains), min(gains)
    return (
        f"Against the best network off the shelf: {format_signed(best[0], ' %')} accuracy at {format_ms(best[1])} ms, "
        f"and {format_signed(worst[0], ' %')} where it is least, at {format_ms(worst[1])} ms ({len(gains)} deadlines)."
    )


def _bill_rows(result: Record) -> list[dict[str, str]]:
    return [
        {"network": name, **{step: _seconds(number(row, step)) for step in _STEPS}}
        for name, row in mapping(mapping(result, "bill"), "by_network").items()
    ]


_STEPS = ("survey_cpu_seconds", "tune_and_profile_seconds", "retrain_cpu_seconds", "measure_seconds")


def _totals(result: Record) -> dict[str, str]:
    bill = mapping(result, "bill")
    return {step: _seconds(number(bill, step)) for step in _STEPS}


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.1f}"


def _better(row: Record) -> dict[str, str]:
    cut, uncut = mapping(row, "cut"), mapping(row, "uncut")
    cells: dict[str, str] = {"name": _name(cut)}
    for which, point in (("cut", cut), ("uncut", uncut)):
        cells[f"{which}_ms"] = format_ms(number(point, "measured_ms"))
        interval = format_interval(number(point, "test_low"), number(point, "test_high"), 100)
        cells[f"{which}_test"] = f"{format_percent(number(point, 'test_accuracy'))} {interval}".strip()
    return cells


def _candidate(point: Record) -> dict[str, str]:
    angular = number(point, "angular_similarity")
    return {
        "network": text(point, "network"),
        "cut": "uncut" if point.get("uncut") else text(point, "cut"),
        "tone": "uncut" if point.get("uncut") else "",
        "quick": format_percent(number(point, "quick_accuracy")),
        "predicted": format_ms(number(point, "predicted_ms")),
        "measured": format_ms(number(point, "measured_ms"), NONE),
        "validation": format_percent(number(point, "validation_accuracy")),
        "test": format_percent(number(point, "test_accuracy")),
        "interval": format_interval(number(point, "test_low"), number(point, "test_high"), 100),
        "angular": NONE if angular is None else f"{angular:.3f}",
    }


def _settings(result: Record) -> list[tuple[str, str]]:
    size = "×".join(str(n) for n in items(result, "input_size"))
    recipe = mapping(result, "recipe")
    rows: list[tuple[str, Any]] = [
        ("input size", size),
        ("seed", result.get("seed")),
        ("training images a class", result.get("train_per_class") or "all"),
        ("distilled from", result.get("taught_by") or "nothing"),
        ("training recipe", ", ".join(f"{k}={v}" for k, v in recipe.items())),
    ]
    return [(name, str(value)) for name, value in rows]
