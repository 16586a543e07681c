"""What ``netcut estimate --explain`` shows of the networks that were measured end to end."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from cost_models import Calibration
from netcut_fx.cli.console import ms
from netcut_fx.latency import LatencyModel


def evidence_rows(evidence: Calibration, model: LatencyModel) -> list[dict[str, Any]]:
    """One JSON object for each measured network, with what the model says of it now."""
    rows: list[dict[str, Any]] = []
    for network in evidence.networks:
        estimate = model.price(network.kernels)
        rows.append(
            {
                "network": network.group,
                "name": network.name,
                "source": network.source,
                "measured_ms": network.ms,
                "predicted_ms": estimate.ms if estimate.is_known else None,
                "inside_interval": estimate.is_known and estimate.low_ms <= network.ms <= estimate.high_ms,
            }
        )
    return rows


def evidence_table(rows: list[dict[str, Any]]) -> Table:
    """The same for people."""
    table = Table(title="networks measured end to end, which the intervals rest on")
    for column in ("network", "cut", "measured ms", "predicted ms", "off by", "measured by"):
        table.add_column(column, justify="right" if "ms" in column or column == "off by" else "left")
    for row in rows:
        predicted = row["predicted_ms"]
        off = "–" if predicted is None else f"{100 * (predicted / row['measured_ms'] - 1):+.1f} %"
        texts = (escape(row["network"]), escape(row["name"]), ms(row["measured_ms"]), ms(predicted), off)
        table.add_row(*texts, escape(row["source"]))
    return table
