"""``netcut frontiers``: where a network can be cut, as a table, as JSON, as a picture, as text to compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from netcut_fx.cli import options as opt
from netcut_fx.cli.networks import ignored_scope, traced_model
from netcut_fx.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cost_models import Calibration, LatencyEstimate
    from netcut_fx.graph import Frontier, TracedModule
    from netcut_fx.job_options import Granularity
    from netcut_fx.passes.head import HeadKind

_STDOUT = Path("-")


def frontiers(
    model: opt.Model,
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    inputs: opt.Input = None,
    leaf_module: opt.LeafModule = None,
    via: opt.Via = "auto",
    granularity: opt.Granularity = "block",
    max_width: opt.MaxWidth = 1,
    ignore_name: opt.IgnoreName = None,
    ignore_module: opt.IgnoreModule = None,
    ignore_op: opt.IgnoreOp = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="draw the network with every cut into this SVG file")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="write it as text that diffs well, every cut marked; - prints it"),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="predict ms from the measured kernels of netcut estimate")
    ] = None,
    run: Annotated[
        Path, typer.Option(metavar="FOLDER", help="without --calibration: predict ms if this run profiled MODEL")
    ] = Path("build/run"),
    classes: opt.Classes = 10,
    head: opt.Head = "netcut",
    target: opt.Target = "native",
    threads: opt.Threads = 1,
    as_json: opt.AsJson = False,
) -> None:
    """List every valid place to cut MODEL, shallow to deep, with what is kept there; see it with --svg and --text.

    Parameters and MFLOPs are those that the cut keeps, without a head, and their share of the whole network. Unknown
    is said to be unknown. Milliseconds need measured kernels of this network: --calibration, or an earlier netcut run.
    """
    from netcut_fx.atomic_files import atomic_write, report_storage_errors
    from netcut_fx.cli.frontier_table import frontier_rows, print_frontiers
    from netcut_fx.frontier import require_frontiers
    from netcut_fx.frontier_facts import facts_of, total_flops
    from netcut_fx.frontier_text import frontier_text
    from netcut_fx.pictures.frontier_picture import frontier_svg

    _check_outputs(svg, text, as_json)
    traced = traced_model(model, weights, input_size, inputs, leaf_module, via)
    found = require_frontiers(
        traced,
        granularity=cast("Granularity", granularity),
        max_width=max_width,
        ignored=ignored_scope(ignore_name, ignore_module, ignore_op),
    )
    evidence, source = _evidence(traced, calibration, run, target, threads)
    latencies = None if evidence is None else _latencies(traced, found, evidence, classes, head)
    facts = facts_of(traced, found, latencies)
    written: dict[Path, str] = {}
    if svg is not None:
        written[svg] = frontier_svg(traced, facts, granularity=granularity)
    if text is not None:
        written[text] = frontier_text(traced, found)
    for path, content in written.items():
        if path == _STDOUT:
            print(content, end="")
            continue
        with report_storage_errors(f"write {path}", safe="nothing else was changed"):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content.encode())
    if as_json:
        params = found[0].kept_params + found[0].removed_params
        opt.print_json(
            {
                "schema_version": 1,
                "model": model,
                "traced_by": traced.traced_by,
                "params": params,
                "flops": total_flops(traced),
                "calibration": source,
                "frontiers": frontier_rows(facts),
            }
        )
    elif text != _STDOUT:
        title = f"{model}: {len(facts)} {granularity} frontier{'' if len(facts) == 1 else 's'}"
        print_frontiers(title, facts, _caption(source, classes, head))


def _check_outputs(svg: Path | None, text: Path | None, as_json: bool) -> None:
    """Refuse what would mix on standard output or fall on one file, before anything takes time."""
    if text == _STDOUT and as_json:
        raise SpecError("--json and --text - would both go to standard output; give --text a file")
    if svg == _STDOUT:
        raise SpecError("--svg needs a file; only --text can go to standard output")
    if svg is not None and text is not None and svg.absolute() == text.absolute():
        raise SpecError(f"--svg and --text would both be written to {svg}; give each a file of its own")
    for option, path in (("--svg", svg), ("--text", text)):
        if path is not None and path.is_dir():
            raise SpecError(f"{option} {path} is a folder; give the name of a file in it")


def _evidence(
    traced: TracedModule, calibration: Path | None, run: Path, target: str, threads: int
) -> tuple[Calibration | None, str | None]:
    """Measured kernels, and the file that they come from."""
    from cost_models import Calibration
    from netcut_fx import verbs
    from netcut_fx.stored_profiles import find_profile

    def fingerprint() -> str:
        return verbs.tvm_backend(target, threads).target.fingerprint()

    if calibration is not None:
        if not calibration.is_file():
            raise SpecError(f"there is no calibration {calibration}; netcut estimate --calibration FILE writes one")
        return Calibration.load(calibration, fingerprint=fingerprint()), str(calibration)
    stored = find_profile(run, traced, fingerprint)
    return (None, None) if stored is None else (stored[0], str(stored[1]))


def _latencies(
    traced: TracedModule, found: Sequence[Frontier], evidence: Calibration, classes: int, head: str
) -> dict[str, LatencyEstimate]:
    from netcut_fx.frontier_facts import latencies_of
    from netcut_fx.latency import LatencyModel
    from netcut_fx.passes.head import HeadPass

    new_head = HeadPass(classes, cast("HeadKind", head))
    return latencies_of(traced, found, new_head, LatencyModel.of_calibration(evidence))


def _caption(source: str | None, classes: int, head: str) -> str:
    if source is None:
        return "ms: unknown, no kernels of this network were measured; see --calibration"
    return f"ms: predicted for each cut with a {head} head for {classes} classes, from {source}"
