"""Networks that decide per input what to skip, beside what else saves time: accuracy, FLOPs and measured ms.

CIFAR-10 (JPEG) and CIFAR's ResNets. The static network is fine-tuned first; every other method starts from its weights
and trains for as many epochs. Rows are written as they come; those that are there are kept, and a training that was
stopped goes on where it was.

    python -m benchmarks.lcnet_study [--layers 20 56] [--epochs 8] [--rates 0.4 0.6 0.8] [--seeds 0 1 2]

Methods: ``static``; ``cut`` (the same network cut where it takes as long as LC-Net does); ``lc-net``, ``l-net``,
``c-net``; ``random`` (LC-Net's parts at the same expected cost, drawn at random); ``mask`` (LC-Net, everything computed
and multiplied by the mask); ``early-exit`` (heads behind two stages, left by confidence); ``deadline`` (LC-Net with a
bound for each input). Ablations: ``lc-net no scale``, ``lc-net flops loss``, ``lc-net 2 groups``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lcnet_networks import FOLDER, cifar10, resnet
from benchmarks.lcnet_peers import at_random, cut_to, early_exit
from benchmarks.lcnet_summary import summary
from benchmarks.machine import machine
from netcut_fx.atomic_files import atomic_write
from netcut_fx.backends.base import Backend
from netcut_fx.data import Dataset
from netcut_fx.evaluate import Accuracy
from netcut_fx.gating.gated_job import train_and_bundle
from netcut_fx.gating.pricing import flops
from netcut_fx.graph import TracedModule
from netcut_fx.measure import Stopwatch
from netcut_fx.passes.gate import GatePass
from netcut_fx.retraining import RetrainOptions, retrain
from netcut_fx.verbs import tvm_backend

OUT = Path(__file__).parent / "results" / "lcnet_study.json"
WATCH = Stopwatch(repeat=15, min_repeat_ms=10.0)
GATED: dict[str, tuple[dict[str, Any], str]] = {
    "lc-net": ({}, "ms"),
    "l-net": ({"channels": False}, "ms"),
    "c-net": ({"layers": False}, "ms"),
    "lc-net no scale": ({"scales": False}, "ms"),
    "lc-net flops loss": ({}, "flops"),
    "lc-net 2 groups": ({"groups": 2}, "ms"),
}


@dataclass
class Study:
    """One network with one seed."""

    source: Path
    layers: int
    seed: int
    epochs: int
    data: Dataset
    backend: Backend
    folder: Path
    rows: dict[str, dict[str, Any]]
    save: Callable[[], None]
    images: int | None = None

    @property
    def options(self) -> RetrainOptions:
        """Of every training here."""
        return RetrainOptions(
            epochs=self.epochs,
            head_epochs=0,
            batch_size=64,
            lr=2e-3,
            first_layer_factor=1.0,
            label_smoothing=0.0,
            augment_shift_fraction=0.125,
            horizontal_flip=True,
            freeze_batch_norm=False,
            seed=self.seed,
        )

    def run(self, rates: list[float], methods: list[str]) -> None:
        """Ablations at the middle rate only."""
        static = self.static()
        for rate in rates:
            for method in methods:
                if rate == rates[len(rates) // 2] or " " not in method:
                    self.gated(static, method, rate)
            self.peers(static, rate)

    def static(self) -> TracedModule:
        """The network itself, fine-tuned on these images; loaded again from its checkpoint."""
        trained = retrain(
            resnet(self.layers, self.source), self.data, options=self.options, checkpoint_dir=self.folder / "static"
        )
        if self.missing("static", 1.0):
            ms = WATCH.measure_timer(self.backend.compile(trained.traced).timer()).ms
            self.add("static", 1.0, trained.test, {"mean_ms": ms, "mean_flops": flops(trained.traced)})
        return trained.traced

    def gated(self, static: TracedModule, method: str, rate: float, **more: Any) -> None:
        """A row of `GATED`, or the same with a deadline."""
        name = "deadline" if more else method
        if not self.missing(name, rate):
            return
        options, unit = GATED[method]
        result = train_and_bundle(
            GatePass(seed=self.seed, **options)(static),
            static,
            self.data,
            self.backend,
            self.folder / f"{method.replace(' ', '-')}-{rate}",
            rate=rate,
            unit="flops" if unit == "flops" else "ms",
            options=self.options,
            images=self.images,
            **more,
        )
        found = result.to_json()
        correct = Accuracy(int(result.served.correct.sum()), len(result.served.correct))
        overhead = result.table.full / 1e6 - result.static_ms
        used = np.array(result.served.widths)
        facts = {
            "mask_ms": result.table.full / 1e6,
            "gate_overhead_ms": overhead,
            "mean_width_per_cell": used.mean(0).tolist(),
            "mean_width_per_class": [
                used[self.labels(len(used)) == c].mean(0).tolist() for c in np.unique(self.labels(len(used)))
            ],
        }
        if more:
            facts["deadline_ms"] = more["deadline_ms"]
            facts["violations"] = int((result.served.ms > more["deadline_ms"] * 1.05).sum())
        self.add(name, rate, correct, {**found, **facts})

    def peers(self, static: TracedModule, rate: float) -> None:
        """What LC-Net is compared with at the same time or cost."""
        own = self.rows.get(self.key("lc-net", rate))
        if own is None:
            return
        if self.missing("mask", rate):
            same = Accuracy(own["correct"], own["images"])
            self.add("mask", rate, same, {"mean_ms": own["mask_ms"], "mean_flops": own["mean_flops"]})
        if self.missing("cut", rate):
            trained, ms = cut_to(static, self.data, self.backend, own["mean_ms"], self.options, self.folder / "cut")
            self.add("cut", rate, trained.test, {"mean_ms": ms, "mean_flops": flops(trained.traced)})
        if self.missing("random", rate):
            gated = GatePass(seed=self.seed, scales=False)(static)
            accuracy, spent = at_random(gated, self.data, rate, self.options, self.folder / "random")
            self.add("random", rate, accuracy, {"mean_flops": spent})
        if self.missing("early-exit", rate):
            accuracy, ms, spent = early_exit(
                static, self.data, self.backend, ("layer1.2", "layer2.2"), rate, self.options, self.folder / "exits"
            )
            self.add("early-exit", rate, accuracy, {"mean_ms": ms, "mean_flops": spent})
        if self.missing("deadline", rate):
            deadline_ms = own["mandatory_ms"] + 0.7 * (own["mask_ms"] - own["mandatory_ms"])
            self.gated(static, "lc-net", rate, deadline_ms=deadline_ms)

    def labels(self, count: int) -> np.ndarray:
        """Of the first test images."""
        return self.data.labels[self.data.splits["test"]][:count]

    def key(self, method: str, rate: float) -> str:
        """Of a row."""
        return f"resnet{self.layers}/{method}/{rate}/seed{self.seed}/epochs{self.epochs}/n{len(self.data.labels)}"

    def missing(self, method: str, rate: float) -> bool:
        """Whether a row has still to be made."""
        return self.key(method, rate) not in self.rows

    def add(self, method: str, rate: float, accuracy: Accuracy, facts: dict[str, Any]) -> None:
        """Write a row."""
        row = {"network": f"resnet{self.layers}", "method": method, "rate": rate, "seed": self.seed, **facts}
        row |= {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
        row |= {"correct": accuracy.correct, "images": accuracy.total, "epochs": self.epochs}
        row.pop("bundle", None)
        self.rows[self.key(method, rate)] = row
        self.save()
        print(
            f"{self.key(method, rate)}: {accuracy.value:.4f}, {facts.get('mean_ms', float('nan')):.3f} ms", flush=True
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[20])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.4, 0.6, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limit", type=int, help="images in all; fewer make a quick trial, not a result")
    parser.add_argument("--images", type=int, help="test images that are measured")
    parser.add_argument("--methods", nargs="+", default=list(GATED), choices=list(GATED), help="of the gated ones")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of the images and weights")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=Path("build/lcnet_study"))
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    if options.out.exists():
        rows = json.loads(options.out.read_text())["rows"]

    def save() -> None:
        found = {"machine": machine(), "data": "CIFAR-10 (JPEG)", "summary": summary(list(rows.values())), "rows": rows}
        atomic_write(options.out, (json.dumps(found, indent=1) + "\n").encode())

    data, backend = cifar10(options.data, options.limit), tvm_backend("native", 1)
    for seed in options.seeds:
        for layers in options.layers:
            folder = options.work / f"resnet{layers}-seed{seed}"
            study = Study(options.data, layers, seed, options.epochs, data, backend, folder, rows, save, options.images)
            study.run(options.rates, options.methods)
    return 0


if __name__ == "__main__":
    sys.exit(main())
