"""``netcut cut``, ``opt`` and ``passes``: everything that edits graphs and compiles nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netcut_fx.cli import options as opt
from netcut_fx.cli.networks import cut_if_asked, traced_model


def cut(
    model: opt.Model,
    at: Annotated[str, typer.Option(help="name of the frontier, as netcut frontiers lists it")],
    classes: Annotated[int | None, typer.Option(help="classes of the new head; without it features come out")] = None,
    head: opt.Head = "netcut",
    pool: opt.Pool = "auto",
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    inputs: opt.Input = None,
    leaf_module: opt.LeafModule = None,
    via: opt.Via = "auto",
    out: Annotated[Path | None, typer.Option(help="write the cut network as a torch.export program (.pt2)")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Cut MODEL at a frontier and print what is left."""
    from netcut_fx.network_files import program_of, write_program
    from netcut_fx.pooling import check_pool_option
    from netcut_fx.text import to_text

    check_pool_option(pool)
    traced = traced_model(model, weights, input_size, inputs, leaf_module, via)
    trn = cut_if_asked(traced, at, classes, head, pool)
    if out is not None:
        write_program(program_of(trn), out)
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
    inputs: opt.Input = None,
    leaf_module: opt.LeafModule = None,
    via: opt.Via = "auto",
    as_json: opt.AsJson = False,
) -> None:
    """Run graph passes over MODEL and print the result in text form."""
    from netcut_fx.instruments import Dump, Timing
    from netcut_fx.passes.registry import parse_pipeline
    from netcut_fx.text import to_text

    pipeline = parse_pipeline(passes)
    traced = traced_model(model, weights, input_size, inputs, leaf_module, via)
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
