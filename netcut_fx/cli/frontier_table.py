"""The frontiers of a network as a table for a terminal, and as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from netcut_fx.cli.console import ms

if TYPE_CHECKING:
    from netcut_fx.frontier_facts import FrontierFacts

#: Wide enough for any table: what reads from a pipe has no width.
_ENDLESS = 100_000


def frontier_rows(facts: Sequence[FrontierFacts]) -> list[dict[str, Any]]:
    """One JSON object for each frontier; README.md lists the keys. What is not known is null, never zero."""
    return [
        {
            "name": f.frontier.name,
            "module": f.module,
            "module_class": f.module_class or None,
            "granularity": f.frontier.granularity,
            "width": f.frontier.width,
            "shape": [list(spec.shape) for spec in f.frontier.specs],
            "tensors": [
                {"name": t.name, "shape": list(t.spec.shape), "dtype": _dtype(t.spec.dtype), "pool": t.pool}
                for t in f.tensors
            ],
            "kept_params": f.frontier.kept_params,
            "kept_params_share": f.params_share,
            "removed_params": f.frontier.removed_params,
            "kept_flops": f.frontier.kept_flops,
            "kept_flops_share": f.flops_share,
            "kept_flops_is_lower_bound": not f.flops_known,
            **_predicted(f),
        }
        for f in facts
    ]


def print_frontiers(title: str, facts: Sequence[FrontierFacts], caption: str) -> None:
    """Print a table, or, where the terminal is too narrow for it, a paragraph for each frontier: no name is cut."""
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if narrow else _ENDLESS, highlight=False)
    table = _table(title, facts)
    if Console(width=_ENDLESS).measure(table).maximum <= console.width:
        console.print(table)
    else:
        console.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
        for f in facts:
            _print_paragraph(console, f)
    console.print(escape(caption), style="dim", soft_wrap=True)


def _table(title: str, facts: Sequence[FrontierFacts]) -> Table:
    table = Table(title=escape(title))
    priced = any(f.latency is not None for f in facts)
    names = ("frontier", "end of", "crossing", "width", "pooling", "params kept", "MFLOPs kept", "ms with a new head")
    for name in names if priced else names[:-1]:
        table.add_column(name, justify="left" if name in ("frontier", "end of", "pooling") else "right", no_wrap=True)
    for f in facts:
        row = (f.frontier.name, _module(f), _crossing(f), str(f.frontier.width), _pooling(f), _params(f), _flops(f))
        table.add_row(*map(escape, row), *((escape(_ms(f)),) if priced else ()))
    return table


def _print_paragraph(console: Console, f: FrontierFacts) -> None:
    console.print(f"[bold]{escape(f.frontier.name)}[/]", soft_wrap=True)
    width = f", width {f.frontier.width}" if f.frontier.width > 1 else ""
    lines = [
        f"{_module(f)}, {_crossing(f)}{width}, pooled {_pooling(f)}",
        f"{_params(f)} params, {_flops(f)} MFLOPs" + (f", {_ms(f)} ms" if f.latency is not None else ""),
    ]
    for line in lines:
        console.print(f"  {escape(line)}", soft_wrap=True)


def _module(f: FrontierFacts) -> str:
    """Class of the module, and its path where the frontier is not called by it."""
    path = f.module or "the network"
    if path == f.frontier.name and f.module_class:
        return f.module_class
    return f"{f.module_class} {path}".strip()


def _crossing(f: FrontierFacts) -> str:
    """Each shape once, with how often it crosses."""
    shapes = ["x".join(map(str, t.spec.shape)) for t in f.tensors]
    return ", ".join(s if shapes.count(s) == 1 else f"{shapes.count(s)} of {s}" for s in dict.fromkeys(shapes))


def _pooling(f: FrontierFacts) -> str:
    return ", ".join(dict.fromkeys(t.pool for t in f.tensors))


def _params(f: FrontierFacts) -> str:
    return f"{f.frontier.kept_params:,}{_share(f.params_share)}"


def _flops(f: FrontierFacts) -> str:
    bound = "" if f.flops_known else "at least "
    return f"{bound}{f.frontier.kept_flops / 1e6:,.1f}{_share(f.flops_share)}"


def _share(value: float | None) -> str:
    if value is None:
        return ""
    return f" ({value:.1%})" if value >= 0.0005 or value == 0 else " (<0.1%)"


def _ms(f: FrontierFacts) -> str:
    if f.latency is None or not f.latency.is_known:
        return "unknown"
    return f"{ms(f.latency.ms)} [{ms(f.latency.low_ms)}, {ms(f.latency.high_ms)}]"


def _predicted(f: FrontierFacts) -> dict[str, Any]:
    e = f.latency
    if e is None or not e.is_known:
        unknown = dict.fromkeys(("predicted_ms", "low_ms", "high_ms"))
        return {**unknown, "provenance": {}, "missing": [] if e is None else list(e.missing)}
    known = {"predicted_ms": e.ms, "low_ms": e.low_ms, "high_ms": e.high_ms}
    return {**known, "provenance": dict(e.provenance), "missing": []}


def _dtype(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
