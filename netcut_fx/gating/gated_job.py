"""The whole way of a gated network: price, train, compile, measure, bundle."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netcut_fx.atomic_files import atomic_write
from netcut_fx.backends.base import Backend
from netcut_fx.bundle import write_bundle
from netcut_fx.data import Dataset
from netcut_fx.errors import PassError
from netcut_fx.gating.compiling import compile_gated
from netcut_fx.gating.cost_table import CostTable, Unit
from netcut_fx.gating.gated_bundle import write_gated_bundle
from netcut_fx.gating.paths import Paths
from netcut_fx.gating.pieces import gates_of
from netcut_fx.gating.pricing import cost_table, flops, for_one_input, ms_measured, path_flops
from netcut_fx.gating.served import Served, serve, served_costs
from netcut_fx.gating.staged import Stages, train_gated
from netcut_fx.graph import TracedModule
from netcut_fx.manifest import Manifest
from netcut_fx.measure import Stopwatch
from netcut_fx.retraining import Progress, RetrainOptions
from netcut_fx.runtime import load

#: Paths are chosen before training for so much of the deadline: prices are those of the fastest runs there, and
#: under a deadline a path is taken if the slowest of its rounds keeps it.
_HEADROOM = 0.9


@dataclass(frozen=True)
class GatedResult:
    """A finished gated network.

    Parameters
    ----------
    traced : TracedModule
        With its trained weights, and its paths set.
    bundle, static_bundle : Path
        What a device gets; the network without gates, compiled alike.
    paths : Paths
        Costs measured, dispatch included.
    path_flops : tuple of int
        Operations of each path, gates included.
    static_flops : int
        Of the network without gates.
    served : Served
        Test images through the bundle.
    dispatch_ms : float
        What deciding and calling takes beyond the pieces.
    deadline_ms : float or None
        What no input may exceed.
    """

    traced: TracedModule
    bundle: Path
    static_bundle: Path
    paths: Paths
    path_flops: tuple[int, ...]
    static_flops: int
    served: Served
    dispatch_ms: float
    deadline_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What there is to say about it."""
        shares = np.bincount(self.served.paths, minlength=len(self.paths.widths)) / len(self.served.paths)
        costs, bounds = np.array(self.paths.costs) / 1e6, np.array(self.paths.bounds) / 1e6
        possible = len(bounds) if self.deadline_ms is None else self.paths.within(self.paths.budget(self.deadline_ms))
        return {
            "bundle": str(self.bundle),
            "deadline_ms": self.deadline_ms,
            **self.served.to_json(),
            "mean_flops": float(np.mean(np.array(self.path_flops)[self.served.paths])),
            "static_flops": self.static_flops,
            "estimate": {"expected_ms": float(shares @ costs), "worst_ms": float(bounds[possible - 1])},
            "mandatory_ms": float(bounds[0]),
            "dispatch_ms": self.dispatch_ms,
            "paths": [
                {
                    "widths": list(w),
                    "ms": float(ms),
                    "bound_ms": float(bound),
                    "flops": operations,
                    "share": float(share),
                }
                for w, ms, bound, operations, share in zip(
                    self.paths.widths, costs, bounds, self.path_flops, shares, strict=True
                )
            ],
        }


def price_gated(
    gated: TracedModule, static: TracedModule, backend: Backend, unit: Unit, *, database: Path | None = None
) -> CostTable:
    """The cost table to train for: FLOPs, or paths compiled and measured as they are before training."""
    if unit == "flops":
        return cost_table(gated, flops, unit="flops", static=static)
    # Long rounds: dozens of networks in turn find their weights in no cache.
    watch = Stopwatch(repeat=15, min_repeat_ms=12.0)
    return cost_table(gated, ms_measured(backend, watch, database=database), static=static)


