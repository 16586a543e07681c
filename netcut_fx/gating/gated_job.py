"""The whole way of a gated network: price, train, compile, measure, bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcut_fx.atomic_files import atomic_write
from netcut_fx.backends.base import Backend
from netcut_fx.data import Dataset
from netcut_fx.gating.compiling import CompiledGated, compile_gated
from netcut_fx.gating.cost_table import CostTable, Unit
from netcut_fx.gating.gated_bundle import write_gated_bundle
from netcut_fx.gating.pieces import split
from netcut_fx.gating.pricing import cost_table, flops, for_one_input
from netcut_fx.gating.staged import Stages, train_gated
from netcut_fx.graph import TracedModule
from netcut_fx.manifest import Manifest
from netcut_fx.measure import Stopwatch
from netcut_fx.retraining import Progress, RetrainOptions
from netcut_fx.runtime import Runtime, load

#: Runs of one image when it is timed; the fastest counts, since others use the machine as well.
_RUNS_PER_IMAGE = 5


@dataclass(frozen=True)
class Served:
    """What a bundle did with some images.

    Parameters
    ----------
    ms : float array (N,)
        Of each image, gates and dispatch included.
    widths : tuple of tuples
        The width of each cell.
    correct : bool array (N,)
        Whether the answer was right.
    """

    ms: NDArray[np.float64]
    widths: tuple[tuple[int, ...], ...]
    correct: NDArray[np.bool_]

    def to_json(self) -> dict[str, Any]:
        """Mean, median, 99th percentile (from 1,000 images on) and worst."""
        return {
            "images": len(self.ms),
            "accuracy": float(self.correct.mean()),
            "mean_ms": float(self.ms.mean()),
            "p50_ms": float(np.median(self.ms)),
            "p99_ms": float(np.quantile(self.ms, 0.99)) if len(self.ms) >= 1000 else None,
            "worst_ms": float(self.ms.max()),
        }


@dataclass(frozen=True)
class GatedResult:
    """A finished gated network.

    Parameters
    ----------
    traced : TracedModule
        With its trained weights.
    bundle : Path
        What a device gets.
    table : CostTable
        Measured, in ms, dispatch included.
    flops_table : CostTable
        The same in FLOPs.
    served : Served
        Test images through the bundle.
    static_ms : float
        The network without gates, compiled alike.
    """

    traced: TracedModule
    bundle: Path
    table: CostTable
    flops_table: CostTable
    served: Served
    static_ms: float

    def to_json(self) -> dict[str, Any]:
        """What there is to say about it."""
        spent = [self.flops_table.total(widths) for widths in self.served.widths]
        predicted = [self.table.total(widths) / 1e6 for widths in self.served.widths]
        return {
            "bundle": str(self.bundle),
            **self.served.to_json(),
            "static_ms": self.static_ms,
            "mean_flops": float(np.mean(spent)),
            "static_flops": self.flops_table.static,
            "estimate": {"expected_ms": float(np.mean(predicted)), "worst_ms": self.table.full / 1e6},
            "mandatory_ms": self.table.mandatory / 1e6,
        }


def price_gated(
    gated: TracedModule, static: TracedModule, backend: Backend, unit: Unit, *, database: Path | None = None
) -> CostTable:
    """The cost table to train for: FLOPs, or every piece compiled and measured as it is before training."""
    pieces = split(gated)
    if unit == "flops":
        return cost_table(pieces, flops, unit="flops", static=static)
    return compile_gated(pieces, backend, database=database).measured(pieces, Stopwatch(repeat=5, min_repeat_ms=2.0))


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
    deadline_ms: float | None = None,
    fill: bool = False,
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
        Gets ``bundle``, ``checkpoints``, and ``costs.json``: what was trained for, so that a run can go on.
    rate, unit
        The target, a share of the cost in ms or FLOPs.
    options, stages, progress
        See `train_gated`.
    deadline_ms, fill
        The hard budget of each input; see `CostTable.choose`.
    trials, database
        See `compile_gated`.
    images : int, optional
        How many test images are measured; all by default.
    """
    target = _stored_prices(folder / "costs.json", gated, static, backend, unit, database)
    trained = train_gated(
        gated,
        dataset,
        target,
        rate,
        options=options,
        stages=stages,
        checkpoint_dir=folder / "checkpoints",
        progress=progress,
    ).traced
    pieces = split(trained)
    compiled = compile_gated(pieces, backend, trials=trials, database=database)
    alone = backend.compile(for_one_input(static), database=database)
    watch = Stopwatch(repeat=9, min_repeat_ms=5.0)
    table = compiled.measured(pieces, watch)
    static_ms = watch.measure_timer(alone.timer()).ms
    manifest = manifest_of(trained, dataset, backend)
    inputs, labels = dataset.inputs("test")[:images], dataset.labels[dataset.splits["test"]][:images]
    bundle = write_gated_bundle(folder / "bundle", compiled, table, manifest)
    table = replace(table, always=table.always + _dispatch_cost(bundle, compiled, table, inputs))
    bundle = write_gated_bundle(bundle, compiled, table, manifest, budget_ms=deadline_ms, fill=fill)
    with load(bundle) as runtime:
        budget = None if deadline_ms is None else table.budget(deadline_ms)
        served = serve(runtime, compiled, table, inputs, labels, budget=budget, fill=fill)
    flops_table = cost_table(pieces, flops, unit="flops", static=static)
    return GatedResult(trained, bundle, table, flops_table, served, static_ms)


def serve(
    runtime: Runtime,
    compiled: CompiledGated,
    table: CostTable,
    inputs: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    budget: int | None = None,
    fill: bool = False,
) -> Served:
    """Answer `inputs` one at a time and take the time of each; decisions are looked up beside, unmeasured."""
    decide = compiled.dispatcher(table, budget=budget, fill=fill)
    timer = runtime.timer()
    ms = np.empty(len(inputs))
    correct = np.empty(len(inputs), bool)
    widths: list[tuple[int, ...]] = []
    for i, image in enumerate(inputs):
        correct[i] = int(runtime.logits(image[None])[0].argmax()) == labels[i]
        ms[i] = min(timer(1) for _ in range(_RUNS_PER_IMAGE)) * 1e3
        widths.append(decide(image[None])[1])
    return Served(ms, tuple(widths), correct)


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


def _dispatch_cost(
    bundle: Path, compiled: CompiledGated, table: CostTable, inputs: NDArray[np.float32], images: int = 32
) -> int:
    """What a bundle takes beyond its pieces, at the median of some images: deciding, and calling pieces."""
    with load(bundle) as runtime:
        found = serve(runtime, compiled, table, inputs[:images], np.zeros(images, np.int64))
    beyond = [ms * 1e6 - table.total(widths) for ms, widths in zip(found.ms, found.widths, strict=True)]
    return max(0, round(float(np.median(beyond))))
