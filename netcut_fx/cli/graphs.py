"""``netcut frontiers``, ``cut``, ``opt`` and ``passes``: everything that edits graphs and compiles nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from netcut_fx.cli import options as opt

if TYPE_CHECKING:
    from netcut_fx.graph import TracedModule


def traced_model(model: str, weights: Path | None, input_size: str | None) -> TracedModule:
    """Load and trace the network of a SPEC."""
    import torch

    from netcut_fx.model_spec import load_model
    from netcut_fx.tracing import trace

    height, width = opt.parse_size(input_size) or (224, 224)
    return trace(load_model(model, weights), torch.zeros(1, 3, height, width), name=model)


def frontiers(
    model: opt.Model,
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    granularity: opt.Granularity = "block",
    max_width: opt.MaxWidth = 1,
    as_json: opt.AsJson = False,
) -> None:
    """List every valid place to cut MODEL, shallow to deep."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from netcut_fx.frontier import require_frontiers
    from netcut_fx.job_options import Granularity

    traced = traced_model(model, weights, input_size)
    found = require_frontiers(traced, granularity=cast("Granularity", granularity), max_width=max_width)
    rows: list[dict[str, Any]] = [
        {
            "name": f.name,
            "granularity": f.granularity,
            "width": f.width,
            "shape": [list(spec.shape) for spec in f.specs],
            "kept_params": f.kept_params,
            "removed_params": f.removed_params,
            "kept_flops": f.kept_flops,
        }
        for f in found
    ]
    if as_json:
        opt.print_json({"model": model, "frontiers": rows})
        return
    table = Table(title=escape(f"{model}: {len(rows)} frontiers"))
    table.add_column("frontier")
    for column in ("shape", "width", "params kept", "params removed", "MFLOPs kept"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            escape(row["name"]),
            " ".join("x".join(str(n) for n in shape) for shape in row["shape"]),
            str(row["width"]),
            f"{row['kept_params']:,}",
            f"{row['removed_params']:,}",
            f"{row['kept_flops'] / 1e6:.1f}",
        )
    Console().print(table)


def cut(
    model: opt.Model,
    at: Annotated[str, typer.Option(help="name of the frontier, as netcut frontiers lists it")],
    classes: Annotated[int | None, typer.Option(help="classes of the new head; without it features come out")] = None,
    head: opt.Head = "netcut",
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    out: Annotated[Path | None, typer.Option(help="write the cut network as a torch.export program (.pt2)")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Cut MODEL at a frontier and print what is left."""
    import torch

    from netcut_fx import cutting
    from netcut_fx.atomic_files import atomic_write, report_storage_errors
    from netcut_fx.passes.head import HeadKind, HeadPass
    from netcut_fx.text import to_text

    traced = traced_model(model, weights, input_size)
    new_head = None if classes is None else HeadPass(classes, cast("HeadKind", head))
    trn = cutting.cut(traced, at, head=new_head)
    if out is not None:
        examples = tuple(torch.zeros(spec.shape, dtype=spec.dtype) for spec in trn.input_specs)
        with report_storage_errors(f"write {out}", safe="nothing else was changed"):
            out.parent.mkdir(parents=True, exist_ok=True)
            # Torch's own writer aborts the process where the disk is full, so it writes to memory.
            program = io.BytesIO()
            torch.export.save(torch.export.export(trn.graph_module, examples), program)
            atomic_write(out, program.getvalue())
    if as_json:
        params = sum(p.numel() for p in trn.graph_module.parameters())
        opt.print_json(
            {"name": trn.name, "params": params, "text": to_text(trn), "out": None if out is None else str(out)}
        )
    else:
        print(to_text(trn))


def opt_(
    model: opt.Model,
    passes: Annotated[str, typer.Option(help="for instance 'fold-batch-norm,cut{at=features.14},head{classes=10}'")],
    print_ir: Annotated[
        bool, typer.Option("--print-ir", help="print the graph before the first and after every pass")
    ] = False,
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    as_json: opt.AsJson = False,
) -> None:
    """Run graph passes over MODEL and print the result in text form."""
    from netcut_fx.instruments import Dump, Timing
    from netcut_fx.passes.registry import parse_pipeline
    from netcut_fx.text import to_text

    pipeline = parse_pipeline(passes)
    traced = traced_model(model, weights, input_size)
    texts: list[str] = []
    timing = Timing()
    rewritten = pipeline.observed_by(Dump(texts.append), timing)(traced)
    if as_json:
        seconds = [None, *(s for _, s in timing.rows)]
        names = ["input", *(name for name, _ in timing.rows)]
        rows = [{"pass": n, "seconds": s, "text": t} for n, s, t in zip(names, seconds, texts, strict=True)]
        opt.print_json({"model": model, "steps": rows})
    elif print_ir:
        print("\n\n".join(texts))
    else:
        print(to_text(rewritten))


def passes(as_json: opt.AsJson = False) -> None:
    """List the passes that opt knows, those of other packages included."""
    from netcut_fx.passes.registry import registered_passes

    names = sorted(registered_passes())
    if as_json:
        opt.print_json({"passes": names})
    else:
        print("\n".join(names))
