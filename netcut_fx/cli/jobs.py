"""``netcut run`` and ``netcut report``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from netcut_fx.cli import options as opt
from netcut_fx.cli.networks import ignored_scope


def run(
    model: Annotated[
        str, typer.Option(help="SPEC of the network: package.module:callable?key=value, file.py:callable, or demo")
    ],
    data: Annotated[str, typer.Option(help="images: folder of class folders, .npz, digits, fashion-mnist; ?limit=N")],
    deadline_ms: Annotated[float | None, typer.Option(help="bound on the latency of one image")] = None,
    deadline_fraction: Annotated[
        float | None, typer.Option(help="instead: this share of the uncut network's latency, measured here")
    ] = None,
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    normalize: Annotated[
        str | None, typer.Option(help="imagenet, half, efficientnet-lite, zero-one, caffe-bgr or 'mean=127;std=128'")
    ] = None,
    target: opt.Target = "native",
    threads: opt.Threads = 1,
    trials: opt.Trials = 24,
    granularity: opt.Granularity = "block",
    max_width: opt.MaxWidth = 1,
    ignore_name: opt.IgnoreName = None,
    ignore_module: opt.IgnoreModule = None,
    ignore_op: opt.IgnoreOp = None,
    head: opt.Head = "netcut",
    pool: opt.Pool = "auto",
    leaf_module: opt.LeafModule = None,
    via: opt.Via = "auto",
    shortlist: Annotated[int, typer.Option(help="candidates that are retrained in full")] = 2,
    epochs: Annotated[int, typer.Option(help="most epochs of fine-tuning per candidate")] = 8,
    seed: Annotated[int, typer.Option(help="of splits, heads, training and search")] = 0,
    out: Annotated[Path, typer.Option(help="folder for bundle, report, result.json and reusable work")] = Path(
        "build/run"
    ),
    as_json: opt.AsJson = False,
) -> None:
    """Trim MODEL to the deadline on DATA: cut, retrain, compile, measure, bundle, report."""
    from netcut_fx import verbs
    from netcut_fx.cli.console import ConsoleReporter, print_result
    from netcut_fx.job_options import Granularity, RunOptions
    from netcut_fx.passes.head import HeadKind
    from netcut_fx.pooling import PoolOption
    from netcut_fx.retraining_options import RetrainOptions
    from netcut_fx.tracing import Via
    from netcut_fx.workspace import Workspace

    chosen = RunOptions(
        deadline_ms=deadline_ms,
        deadline_fraction=deadline_fraction,
        target=target,
        threads=threads,
        trials=trials,
        granularity=cast("Granularity", granularity),
        max_width=max_width,
        ignored=ignored_scope(ignore_name, ignore_module, ignore_op),
        head=cast("HeadKind", head),
        pool=cast("PoolOption", pool),
        leaf_modules=tuple(leaf_module or ()),
        via=cast("Via", via),
        shortlist=shortlist,
        retrain=RetrainOptions(epochs=epochs),
        seed=seed,
    )
    with ConsoleReporter() as reporter, Workspace(out, warn=reporter.note) as workspace:
        try:
            result = verbs.run(
                model,
                data,
                out=out,
                options=chosen,
                weights=weights,
                input_size=opt.parse_size(input_size),
                normalize=normalize,
                reporter=reporter,
                workspace=workspace,
            )
        except KeyboardInterrupt:
            reporter.note(f"interrupted; finished stages are kept in {out}, the same command goes on from there")
            raise typer.Exit(130) from None
    if as_json:
        opt.print_json(result)
    else:
        print_result(result)


def report(
    result: Annotated[Path, typer.Argument(help="result.json of a run")],
    out: Annotated[Path, typer.Option(help="where the HTML goes")] = Path("report.html"),
    picture: Annotated[Path | None, typer.Option(help="also write accuracy against latency as SVG")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Write the HTML report of a finished run again."""
    from netcut_fx.atomic_files import report_storage_errors
    from netcut_fx.errors import SpecError
    from netcut_fx.report import write_accuracy_latency_svg, write_report

    try:
        loaded: Any = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{result} is not the result of a run ({error}); give the result.json that netcut run wrote"
        ) from error
    if not isinstance(loaded, dict) or "candidates" not in loaded:
        raise SpecError(
            f"{result} is not the result of a run (no candidates); give the result.json that netcut run wrote"
        )
    found = cast("dict[str, Any]", loaded)
    with report_storage_errors("write the report", safe="the result is untouched"):
        write_report(found, out)
        if picture is not None:
            write_accuracy_latency_svg(found, picture)
    if as_json:
        opt.print_json({"report": str(out), "picture": None if picture is None else str(picture)})
    else:
        print(out)
