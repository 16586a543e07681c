"""The methods of `benchmarks.lcnet_study`, each a row of its result file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.lcnet_checks import agreement, gate_overhead, noise_ms, timed_again
from benchmarks.lcnet_networks import Subject
from benchmarks.lcnet_peers import Exits, at_random, cut_to, early_exits
from benchmarks.lcnet_training import Recipe, Teacher, accuracy, train
from netcut_fx.atomic_files import atomic_write
from netcut_fx.backends.base import Backend
from netcut_fx.data import Dataset
from netcut_fx.evaluate import Accuracy
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.fitting import saliences
from netcut_fx.gating.gated_job import GatedResult, bundle_gated, price_gated
from netcut_fx.gating.objective import CostObjective
from netcut_fx.gating.path_choice import set_paths, with_paths
from netcut_fx.gating.paths import Paths
from netcut_fx.gating.pieces import gates_of
from netcut_fx.gating.pricing import flops, for_one_input
from netcut_fx.gating.staged import Stages, default_stages, finish, prepare_stage
from netcut_fx.graph import TracedModule
from netcut_fx.measure import Stopwatch
from netcut_fx.passes.copying import copy_traced
from netcut_fx.passes.gate import GatePass
from netcut_fx.runtime import load

WATCH = Stopwatch(repeat=25, min_repeat_ms=5.0)
#: Options of the pass and the unit of the loss.
GATED: dict[str, tuple[dict[str, Any], str]] = {
    "lc-net": ({}, "ms"),
    "l-net": ({"channels": False}, "ms"),
    "c-net": ({"layers": False}, "ms"),
    "lc-net no scale": ({"scales": False}, "ms"),
    "lc-net flops loss": ({}, "flops"),
    "lc-net 2 groups": ({"groups": 2}, "ms"),
    "lc-net lead 1": ({"lead": 1}, "ms"),
}
#: What is made from an LC-Net.
_BESIDE = ("mask", "deadline", "cut", "random")
PEERS = ("static longer", "early-exit", *_BESIDE)
#: Epochs from which on a training has stages.
_STAGED = 16
#: How many images compiled and eager are compared on.
_COMPARED = 1000
_MEANS = (("mean_ms", "ms"), ("mean_flops", "flops"))


@dataclass
class Study:
    """One network with one seed."""

    subject: Subject
    seed: int
    static_epochs: int
    epochs: int
    backend: Backend
    folder: Path
    rows: dict[str, dict[str, Any]]
    save: Callable[[], None]
    images: int | None = None
    paths: int = 4
    _static: TracedModule | None = field(default=None, init=False)

    @property
    def data(self) -> Dataset:
        """The images."""
        return self.subject.data

    def run(self, rates: list[float], methods: list[str]) -> None:
        """All methods that have no row yet, trained for the middle rate; ablations at that one only."""
        self.static_row()
        if "static longer" in methods:
            self.longer()
        main = rates[len(rates) // 2]
        for method in (m for m in methods if m in GATED):
            self.gated(method, main, [] if " " in method else rates)
        if "early-exit" in methods:
            self.exits(rates)
        for method in (m for m in methods if m in _BESIDE):
            self.peer(method, main)

    def train_only(self, rate: float, methods: list[str]) -> None:
        """All gated networks and the longer static one; nothing is measured but prices, which come first."""
        gated = [method for method in methods if method in GATED]
        for method in gated:
            self.priced(method)
        if "static longer" in methods:
            self.trained_longer()
        for method in gated:
            self.trained(method, rate)
        if "early-exit" in methods:
            self.trained_exits()

    @property
    def trainings(self) -> Path:
        """Checkpoints of all that starts from the static network, and what is made from them."""
        return self.folder / f"epochs{self.epochs}-paths{self.paths}"

    @property
    def static(self) -> TracedModule:
        """The network itself, fine-tuned on these images; loaded again from its checkpoint."""
        if self._static is None:
            traced = copy_traced(self.subject.start)
            recipe = replace(self.subject.static, epochs=self.static_epochs)
            train(traced.graph_module, self.data, recipe, self.folder / "static.pt", told=self.subject.name)
            traced.graph_module.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
            self._static = traced
        return self._static

    @property
    def teacher(self) -> Teacher:
        """The static network as it answers while others learn."""
        network = copy.deepcopy(self.static.graph_module).eval().requires_grad_(False)
        return Teacher(network.to(memory_format=torch.channels_last), self.folder / "answers")

    def recipe(self, epochs: int, first: int = 0, *, joint: bool = False) -> Recipe:
        """Of everything that starts from the static network."""
        further = self.subject.further
        return replace(further, epochs=epochs, lr=self.subject.joint_lr if joint else further.lr, first=first)

    def stages(self, gated: TracedModule) -> Stages:
        """Of a short training one: each anneals anew, and a joint epoch takes as long as three."""
        if self.epochs < _STAGED:
            return (("paths", self.epochs),)
        return default_stages(gates_of(gated), self.epochs)

    def static_row(self) -> None:
        """The static network, compiled."""
        if self.missing("static", 1.0):
            alone = for_one_input(self.static)
            ms = WATCH.measure_timer(self.backend.compile(alone).timer()).ms
            correct = accuracy(self.static.graph_module, self.data, "test")
            self.add("static", 1.0, correct, {"mean_ms": ms, "mean_flops": flops([alone])[0]})

    def longer(self) -> None:
        """The static network, trained on as long as gated ones are, from its own answers."""
        if self.missing("static longer", 1.0):
            network = self.trained_longer()
            own = self.rows[self.key("static", 1.0)]
            facts = {name: own[name] for name in ("mean_ms", "mean_flops")}
            self.add("static longer", 1.0, accuracy(network, self.data, "test"), facts)

    def trained_longer(self) -> nn.Module:
        """The static network after further epochs."""
        network = copy.deepcopy(self.static.graph_module)
        self.train(network, self.recipe(self.epochs), "longer.pt", "static longer")
        return network

    def train(
        self, network: nn.Module, recipe: Recipe, name: str, told: str, extra: CostObjective | None = None
    ) -> None:
        """Train in place, from the static network's answers."""
        train(network, self.data, recipe, self.trainings / name, teacher=self.teacher, extra=extra, told=told)
        network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]

    def trained(self, method: str, rate: float, *, joint: bool = True) -> tuple[TracedModule, CostTable]:
        """A gated network trained on its paths, `joint` or before; and what it was trained for."""
        folder = method.replace(" ", "-")
        gated, table = self.priced(method)
        network = self.with_paths(self.trainings / folder / f"{rate}-paths.json", gated, table, rate)
        first = 0
        for part, (stage, epochs) in enumerate(self.stages(gated)):
            if stage == "joint" and not joint:
                break
            network = prepare_stage(network, self.data, table, rate, stage)
            choosing = stage == "joint"
            self.train(
                network.graph_module,
                self.recipe(epochs, first, joint=choosing),
                f"{folder}/{rate}-{part}-{stage}.pt",
                f"{method} {rate} {stage}",
                CostObjective(table, rate, weight=10.0) if choosing else None,
            )
            first += epochs
        return network, table

    def priced(self, method: str) -> tuple[TracedModule, CostTable]:
        """The network with gates, and what its parts cost."""
        options, unit = GATED[method]
        gated = GatePass(hidden=32, multiple=self.backend.target.float32_lanes, seed=self.seed, **options)(self.static)
        # Weights do not matter for what a part costs: seeds share it.
        path = self.folder.parent / "prices" / f"{self.subject.name}-{method.replace(' ', '-')}.json"
        return gated, self.prices(path, gated, unit)

    def with_paths(self, path: Path, gated: TracedModule, table: CostTable, rate: float) -> TracedModule:
        """Chosen once: a training that goes on needs those that it began with."""
        if path.is_file():
            return set_paths(gated, Paths.from_json(json.loads(path.read_bytes())))
        network = with_paths(gated, self.data, table, rate, self.paths)
        found = gates_of(network).paths
        assert found is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(found.to_json()).encode())
        return network

    def gated(self, method: str, main: float, rates: list[float]) -> None:
        """Rows of `GATED`: trained for `main` and served; for other rates gates are fitted again to the same trunk."""
        missing = [rate for rate in rates if rate != main and self.missing(method, rate)]
        if not missing and not self.missing(method, main):
            return
        trained, table = self.trained(method, main)
        if self.missing(method, main):
            network = finish(trained, self.data, table, main)
            folder = self.trainings / method.replace(" ", "-") / str(main)
            result = bundle_gated(network, self.static, self.data, self.backend, folder, images=self.images)
            self.add_gated(method, main, result, {"agreement": agreement(result, self.data, _COMPARED)})
        first = self.rows[self.key(method, main)]
        own = {tuple(path["widths"]): path for path in first["paths"]}
        for rate in missing:
            network = finish(trained, self.data, table, rate)
            paths = gates_of(network).paths
            assert paths is not None
            taken = [own[paths.widths[paths.choose(row)]] for row in saliences(network, self.data.inputs("test"))]
            facts = {name: float(np.mean([path[key] for path in taken])) for name, key in _MEANS}
            facts["mean_ms"] *= as_served(self.rows[self.key(method, main)])
            facts |= {
                key: self.rows[self.key(method, main)][key]
                for key in ("static_ms", "gate_overhead_ms", "gate_overhead_pct")
            }
            self.add(method, rate, accuracy(network.graph_module, self.data, "test"), facts)

    def prices(self, path: Path, gated: TracedModule, unit: str) -> CostTable:
        """Measured once: they differ from run to run, and a training that goes on needs those that it began with."""
        if path.is_file():
            return CostTable.from_json(json.loads(path.read_bytes()))
        table = price_gated(gated, self.static, self.backend, "flops" if unit == "flops" else "ms")
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(table.to_json()).encode())
        return table

    def trained_exits(self) -> Exits:
        """The static network with exits, all of which learn."""
        network = Exits(self.static, self.subject.exits, self.data.class_count)
        self.train(network, self.recipe(self.epochs), "exits.pt", "early-exit")
        return network

    def exits(self, rates: list[float]) -> None:
        """Rows of early exits, left so early that the mean FLOPs are `rates` of all."""
        if missing := [rate for rate in rates if self.missing("early-exit", rate)]:
            own = self.rows[self.key("static", 1.0)]
            found = early_exits(self.trained_exits(), self.data, self.backend, missing)
            for rate, (correct, ms, spent) in zip(missing, found, strict=True):
                self.add("early-exit", rate, correct, {"mean_ms": ms * own["mean_ms"], "mean_flops": spent})

    def peer(self, method: str, rate: float) -> None:
        """What LC-Net is compared with at the same time or cost."""
        own = self.rows.get(self.key("lc-net", rate))
        if own is None or not self.missing(method, rate):
            return
        if method == "mask":
            # The same answers; what takes time is the path that computes everything.
            same = Accuracy(own["correct"], own["images"])
            whole = own["paths"][-1]
            facts = {"mean_ms": whole["ms"] * as_served(own), "mean_flops": whole["flops"]}
            self.add(method, rate, same, facts | {"static_ms": own["static_ms"]})
        elif method == "deadline":
            self.deadline(rate, own)
        elif method == "cut":
            ratio = own["mean_ms"] / own["static_ms"]
            network, ms_ratio = cut_to(self.static, self.data, self.backend, ratio)
            self.train(network.graph_module, self.recipe(self.epochs), f"{network.name.replace('/', '-')}.pt", "cut")
            facts = {"mean_ms": ms_ratio * own["static_ms"], "mean_flops": flops([for_one_input(network)])[0]}
            facts["static_ms"] = own["static_ms"]
            self.add(method, rate, accuracy(network.graph_module, self.data, "test"), facts)
        else:
            # The same trunk; where LC-Net's learned with its gates, trained on as long with paths drawn at random.
            network, _ = self.trained("lc-net", rate, joint=False)
            drawn = at_random(network, {tuple(path["widths"]): path["share"] for path in own["paths"]})
            epochs = dict(self.stages(network)).get("joint", 0)
            if epochs:
                recipe = self.recipe(epochs, self.epochs - epochs, joint=True)
                self.train(drawn.graph_module, recipe, f"random-{rate}.pt", "random")
            facts = {name: own[name] for name in ("mean_ms", "mean_flops", "static_ms")}
            self.add(method, rate, accuracy(drawn.graph_module, self.data, "test"), facts)

    def deadline(self, rate: float, own: dict[str, Any]) -> None:
        """LC-Net with a bound of three quarters of what the static network takes, for each input."""
        trained, table = self.trained("lc-net", rate)
        bound = 0.75 * own["static_ms"]
        bounded = finish(trained, self.data, table, rate, fill=True)
        folder = self.trainings / "deadline" / str(rate)
        result = bundle_gated(
            bounded, self.static, self.data, self.backend, folder, deadline_ms=bound, images=self.images
        )
        inputs = self.data.inputs("test")
        with load(result.bundle) as runtime:
            noise = noise_ms(runtime, inputs[:1])
        over = result.served.ms > bound
        facts: dict[str, Any] = {
            "deadline_ms": bound,
            "timer_noise_ms": noise,
            "over_once": int(over.sum()),
            "over_beyond_noise": int((result.served.ms > bound + noise).sum()),
            **timed_again(result, inputs, over, bound),
        }
        self.add_gated("deadline", rate, result, facts)

    def add_gated(self, method: str, rate: float, result: GatedResult, facts: dict[str, Any]) -> None:
        """A row of a bundle."""
        used = np.array(result.paths.widths)[result.served.paths]
        labels = self.data.labels[self.data.splits["test"]][: len(used)]
        found = result.to_json() | facts | gate_overhead(result)
        found["mean_width_per_class"] = [used[labels == c].mean(0).tolist() for c in np.unique(labels)]
        found["cells"] = [cell.widths[-1] for cell in gates_of(result.traced).slots]
        correct = Accuracy(int(result.served.correct.sum()), len(result.served.correct))
        self.add(method, rate, correct, found)

    def key(self, method: str, rate: float) -> str:
        """Of a row."""
        epochs = f"{self.static_epochs}+{self.epochs}"
        made = f"seed{self.seed}/epochs{epochs}/paths{self.paths}/n{len(self.data.labels)}"
        return f"{self.subject.name}/{method}/{rate}/{made}"

    def missing(self, method: str, rate: float) -> bool:
        """Whether a row has still to be made."""
        return self.key(method, rate) not in self.rows

    def add(self, method: str, rate: float, correct: Accuracy, facts: dict[str, Any]) -> None:
        """Write a row."""
        row: dict[str, Any] = {"network": self.subject.name, "data": self.data.name, "method": method, "rate": rate}
        row |= {"seed": self.seed, "cpu": self.backend.target.cpu_model, **facts}
        row |= {"accuracy": correct.value, "low": correct.low, "high": correct.high}
        row |= {"correct": correct.correct, "images": correct.total, "epochs": [self.static_epochs, self.epochs]}
        row.pop("bundle", None)
        self.rows[self.key(method, rate)] = row
        self.save()
        print(f"{self.key(method, rate)}: {correct.value:.4f}, {facts['mean_ms']:.4f} ms", flush=True)


def as_served(own: dict[str, Any]) -> float:
    """What images took when they were served beside the static network, over what their paths took before that."""
    return own["mean_ms"] / own["estimate"]["expected_ms"]
