"""``netcut estimate`` and ``compile``: everything that needs the compiler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from netcut_fx.cli import options as opt
from netcut_fx.cli.networks import cut_if_asked, ignored_scope, traced_model

if TYPE_CHECKING:
    from netcut_fx.passes.head import HeadKind
    from netcut_fx.pooling import PoolOption


def estimate(
    model: opt.Model,
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    classes: opt.Classes = 10,
    head: opt.Head = "netcut",
    pool: opt.Pool = "auto",
    granularity: opt.Granularity = "block",
    max_width: opt.MaxWidth = 1,
    ignore_name: opt.IgnoreName = None,
    ignore_module: opt.IgnoreModule = None,
    ignore_op: opt.IgnoreOp = None,
    leaf_module: opt.LeafModule = None,
    via: opt.Via = "auto",
    target: opt.Target = "native",
    threads: opt.Threads = 1,
    trials: opt.Trials = 24,
    database: opt.Database = opt.DEFAULT_DATABASE,
    calibration: Annotated[
        Path | None, typer.Option(help="measured kernels: read if it is there, else written after tuning and measuring")
    ] = None,
    estimator: Annotated[
        str,
        typer.Option(help="profiled, analytical, svr, gbdt, linear or flops"),
    ] = "profiled",
    explain: Annotated[
        bool, typer.Option("--explain", help="say what each estimate rests on, and which networks were measured")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Predict the latency of every cut of MODEL on this machine."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from cost_models import Calibration
    from netcut_fx import verbs
    from netcut_fx.cli.console import ConsoleReporter, ms
    from netcut_fx.cli.evidence_table import evidence_rows, evidence_table
    from netcut_fx.cutting import cut
    from netcut_fx.frontier import deepest_frontier, require_frontiers
    from netcut_fx.job_options import Granularity
    from netcut_fx.latency import LatencyModel, kernels_of_cuts
    from netcut_fx.passes.head import HeadPass
    from netcut_fx.profiling import profile_network

    traced = traced_model(model, weights, input_size, None, leaf_module, via)
    found = require_frontiers(
        traced,
        granularity=cast("Granularity", granularity),
        max_width=max_width,
        ignored=ignored_scope(ignore_name, ignore_module, ignore_op),
    )
    uncut = deepest_frontier(traced)
    listed = (*(f for f in found if f.nodes != uncut.nodes), uncut)
    new_head = HeadPass(classes, cast("HeadKind", head), pool=cast("PoolOption", pool))
    backend = verbs.tvm_backend(target, threads)
    if calibration is not None and calibration.exists():
        evidence = Calibration.load(calibration, fingerprint=backend.target.fingerprint())
    else:
        whole = cut(traced, uncut, head=new_head)
        with ConsoleReporter() as reporter:
            if trials:
                reporter.stage("tune")
                tuned = backend.tune(whole, trials=trials, database=database, progress=reporter.progress)
                reporter.notes(tuned.notes)
            reporter.stage("profile")
            evidence = profile_network(backend, whole, database).calibration
        if calibration is not None:
            evidence.save(calibration)
    priced = LatencyModel.of_calibration(evidence, estimator)
    estimates = {name: priced.price(network) for name, network in kernels_of_cuts(traced, listed, new_head).items()}
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "predicted_ms": e.ms if e.is_known else None,
            "low_ms": e.low_ms if e.is_known else None,
            "high_ms": e.high_ms if e.is_known else None,
            "provenance": dict(e.provenance),
            "missing": list(e.missing),
            "coverage": e.coverage,
            "notes": list(e.notes),
        }
        for name, e in estimates.items()
    ]
    if as_json:
        answer = {"model": model, "target": backend.target.to_json(), "estimator": estimator, "estimates": rows}
        opt.print_json({**answer, "evidence": evidence_rows(evidence, priced)} if explain else answer)
        return
    table = Table(title=escape(f"{model} on {backend.target}"))
    for column in ("frontier", "predicted ms", "interval", *(("rests on",) if explain else ())):
        table.add_column(column, justify="left" if column in ("frontier", "rests on") else "right")
    for row in rows:
        known = row["predicted_ms"] is not None
        shares = ", ".join(f"{k} {ms(v)}" for k, v in row["provenance"].items()) or "; ".join(row["missing"])
        basis = "; ".join((shares, *row["notes"]))
        table.add_row(
            escape(row["name"]),
            ms(row["predicted_ms"]) if known else "unknown",
            f"{ms(row['low_ms'])}–{ms(row['high_ms'])}" if known else "",
            *((escape(basis),) if explain else ()),
        )
    Console().print(table)
    if explain:
        Console().print(evidence_table(evidence_rows(evidence, priced)))


def compile(
    model: opt.Model,
    at: Annotated[str | None, typer.Option(help="frontier to cut at; without it the whole network is compiled")] = None,
    classes: Annotated[int | None, typer.Option(help="classes of a new head on the cut")] = None,
    head: opt.Head = "netcut",
    pool: opt.Pool = "auto",
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    leaf_module: opt.LeafModule = None,
    via: opt.Via = "auto",
    normalize: Annotated[str | None, typer.Option(help="as for run; stored for the runtime")] = None,
    target: opt.Target = "native",
    threads: opt.Threads = 1,
    batch: Annotated[int, typer.Option(min=1, help="images that the artefact computes at a time")] = 1,
    trials: opt.Trials = 24,
    database: opt.Database = opt.DEFAULT_DATABASE,
    out: Annotated[
        Path, typer.Option(help="folder of the bundle; the network itself goes beside it, as FOLDER.pt2")
    ] = Path("build/bundle"),
    as_json: opt.AsJson = False,
) -> None:
    """Tune and compile MODEL, or a cut of it, into a bundle, with the weights it has."""
    import tempfile

    from netcut_fx import verbs
    from netcut_fx.bundle import check_replaceable, write_bundle
    from netcut_fx.cli.console import ConsoleReporter
    from netcut_fx.errors import SpecError
    from netcut_fx.graph import TensorSpec
    from netcut_fx.kernel_rows import kernel_rows
    from netcut_fx.manifest import Manifest
    from netcut_fx.measure import Stopwatch
    from netcut_fx.model_spec import recommended_normalize
    from netcut_fx.network_files import write_network_beside
    from netcut_fx.pooling import check_pool_option
    from netcut_fx.preprocess import Preprocess

    check_pool_option(pool)
    height, width = opt.parse_size(input_size) or opt.DEFAULT_SIZE
    traced = traced_model(model, weights, None, [f"{batch}x3x{height}x{width}"], leaf_module, via)
    network = cut_if_asked(traced, at, classes, head, pool)
    spec, answer = network.input_specs[0], network.output.meta["spec"]
    if not isinstance(answer, TensorSpec) or len(answer.shape) != 2:
        raise SpecError(
            f"a bundle serves classes ({batch}, N), but {network.name} returns {answer}; put a head on it with "
            "--classes"
        )
    preprocess = Preprocess.named((height, width), normalize or recommended_normalize(model) or "imagenet")
    check_replaceable(out.absolute())
    backend = verbs.tvm_backend(target, threads, links=True)
    with ConsoleReporter() as reporter:
        if trials:
            reporter.stage("tune")
            tuned = backend.tune(network, trials=trials, database=database, progress=reporter.progress)
            reporter.notes(tuned.notes)
        reporter.stage("compile")
        compiled = backend.compile(network, database=database)
        untuned = [k.name for k in compiled.kernels if not k.tuned]
        if untuned:
            reporter.note(f"{len(untuned)} kernels have no tuning record and run untuned: {', '.join(untuned[:5])}")
        measured = Stopwatch().measure_timer(compiled.timer())
        with tempfile.TemporaryDirectory() as scratch:
            files = compiled.save(Path(scratch))
            manifest = Manifest(
                name=network.name,
                target=backend.target,
                preprocess=preprocess,
                labels=tuple(str(i) for i in range(answer.shape[1])),
                input_shape=spec.shape,
                output_shape=answer.shape,
                frontier=at or "",
                measurement={**measured.to_json(), "kernels": kernel_rows(network, compiled)},
                versions=dict(backend.target.toolchain),
            )
            write_bundle(
                out,
                library=files["library"],
                runtime_library=files["runtime_library"],
                params=files["params"],
                manifest=manifest,
            )
        write_network_beside(network, out.absolute(), reporter.note)
    if as_json:
        opt.print_json({"bundle": str(out), "measured": measured.to_json(), "untuned_kernels": untuned})
    else:
        print(f"{out}: {measured}{f' for {batch} images' if batch > 1 else ''}")
