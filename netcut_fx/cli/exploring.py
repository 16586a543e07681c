"""``netcut explore``: many networks, many deadlines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from netcut_fx.cli import options as opt
from netcut_fx.cli.artefacts import ListOptions

if TYPE_CHECKING:
    from netcut_fx.exploration.options import Strategy


class ManyWords(ListOptions):
    """``--models A B C`` and the like, see `ListOptions`."""

    _LISTS = ("--models", "--deadline-ms", "--strategy")
    _ends_at_files = False


def explore(
    models: Annotated[
        list[str], typer.Option(help="SPEC[,name=NAME][,weights=FILE][,normalize=NAME] of each network; several words")
    ],
    data: Annotated[
        str, typer.Option(help="images: folder of class folders, .npz, digits, fashion-mnist, with ?limit=N")
    ],
    deadline_ms: Annotated[
        list[float] | None, typer.Option(help="bounds on the latency of one image; several words")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="instead: deadlines over the whole range of latencies")
    ] = False,
    sweep_count: Annotated[int, typer.Option(help="how many deadlines a sweep has")] = 16,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="ranked (ours), netcut (as published) or exhaustive; several words compare them"),
    ] = None,
    input_size: opt.InputSize = None,
    normalize: Annotated[str | None, typer.Option(help="of networks that do not say their own")] = None,
    target: opt.Target = "native",
    threads: opt.Threads = 1,
    trials: opt.Trials = 24,
    granularity: opt.Granularity = "block",
    max_width: opt.MaxWidth = 1,
    head: opt.Head = "netcut",
    pool: opt.Pool = "auto",
    shortlist: Annotated[int, typer.Option(help="candidates that 'ranked' retrains for a deadline")] = 1,
    epochs: Annotated[int, typer.Option(help="most epochs of fine-tuning per candidate")] = 8,
    turn: Annotated[float, typer.Option(help="turn training images by up to so many degrees")] = 0.0,
    zoom: Annotated[float, typer.Option(help="resize training images by up to this fraction")] = 0.0,
    contrast: Annotated[float, typer.Option(help="change contrast and brightness by up to this fraction")] = 0.0,
    train_per_class: Annotated[int | None, typer.Option(help="train on so many images of each class only")] = None,
    distill: Annotated[
        float, typer.Option(help="share of the labels that the best uncut network's answers take; 0 for none")
    ] = 0.0,
    off_the_shelf: Annotated[
        bool, typer.Option(help="retrain and measure every uncut network too, to compare with")
    ] = True,
    bundles: Annotated[bool, typer.Option(help="write the best network for each deadline as a bundle")] = True,
    seed: Annotated[int, typer.Option(help="of splits, heads, training and search")] = 0,
    jobs: Annotated[int | None, typer.Option(help="processes that survey and train; by default one a core")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="survey and train on this Ray cluster; all see the same files")
    ] = None,
    timings: Annotated[Path | None, typer.Option(help="tuning records and timings that explorations share")] = None,
    out: Annotated[Path, typer.Option(help="folder for result.json, report.html and reusable work")] = Path(
        "build/explore"
    ),
    as_json: opt.AsJson = False,
) -> None:
    """Find the most accurate of many networks and all their cuts for every deadline."""
    from netcut_fx.cli.console import ConsoleReporter
    from netcut_fx.cli.exploration_table import print_exploration
    from netcut_fx.errors import SpecError
    from netcut_fx.exploration.explore import explore as explore_networks
    from netcut_fx.exploration.options import ExploreOptions
    from netcut_fx.job_options import Granularity, RunOptions
    from netcut_fx.passes.head import HeadKind
    from netcut_fx.pooling import PoolOption
    from netcut_fx.retraining_options import RetrainOptions

    if jobs is not None and jobs < 1:
        raise SpecError(f"--jobs must be at least 1, got {jobs}")
    each = RunOptions(
        deadline_fraction=1.0,
        target=target,
        threads=threads,
        trials=trials,
        granularity=cast("Granularity", granularity),
        max_width=max_width,
        head=cast("HeadKind", head),
        pool=cast("PoolOption", pool),
        shortlist=shortlist,
        retrain=RetrainOptions(
            epochs=epochs,
            augment_turn_degrees=turn,
            augment_zoom_fraction=zoom,
            augment_contrast_fraction=contrast,
        ),
        seed=seed,
    )
    chosen = ExploreOptions(
        deadlines_ms=tuple(sorted(deadline_ms or ())),
        sweep=sweep_count if sweep else 0,
        strategies=cast("tuple[Strategy, ...]", tuple(strategy or ("ranked",))),
        each=each,
        off_the_shelf=off_the_shelf,
        train_per_class=train_per_class,
        distillation=distill,
    )
    with ConsoleReporter() as reporter:
        try:
            result: dict[str, Any] = explore_networks(
                models,
                data,
                out=out,
                options=chosen,
                input_size=opt.parse_size(input_size),
                normalize=normalize,
                jobs=jobs,
                ray=ray,
                timings=timings,
                bundles=bundles,
                reporter=reporter,
            )
        except KeyboardInterrupt:
            reporter.note(f"interrupted; finished steps are kept in {out}, the same command goes on from there")
            raise typer.Exit(130) from None
    if as_json:
        opt.print_json(result)
    else:
        print_exploration(result)
