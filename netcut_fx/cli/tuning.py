"""``netcut tune``: fill a database of tuning records, join two of them, and see what is in one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netcut_fx.cli import options as opt
from netcut_fx.cli.networks import cut_if_asked, traced_model
from netcut_fx.errors import SpecError

if TYPE_CHECKING:
    from netcut_fx.backends.tvm import TvmBackend
    from netcut_fx.graph import TracedModule

#: Trials a kernel where nothing else is said, and where minutes are: kernels end before, where trials bring nothing.
_TRIALS, _TRIALS_IN_TIME = 24, 64


def tune(
    model: Annotated[
        str | None, typer.Argument(help="SPEC of the network; not needed for --merge and --status")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="stop after so many, all kernels together")] = None,
    trials: Annotated[
        int | None, typer.Option(help="most schedules tried per kernel; 24, or 64 where --minutes ends it")
    ] = None,
    database: opt.Database = opt.DEFAULT_DATABASE,
    merge: Annotated[
        Path | None, typer.Option(metavar="OTHER_DB", help="first take over the records of another database")
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="tune nothing; show the database, and how far MODEL is tuned")
    ] = False,
    seed: Annotated[
        bool, typer.Option("--seed/--no-seed", help="start from records that ship with netcut, where some fit")
    ] = True,
    at: Annotated[str | None, typer.Option(help="frontier to cut at; without it the whole network is tuned")] = None,
    classes: Annotated[int | None, typer.Option(help="classes of a new head on the cut")] = None,
    head: opt.Head = "netcut",
    pool: opt.Pool = "auto",
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    leaf_module: opt.LeafModule = None,
    via: opt.Via = "auto",
    target: opt.Target = "native",
    threads: opt.Threads = 1,
    as_json: opt.AsJson = False,
) -> None:
    """Tune the kernels of MODEL within a budget; every network and cut that shares them is faster by it.

    Records are written one by one: whoever stops it loses nothing, and the same command goes on. Trials go where most
    time can still be won, and start from what was best on similar kernels in the database.
    """
    if model is None and not status and merge is None:
        raise SpecError("name a network to tune, or give --status or --merge; see netcut tune --help")
    if status and merge is not None:
        raise SpecError("--status changes nothing and --merge does; give one of them")
    chosen = trials if trials is not None else _TRIALS if minutes is None else _TRIALS_IN_TIME
    answer: dict[str, Any] = {"database": str(database)}
    if merge is not None:
        answer["merged"] = _merge(merge, database, target, threads, as_json)
    network = None
    if model is not None:
        network = cut_if_asked(
            traced_model(model, weights, input_size, None, leaf_module, via), at, classes, head, pool
        )
    if status:
        answer |= _status(network, database, chosen, target, threads, as_json)
    elif network is not None:
        answer |= _tune(network, _backend(target, threads), chosen, minutes, database, seed, as_json)
    if as_json:
        opt.print_json(answer)


def _backend(target: str, threads: int) -> TvmBackend:
    from netcut_fx.backends.tvm import TvmBackend

    return TvmBackend(target, threads)


def _merge(source: Path, database: Path, target: str, threads: int, as_json: bool) -> dict[str, Any]:
    from netcut_fx.backends.tvm.database import merge

    found = merge(source, database, _backend(target, threads).target)
    if not as_json:
        print(
            f"{database}: took over {found.records} records and {found.workloads} new workloads of {source}; "
            f"{found.duplicates} records were there already"
        )
        for other in found.left_out:
            print(f"left out: records of {other}")
    return {"workloads": found.workloads, "records": found.records, "duplicates": found.duplicates} | {
        "left_out": list(found.left_out)
    }


def _tune(
    network: TracedModule,
    backend: TvmBackend,
    trials: int,
    minutes: float | None,
    database: Path,
    seed: bool,
    as_json: bool,
) -> dict[str, Any]:
    from netcut_fx.cli.console import ConsoleReporter

    with ConsoleReporter() as reporter:
        reporter.stage("tune")
        try:
            report = backend.tune(
                network, trials=trials, database=database, progress=reporter.progress, minutes=minutes, seeds=seed
            )
        except KeyboardInterrupt:
            reporter.note(f"interrupted; all records are kept in {database}, the same command goes on from there")
            raise typer.Exit(130) from None
        reporter.notes(report.notes)
        if report.failed_trials:
            reporter.note(f"{report.failed_trials} of {report.trials} schedules failed to build or run")
    left = f"; the time is over, at most {report.trials_left} trials are left" if report.trials_left else ""
    if not as_json:
        print(
            f"{database}: {report.trials} trials for {report.searched} of {report.kernels} kernels "
            f"in {report.seconds / 60:.1f} min{left}"
        )
    return {
        "kernels": report.kernels,
        "searched": report.searched,
        "trials": report.trials,
        "failed_trials": report.failed_trials,
        "trials_left": report.trials_left,
        "seconds": report.seconds,
        "notes": list(report.notes),
    }


def _status(
    network: TracedModule | None, database: Path, trials: int, target: str, threads: int, as_json: bool
) -> dict[str, Any]:
    from netcut_fx.backends.tvm.tune_status import database_status
    from netcut_fx.cli.tuning_tables import print_folders, print_kernels

    folders = database_status(database)
    kernels = None
    if network is not None:
        kernels = _backend(target, threads).tuning_status(network, trials=trials, database=database)
    if not as_json:
        print_folders(database, folders)
        if kernels is not None and network is not None:
            print_kernels(network.name, kernels)
    return {
        "targets": [folder.to_json() for folder in folders],
        "kernels": None if kernels is None else [kernel.to_json() for kernel in kernels],
    }
