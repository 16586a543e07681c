"""``netcut calibrate``: evidence for the cost models, measured on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netcut_fx.cli import options as opt
from netcut_fx.cli.networks import traced_model


def calibrate(
    networks: Annotated[
        list[str] | None, typer.Option("--networks", metavar="SPEC", help="measure this network too; repeatable")
    ] = None,
    input_size: opt.InputSize = None,
    target: opt.Target = "native",
    threads: opt.Threads = 1,
    budget_minutes: Annotated[float, typer.Option("--budget-minutes", help="how long to measure")] = 30.0,
    trials: opt.Trials = 8,
    database: opt.Database = opt.DEFAULT_DATABASE,
    out: Annotated[Path, typer.Option(help="file of the calibration; one that is there is added to")] = Path(
        "build/calibration.json"
    ),
    seed: Annotated[int, typer.Option(help="of the probes that are drawn")] = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Measure kernels on this machine, so that the latency of networks can be predicted that were never compiled."""
    from rich.console import Console
    from rich.table import Table

    from netcut_fx import verbs
    from netcut_fx.calibrating import calibrate as run
    from netcut_fx.cli.console import ConsoleReporter

    given = [traced_model(spec, None, input_size, None, None, "auto") for spec in networks or ()]
    backend = verbs.tvm_backend(target, threads)
    with ConsoleReporter() as reporter:
        reporter.stage("calibrate")
        # Bars count in whole steps: seconds.
        done = run(
            backend,
            out,
            minutes=budget_minutes,
            database=database,
            trials=trials,
            networks=given,
            seed=seed,
            clock=lambda spent, total, what: reporter.progress(int(60 * spent), max(1, int(60 * total)), what),
        )
        for reason in done.failed:
            reporter.note(f"left out {reason}")
    found = done.calibration
    if as_json:
        opt.print_json(
            {
                "calibration": str(out),
                "kernels": len(found.samples),
                "networks": len(found.networks),
                "measured": done.measured,
                "failed": list(done.failed),
                "minutes": found.minutes,
                "errors": dict(found.errors),
            }
        )
        return
    console = Console()
    console.print(f"{out}: {len(found.samples)} kernels in {len(found.networks)} networks, {found.minutes:.1f} minutes")
    if found.errors:
        table = Table(title="whole networks predicted from the others")
        for column in ("estimator", "mean error", "within 10 %", "unknown"):
            table.add_column(column, justify="left" if column == "estimator" else "right")
        for name, row in found.errors.items():
            known = "mape" in row
            error, share = (f"{row['mape']:.1f} %", f"{row['within_10']:.0%}") if known else ("–", "–")
            table.add_row(name, error, share, str(row["unknown"]))
        console.print(table)
