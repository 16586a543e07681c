"""What LC-Net is compared with: a static cut, paths at random, early exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from netcut_fx.backends.base import Backend
from netcut_fx.cutting import cut
from netcut_fx.data import Dataset
from netcut_fx.evaluate import Accuracy, predict_logits
from netcut_fx.frontier import frontiers
from netcut_fx.gating.paths import gates_of_widths
from netcut_fx.gating.pieces import gates_of
from netcut_fx.gating.pricing import flops, for_one_input
from netcut_fx.graph import TracedModule
from netcut_fx.measure import Stopwatch
from netcut_fx.passes import copy_traced
from netcut_fx.passes.head import HeadPass
from netcut_fx.prediction import softmax
from netcut_fx.retraining import RetrainOptions, retrain

WATCH = Stopwatch(repeat=25, min_repeat_ms=5.0)


def cut_to(static: TracedModule, data: Dataset, backend: Backend, ratio: float) -> tuple[TracedModule, float]:
    """The deepest block cut, with a new head, that takes at most `ratio` of the static network (or the shortest cut).

    Returns
    -------
    tuple
        The cut, untrained, and its time as a share of the static network's.
    """
    whole = backend.compile(for_one_input(static)).timer()
    chosen, share = None, float("inf")
    for frontier in reversed(frontiers(static)):
        chosen = cut(static, frontier.name, head=HeadPass(data.class_count, "linear"))
        timer = backend.compile(for_one_input(chosen)).timer()
        all_ms, ms = (measured.min_ms for measured in WATCH.measure_interleaved([whole, timer]))
        share = ms / all_ms
        if share <= ratio:
            break
    assert chosen is not None
    return chosen, share


class _Drawn(nn.Module):
    """Saliences that know nothing of the input: those of one of some paths."""

    def __init__(self, gates: Tensor, shares: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("gates", gates)
        self.register_buffer("shares", torch.tensor(list(shares)))

    def pooled(self, early: Tensor) -> Tensor:
        """As a gate network."""
        return early

    def forward(self, early: Tensor) -> tuple[Tensor, Tensor]:
        """Saliences, and scales of one."""
        path = torch.multinomial(self.get_buffer("shares"), len(early), replacement=True)
        # Far from zero, so that the noise of training decides nothing.
        saliences = self.get_buffer("gates")[path] * 100 - 50
        return saliences, torch.ones_like(saliences)


def at_random(network: TracedModule, share_of: Mapping[tuple[int, ...], float]) -> TracedModule:
    """Copy a gated network; it takes each of its paths as often as `share_of` says, whatever the input."""
    drawn = copy_traced(network)
    gates = gates_of(drawn)
    assert gates.paths is not None
    shares = [share_of.get(widths, 0.0) for widths in gates.paths.widths]
    every = gates_of_widths(gates.slots, gates.paths.widths, gates.total)
    gates.l_net = _Drawn(torch.from_numpy(every), shares)  # pyright: ignore[reportAttributeAccessIssue]
    gates.c_net = None
    return drawn


def early_exit(
    static: TracedModule, data: Dataset, backend: Backend, places: tuple[str, ...], rate: float
) -> tuple[Accuracy, float, float]:
    """Heads behind some blocks of the frozen network, left where the answer is sure (Teerapittayanon et al., 2016).

    The threshold is chosen on validation so that the mean FLOPs are `rate` of all. What an exit costs is the network up
    to it; heads that were passed in vain are not counted, in favour of this method.

    Returns
    -------
    tuple
        Accuracy on test, mean ms, mean FLOPs.
    """
    options = RetrainOptions(epochs=0, head_epochs=60)
    exits = [
        retrain(cut(static, place, head=HeadPass(data.class_count)), data, options=options).traced for place in places
    ]
    networks = [for_one_input(network) for network in (*exits, static)]
    spent = np.array(flops(networks))
    ms = np.array(
        [m.min_ms for m in WATCH.measure_interleaved([backend.compile(network).timer() for network in networks])]
    )
    validation, test = (
        [predict_logits(n.graph_module, data.inputs(split_name)) for n in (*exits, static)]
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
