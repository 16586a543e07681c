"""``netcut bench`` and ``export``: a finished artefact beside others, and networks for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from netcut_fx.cli import options as opt
from netcut_fx.cli.networks import cut_if_asked, traced_model

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from netcut_fx.network_files import Format


class ListOptions(TyperCommand):
    """A command whose list options take several words: ``--threads 1 2`` means ``--threads 1 --threads 2``."""

    _LISTS: tuple[str, ...] = ("--against", "--threads")
    #: Whether a word that names a file ends the list: needed where arguments may follow.
    _ends_at_files = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option's name before each further word, up to the next option or something that exists."""
        given: list[str] = []
        name, first = "", False
        for word in args:
            if word.startswith("-"):
                name, first = (word, True) if word in self._LISTS else ("", False)
            elif name and not first:
                if self._ends_at_files and Path(word).exists() and not word.isdigit():
                    name = ""
                else:
                    given.append(name)
            else:
                first = False
            given.append(word)
        return super().parse_args(ctx, given)


def bench(
    bundle: Annotated[
        list[Path], typer.Argument(help="folder that netcut run or netcut compile wrote; several for several threads")
    ],
    against: Annotated[
        list[str] | None, typer.Option(help="onnxruntime, openvino, torch-compile, torch-eager, or torch for both")
    ] = None,
    network: Annotated[
        Path | None, typer.Option(help="network for the others, .pt2 or .onnx; by default BUNDLE.pt2 beside the bundle")
    ] = None,
    threads: Annotated[list[int] | None, typer.Option(help="thread counts; by default those of the bundles")] = None,
    runs: Annotated[int, typer.Option(help="single runs of each; 1000 and more give a 99th percentile")] = 210,
    repeat: Annotated[int, typer.Option(help="rounds in which the runs of all are taken in turn")] = 21,
    peak: Annotated[bool, typer.Option(help="measure what the machine can do at most, and shares of it")] = True,
    any_cpu: Annotated[
        bool, typer.Option("--any-cpu", help="also on another CPU model than it was measured on")
    ] = False,
    as_json: opt.AsJson = False,
    out: Annotated[Path | None, typer.Option(help="write the JSON object into this file as well")] = None,
) -> None:
    """Time bundles on this machine, through the runtime that a device uses, and other runtimes beside them."""
    import importlib.util
    import json

    from rich.console import Console
    from rich.progress import Progress

    from netcut_fx.atomic_files import atomic_write, report_storage_errors
    from netcut_fx.cli.bench_table import print_comparison
    from netcut_fx.comparison.versus import compare

    # It is drawn between rounds only: a bar that moves by itself would take part in every measurement.
    with Progress(console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        task = bar.add_task("load and check", total=None)

        def progress(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what, refresh=True)

        found = compare(
            bundle,
            peers=against or (),
            network=network,
            threads=threads,
            rounds=repeat,
            runs=runs,
            any_cpu=any_cpu,
            peak=peak and importlib.util.find_spec("tvm") is not None,
            progress=progress,
        )
    own = next(timing for timing in found.timings if timing.bundle is not None)
    assert own.bundle is not None
    manifest = own.bundle.manifest
    deadline_ms = manifest.measurement.get("deadline_ms")
    answer: dict[str, Any] = {
        "bundle": str(bundle[0]),
        "name": manifest.name,
        "threads": manifest.threads,
        "measured": own.measured.to_json(),
        "measured_when_built_ms": manifest.measurement.get("ms"),
        "deadline_ms": deadline_ms,
        "meets_deadline": None if deadline_ms is None else own.measured.ms <= deadline_ms,
        "peaks": {str(count): value.to_json() for count, value in found.peaks.items()},
        "timings": [timing.to_json() for timing in found.timings],
    }
    if out is not None:
        with report_storage_errors(f"write {out}", safe="nothing else was changed"):
            out.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(out, (json.dumps(answer, indent=1, allow_nan=False) + "\n").encode())
    if as_json:
        opt.print_json(answer)
    else:
        print_comparison(found, manifest)


def export(
    model: Annotated[str, typer.Argument(help="SPEC of a network as for cut, or the folder of a finished run")],
    out: Annotated[Path, typer.Option(help="file to write")],
    format: Annotated[str, typer.Option(help="onnx or pt2")] = "onnx",
    at: Annotated[str | None, typer.Option(help="frontier to cut at; without it the whole network")] = None,
    classes: Annotated[int | None, typer.Option(help="classes of a new head on the cut")] = None,
    head: opt.Head = "netcut",
    pool: opt.Pool = "auto",
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    inputs: opt.Input = None,
    leaf_module: opt.LeafModule = None,
    via: opt.Via = "auto",
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="any number of images at a time, not just one")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Write MODEL, a cut of it, or the network of a finished run, for other runtimes."""
    from netcut_fx.errors import SpecError
    from netcut_fx.network_files import onnx_error, program_of, write_onnx, write_program
    from netcut_fx.pooling import check_pool_option
    from netcut_fx.spec_text import did_you_mean

    formats: tuple[Format, ...] = ("onnx", "pt2")
    if format not in formats:
        raise SpecError(f"there is no format '{format}'; {did_you_mean(format, formats)}")
    check_pool_option(pool)
    if Path(model).is_dir():
        given = (at, classes, weights, input_size, inputs or None, leaf_module or None, head, pool, via)
        if given != (*(None,) * 6, "netcut", "auto", "auto"):
            raise SpecError(f"{model} is a finished run, its network is exported as it is; leave the other options out")
        program = _program_of_run(Path(model), dynamic_batch)
    else:
        traced = traced_model(model, weights, input_size, inputs, leaf_module, via)
        program = program_of(cut_if_asked(traced, at, classes, head, pool), dynamic_batch=dynamic_batch)
    error: float | None = None
    if format == "onnx":
        write_onnx(program, out)
        error = onnx_error(out, program, batches=(3,) if dynamic_batch else ())
    else:
        write_program(program, out)
    if as_json:
        opt.print_json(
            {"out": str(out), "format": format, "bytes": out.stat().st_size, "relative_error_onnxruntime": error}
        )
    else:
        checked = "" if error is None else f", ONNX Runtime answers as torch does (relative error {error:.1e})"
        print(f"{out}: {out.stat().st_size / 1e6:.1f} MB{checked}")


def _program_of_run(folder: Path, dynamic_batch: bool) -> ExportedProgram:
    from netcut_fx.bundle import network_beside
    from netcut_fx.delivery import BUNDLE
    from netcut_fx.errors import SpecError
    from netcut_fx.network_files import read_program, with_dynamic_batch

    path = network_beside(folder / BUNDLE)
    if not path.is_file():
        raise SpecError(f"{folder} is no finished run: there is no file {path}; give the folder of netcut run --out")
    program = read_program(path)
    return with_dynamic_batch(program) if dynamic_batch else program
