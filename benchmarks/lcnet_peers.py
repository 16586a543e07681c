"""What LC-Net is compared with: a static cut, gates at random, early exits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from netcut_fx.backends.base import Backend
from netcut_fx.cutting import cut
from netcut_fx.data import Dataset
from netcut_fx.evaluate import Accuracy, predict_logits
from netcut_fx.frontier import frontiers
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.pieces import gates_of, split
from netcut_fx.gating.pricing import cost_table, flops
from netcut_fx.graph import TracedModule
from netcut_fx.measure import Stopwatch
from netcut_fx.passes import copy_traced
from netcut_fx.passes.head import HeadPass
from netcut_fx.prediction import softmax
from netcut_fx.retraining import RetrainOptions, TrainedCandidate, retrain

WATCH = Stopwatch(repeat=9, min_repeat_ms=5.0)


def cut_to(
    static: TracedModule, data: Dataset, backend: Backend, ms: float, options: RetrainOptions, folder: Path
) -> tuple[TrainedCandidate, float]:
    """The deepest block cut that takes at most `ms` (or the shortest there is), retrained; and what it takes."""
    head = HeadPass(data.class_count, "linear")
    chosen, taken = None, float("inf")
    for frontier in reversed(frontiers(static)):
        chosen = cut(static, frontier.name, head=head)
        taken = WATCH.measure_timer(backend.compile(chosen).timer()).ms
        if taken <= ms:
            break
    assert chosen is not None
    return retrain(chosen, data, options=replace(options, head_epochs=20), checkpoint_dir=folder), taken


class AtRandom(nn.Module):
    """Saliences that know nothing of the input; each is positive with the same probability."""

    def __init__(self, outputs: int, keep: float) -> None:
        super().__init__()
        self.outputs, self.keep = outputs, keep

    def forward(self, early: Tensor) -> tuple[Tensor, Tensor]:
        """Saliences, and scales of one."""
        drawn = torch.rand(len(early), self.outputs)
        # Far from zero, so that the noise of training decides nothing.
        return torch.where(drawn < self.keep, 50.0, -50.0), torch.ones_like(drawn)


def at_random(
    gated: TracedModule, data: Dataset, rate: float, options: RetrainOptions, folder: Path
) -> tuple[Accuracy, float]:
    """Train and evaluate with gates at random whose mean cost is `rate` of all; accuracy and mean FLOPs."""
    table = cost_table(split(gated), flops, unit="flops")
    keep = _probability(table, rate)
    network = copy_traced(gated)
    gates = gates_of(network)
    gates.l_net = AtRandom(gates.layers, keep)  # pyright: ignore[reportAttributeAccessIssue]
    gates.c_net = AtRandom(gates.grouped * gates.groups, keep)  # pyright: ignore[reportAttributeAccessIssue]
    gates.eval()
    return retrain(network, data, options=options, checkpoint_dir=folder).test, _mean_cost(table, keep)


def _mean_cost(table: CostTable, keep: float) -> float:
    drawn = np.random.default_rng(0).random((500, 1 + max(c for s in table.slots for c in s.columns)))
    return float(np.mean([table.total(table.choose(np.where(row < keep, 1.0, -1.0))) for row in drawn]))


def _probability(table: CostTable, rate: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_cost(table, middle) < rate * table.full else (low, middle)
    return (low + high) / 2


def early_exit(
    static: TracedModule,
    data: Dataset,
    backend: Backend,
    places: tuple[str, ...],
    rate: float,
    options: RetrainOptions,
    folder: Path,
) -> tuple[Accuracy, float, float]:
    """Heads behind some blocks of the frozen network, left where the answer is sure (Teerapittayanon et al., 2016).

    The threshold is chosen on validation so that the mean FLOPs are `rate` of all. What an exit costs is the network up
    to it; heads that were passed in vain are not counted, in favour of this method.

    Returns
    -------
    tuple
        Accuracy on test, mean ms, mean FLOPs.
    """
    exits = [
        retrain(
            cut(static, place, head=HeadPass(data.class_count)),
            data,
            options=replace(options, epochs=0, head_epochs=60),
            checkpoint_dir=folder / place,
        ).traced
        for place in places
    ]
    networks = [*exits, static]
    spent = np.array([flops(n) for n in networks])
    ms = np.array([WATCH.measure_timer(backend.compile(n).timer()).ms for n in networks])
    validation, test = (
        [predict_logits(n.graph_module, data.inputs(split_name)) for n in networks]
        for split_name in ("validation", "test")
    )
    thresholds = np.linspace(0.3, 1.0, 141)
    costs = [spent[_taken(validation, t)].mean() for t in thresholds]
    threshold = thresholds[int(np.argmin(np.abs(np.array(costs) - rate * spent[-1])))]
    taken = _taken(test, threshold)
    answers = np.stack([logits.argmax(1) for logits in test])[taken, np.arange(len(taken))]
    labels = data.labels[data.splits["test"]]
    accuracy = Accuracy(int((answers == labels).sum()), len(labels))
    return accuracy, float(ms[taken].mean()), float(spent[taken].mean())


def _taken(logits: list[np.ndarray], threshold: float) -> np.ndarray:
    """The first exit that is sure enough, else the last."""
    sure = np.stack([softmax(part).max(1) >= threshold for part in logits])
    sure[-1] = True
    return sure.argmax(0)
