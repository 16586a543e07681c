"""What LC-Net is compared with: a static cut, paths at random, early exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netcut_fx.backends.base import Backend
from netcut_fx.cutting import cut
from netcut_fx.data import Dataset
from netcut_fx.evaluate import Accuracy, predict_logits
from netcut_fx.frontier import find_frontier, frontiers
from netcut_fx.gating.paths import gates_of_widths
from netcut_fx.gating.pieces import gates_of
from netcut_fx.gating.pricing import flops, for_one_input
from netcut_fx.graph import TracedModule
from netcut_fx.measure import Stopwatch
from netcut_fx.passes import copy_traced
from netcut_fx.passes.head import HeadPass
from netcut_fx.prediction import softmax
from netcut_fx.tracing import trace

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


class Exits(nn.Module):
    """A network with a convolution and a layer as exits behind some blocks; answers are those of exits, then its own.

    As in Teerapittayanon et al., "BranchyNet" (ICPR 2016, arXiv 1709.01686).

    Parameters
    ----------
    static : TracedModule
        Is copied.
    places : tuple of str
        Names of frontiers with one tensor, in order.
    classes : int
        How many.
    """

    def __init__(self, static: TracedModule, places: tuple[str, ...], classes: int) -> None:
        super().__init__()
        by_name = {node.name: node for node in static.nodes}
        nodes = [by_name[find_frontier(static, place).nodes[0]] for place in places]
        self.trunk = copy_traced(static, result=(*nodes, static.output.args[0]))
        self.network = self.trunk.graph_module
        self.heads = nn.ModuleList(_exit(node.meta["spec"].shape[1], classes) for node in nodes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of each exit and of the network."""
        *crossing, logits = self.network(x)
        return (*(head(value) for head, value in zip(self.heads, crossing, strict=True)), logits)

    def ways(self) -> list[TracedModule]:
        """For each exit and the end, what an image runs that leaves there; other exits are not counted."""
        outputs: Any = self.trunk.output.args[0]
        parts = [copy_traced(self.trunk, result=output).graph_module for output in outputs]
        image = torch.zeros(1, *self.trunk.input_specs[0].shape[1:])
        ways = [nn.Sequential(part, head) for part, head in zip(parts, self.heads, strict=False)]
        return [trace(way.eval(), image, name=f"exit{i}") for i, way in enumerate([*ways, parts[-1]])]


def _exit(channels: int, classes: int, width: int = 64) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 3, 2, 1, bias=False)
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(), *pool, nn.Linear(width, classes))


def early_exits(
    network: Exits, data: Dataset, backend: Backend, rates: Sequence[float]
) -> list[tuple[Accuracy, float, float]]:
    """What trained exits do where an image leaves as soon as an answer is sure.

    Thresholds are chosen on validation so that the mean FLOPs are `rates` of all. An image pays for the network up to
    where it leaves; exits that were passed in vain are not counted, in favour of this method.

    Returns
    -------
    list of tuples
        For each rate the accuracy on test, mean ms as a share of the whole network, mean FLOPs.
    """
    ways = network.ways()
    spent = np.array(flops(ways))
    timed = WATCH.measure_interleaved([backend.compile(way).timer() for way in ways])
    ms = np.array([measured.min_ms for measured in timed]) / timed[-1].min_ms
    validation, test = (
        [predict_logits(way.graph_module, data.inputs(split)) for way in ways] for split in ("validation", "test")
    )
    labels = data.labels[data.splits["test"]]
    thresholds = np.linspace(0.3, 1.0, 281)
    costs = np.array([spent[_taken(validation, t)].mean() for t in thresholds])
    found: list[tuple[Accuracy, float, float]] = []
    for rate in rates:
        taken = _taken(test, thresholds[int(np.argmin(np.abs(costs - rate * spent[-1])))])
        answers = np.stack([logits.argmax(1) for logits in test])[taken, np.arange(len(taken))]
        right = Accuracy(int((answers == labels).sum()), len(labels))
        found.append((right, float(ms[taken].mean()), float(spent[taken].mean())))
    return found


def _taken(logits: list[np.ndarray], threshold: float) -> np.ndarray:
    """The first exit that is sure enough, else the last."""
    sure = np.stack([softmax(part).max(1) >= threshold for part in logits])
    sure[-1] = True
    return sure.argmax(0)
