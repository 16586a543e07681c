"""``netcut gate``: turn a network into one that decides for each input what to skip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from netcut_fx.cli import options as opt
from netcut_fx.cli.networks import cut_if_asked, traced_model


def gate(
    model: opt.Model,
    data: Annotated[
        str | None, typer.Option(help="labelled images, as for run; without them only the gated graph is printed")
    ] = None,
    target_rate: Annotated[
        float, typer.Option(help="expected cost to train for, as a share of the cost with all gates open")
    ] = 0.6,
    cost: Annotated[str, typer.Option(help="what is counted: ms (paths compiled and measured) or flops")] = "ms",
    deadline_ms: Annotated[
        float | None, typer.Option(help="bound in ms for every single input: the most salient parts are kept")
    ] = None,
    fill: Annotated[bool, typer.Option(help="spend the deadline on parts that the gates would leave out, too")] = True,
    layers: Annotated[bool, typer.Option(help="gates for residual regions (L-Net)")] = True,
    channels: Annotated[bool, typer.Option(help="gates for channel groups (C-Net)")] = True,
    groups: Annotated[int, typer.Option(help="channel groups of a convolution, at most")] = 4,
    multiple: Annotated[
        int | None,
        typer.Option(help="groups end at multiples of this many channels; by default whole vector registers"),
    ] = None,
    lead: Annotated[int, typer.Option(help="cells at the beginning that are left alone: gates read behind them")] = 0,
    paths: Annotated[int, typer.Option(help="ways through the network that are compiled, at most")] = 6,
    hidden: Annotated[int, typer.Option(help="width of the gate networks")] = 16,
    scales: Annotated[bool, typer.Option(help="scale what is kept by a predicted number")] = True,
    epochs: Annotated[int, typer.Option(help="epochs of training, all stages together")] = 8,
    seed: Annotated[int, typer.Option(help="of the gate networks, of splits and training")] = 0,
    at: Annotated[str | None, typer.Option(help="cut here first; see netcut frontiers")] = None,
    classes: Annotated[int | None, typer.Option(help="classes of a new head on that cut")] = None,
    head: opt.Head = "netcut",
    pool: opt.Pool = "auto",
    weights: opt.Weights = None,
    input_size: opt.InputSize = None,
    normalize: Annotated[str | None, typer.Option(help="normalisation of the images, as for run")] = None,
    leaf_module: opt.LeafModule = None,
    via: opt.Via = "auto",
    target: opt.Target = "native",
    threads: opt.Threads = 1,
    trials: opt.Trials = 0,
    database: opt.Database = opt.DEFAULT_DATABASE,
    images: Annotated[int | None, typer.Option(help="test images to measure; all by default")] = None,
    out: Annotated[Path, typer.Option(help="folder for the bundle and checkpoints")] = Path("build/gate"),
    as_json: opt.AsJson = False,
) -> None:
    """Gate MODEL, train it towards an expected cost, compile it, and measure it input by input."""
    from netcut_fx.errors import SpecError
    from netcut_fx.passes.gate import GatePass
    from netcut_fx.target import detect
    from netcut_fx.text import to_text
    from netcut_fx.verbs import tvm_backend

    if cost not in ("ms", "flops"):
        raise SpecError(f"--cost is ms or flops, got {cost!r}")
    if not 0 < target_rate <= 1:
        raise SpecError(f"--target-rate is a share above 0 and at most 1, got {target_rate}")
    network = cut_if_asked(traced_model(model, weights, input_size, None, leaf_module, via), at, classes, head, pool)
    # Whoever only looks needs no compiler.
    backend = None if data is None else tvm_backend(target, threads, links=True)
    vector = (detect(target) if backend is None else backend.target).float32_lanes
    gated = GatePass(layers, channels, groups, hidden, scales, seed, vector if multiple is None else multiple, lead)(
        network
    )
    if data is None or backend is None:
        opt.print_json({"name": gated.name, "text": to_text(gated)}) if as_json else print(to_text(gated))
        return
    from netcut_fx.cli.options import parse_size
    from netcut_fx.data import load_data
    from netcut_fx.gating.gated_job import train_and_bundle
    from netcut_fx.gating.gated_report import write_gated_report
    from netcut_fx.retraining import RetrainOptions

    size = parse_size(input_size) or (224, 224)
    dataset = load_data(data, input_size=size, normalize=normalize, seed=seed)
    result = train_and_bundle(
        gated,
        network,
        dataset,
        backend,
        out,
        rate=target_rate,
        unit="flops" if cost == "flops" else "ms",
        options=RetrainOptions(epochs=epochs, head_epochs=0, seed=seed),
        paths=paths,
        deadline_ms=deadline_ms,
        fill=fill,
        trials=trials,
        database=database,
        images=images,
    )
    report = write_gated_report(result, dataset, out / "report.html")
    found = result.to_json() | {"report": str(report)}
    if as_json:
        opt.print_json(found)
    else:
        print("\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> list[str]:
    p99 = "" if found["p99_ms"] is None else f", p99 {found['p99_ms']:.3f}"
    return [
        f"bundle    {found['bundle']}",
        f"report    {found['report']}",
        f"accuracy  {100 * found['accuracy']:.1f} % of {found['images']} test images",
        f"latency   mean {found['mean_ms']:.3f} ms, median {found['p50_ms']:.3f}{p99}, worst {found['worst_ms']:.3f}",
        f"          without gates {found['static_ms']:.3f}; to decide and to call takes {found['dispatch_ms']:.3f}",
        f"estimate  expected {found['estimate']['expected_ms']:.3f} ms, worst {found['estimate']['worst_ms']:.3f} ms",
        f"FLOPs     {100 * found['mean_flops'] / found['static_flops']:.1f} % of the network without gates",
    ]