def train_and_bundle(
    gated: TracedModule,
    static: TracedModule,
    dataset: Dataset,
    backend: Backend,
    folder: Path,
    *,
    rate: float,
    unit: Unit = "ms",
    options: RetrainOptions | None = None,
    stages: Stages | None = None,
    paths: int = 6,
    deadline_ms: float | None = None,
    fill: bool = True,
    trials: int = 0,
    database: Path | None = None,
    images: int | None = None,
    progress: Progress | None = None,
) -> GatedResult:
    """Train a gated network towards a share of its cost, compile it, and measure its bundle on test images.

    Parameters
    ----------
    gated, static : TracedModule
        The network with gates and without.
    dataset : Dataset
        At the size that it reads.
    backend : Backend
        TVM.
    folder : Path
        Gets ``bundle``, ``static``, ``checkpoints``, and ``costs.json``: what was trained for, so that a run can go on.
    rate, unit
        The target, a share of the cost in ms or FLOPs.
    options, stages, progress
        See `train_gated`.
    paths : int
        How many at most.
    deadline_ms, fill
        The hard budget of each input, and whether it is spent on what the gates would leave out.
    trials, database
        See `compile_gated`.
    images : int, optional
        How many test images are measured; all by default.

    Raises
    ------
    BudgetError
        If the deadline is below what the cheapest path takes.
    """
    target = _stored_prices(folder / "costs.json", gated, static, backend, unit, database)
    budget = None if deadline_ms is None or unit != "ms" else int(_HEADROOM * target.budget(deadline_ms))
    trained = train_gated(
        gated,
        dataset,
        target,
        rate,
        options=options,
        stages=stages,
        paths=paths,
        budget=budget,
        fill=fill,
        checkpoint_dir=folder / "checkpoints",
        progress=progress,
    )
    return bundle_gated(
        trained,
        static,
        dataset,
        backend,
        folder,
        deadline_ms=deadline_ms,
        fill=fill,
        trials=trials,
        database=database,
        images=images,
    )


def bundle_gated(
    trained: TracedModule,
    static: TracedModule,
    dataset: Dataset,
    backend: Backend,
    folder: Path,
    *,
    deadline_ms: float | None = None,
    fill: bool = True,
    trials: int = 0,
    database: Path | None = None,
    images: int | None = None,
) -> GatedResult:
    """Compile a gated network whose paths are set, bundle it, and measure it beside the network without gates.

    Parameters
    ----------
    trained, static, dataset, backend, folder, deadline_ms, fill, trials, database, images
        See `train_and_bundle`.
    """
    chosen = gates_of(trained).paths
    if chosen is None:
        raise PassError(f"{trained.name} has no paths yet; train it with train_gated, or set them with with_paths")
    compiled = compile_gated(trained, chosen.widths, backend, trials=trials, database=database)
    manifest = manifest_of(trained, dataset, backend)
    alone = for_one_input(static)
    parts = backend.compile(alone, database=database).save(folder / "library")
    without = write_bundle(folder / "static", **parts, manifest=manifest_of(static, dataset, backend))
    shutil.rmtree(folder / "library")
    inputs, labels = dataset.inputs("test")[:images], dataset.labels[dataset.splits["test"]][:images]
    first = write_gated_bundle(folder / "bundle", compiled, manifest)
    costs, bounds = served_costs(first)
    alone_costs = np.array(compiled.program.paths.costs)
    dispatch_ms = float(np.median(np.array(costs) - alone_costs)) / 1e6
    compiled = compiled.with_costs(costs, bounds)
    bundle = write_gated_bundle(first, compiled, manifest, budget_ms=deadline_ms, fill=fill and deadline_ms is not None)
    with load(bundle) as runtime, load(without) as static_runtime:
        served = serve(runtime, inputs, labels, beside=static_runtime)
    paths = compiled.program.paths
    operations = tuple(path_flops(trained, paths.widths))
    static_flops = round(flops([alone])[0])
    return GatedResult(trained, bundle, without, paths, operations, static_flops, served, dispatch_ms, deadline_ms)


def manifest_of(traced: TracedModule, dataset: Dataset, backend: Backend) -> Manifest:
    """What the bundle says about itself."""
    height, width = dataset.preprocess.size
    return Manifest(
        name=traced.name,
        target=backend.target,
        preprocess=dataset.preprocess,
        labels=dataset.classes,
        input_shape=(1, 3, height, width),
        output_shape=(1, dataset.class_count),
        versions=dict(backend.target.toolchain),
    )


def _stored_prices(
    path: Path, gated: TracedModule, static: TracedModule, backend: Backend, unit: Unit, database: Path | None
) -> CostTable:
    """Measured times differ from run to run: the first ones stay, or no checkpoint would ever fit again."""
    key = {"network": gated.state_hash(), "unit": unit, "target": backend.target.fingerprint()}
    if path.is_file():
        found = json.loads(path.read_bytes())
        if found["key"] == key:
            return CostTable.from_json(found["table"])
    table = price_gated(gated, static, backend, unit, database=database)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps({"key": key, "table": table.to_json()}, indent=1) + "\n").encode())
    return table
