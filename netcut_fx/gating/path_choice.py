"""Which few paths of a gated network are compiled: spread over costs, each the least harmful one of its cost.

They are chosen before training, from what leaving out each part alone does to the warm network. A network whose gates
may choose anything learns to make one choice for all inputs; one that is trained on a few paths from the first step on
has these to choose from at the end.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from netcut_fx.data import Dataset
from netcut_fx.errors import BudgetError
from netcut_fx.evaluate import predict_logits
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.path_norm import give_path_norms
from netcut_fx.gating.paths import Paths, gates_of_widths
from netcut_fx.gating.pieces import cells_of, gates_of
from netcut_fx.graph import TracedModule
from netcut_fx.passes.copying import copy_traced

#: What each width of each cell costs in cross-entropy.
Harms = Sequence[Mapping[int, float]]

#: Images that say what harms.
_ASKED = 500
#: Images at a time: enough for statistics.
_BATCH = 125
#: Costs are told apart to this share of the full one.
_STEPS = 400
#: The cheapest path takes about so much of the target.
_BELOW_TARGET = 0.75


def with_paths(
    gated: TracedModule, dataset: Dataset, table: CostTable, rate: float, count: int, *, budget: int | None = None
) -> TracedModule:
    """Copy a gated network and set the paths that it chooses from.

    Parameters
    ----------
    gated : TracedModule
        With gates; trained as the network that it was made from.
    dataset : Dataset
        Some of its training images say what harms.
    table : CostTable
        Costs of single cells.
    rate : float
        Of the full cost, that inputs shall cost on average.
    count : int
        How many paths at most, two or more.
    budget : int, optional
        What none may cost.
    """
    rows = some_rows(dataset, _ASKED)
    inputs = dataset.preprocess.normalise(dataset.images[rows])
    harms = harms_of_widths(gated, inputs, dataset.labels[rows], table)
    widths = choose_paths(harms, table, rate, count, budget=budget)
    return set_paths(gated, Paths(gates_of(gated).slots, widths, tuple(map(table.total, widths))))


def some_rows(dataset: Dataset, count: int) -> NDArray[np.int64]:
    """At most `count` of the training images, always the same ones, of all classes: many data sets are sorted."""
    return np.random.default_rng(0).permutation(dataset.splits["train"])[:count]


def set_paths(gated: TracedModule, paths: Paths) -> TracedModule:
    """Copy a gated network without paths; it chooses from `paths`, each with batch-norms of its own."""
    network = copy_traced(gated)
    gates_of(network).paths = paths
    for cell in cells_of(network):
        give_path_norms(cell.body, len(paths.widths))
    return network


def choose_paths(
    harms: Harms, table: CostTable, rate: float, count: int, *, budget: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """The least harmful choices within `count` costs, from somewhat below the target to everything, or the budget.

    Parameters
    ----------
    harms : sequence of mappings of int to float
        What each width of each cell harms alone; sums are taken to tell what several do.
    table, rate, count, budget
        See `with_paths`.

    Raises
    ------
    BudgetError
        If `count` is below two.
    """
    if count < 2:
        raise BudgetError(f"{count} paths leave nothing to decide; give 2 or more")
    most = table.full if budget is None else min(budget, table.full)
    # Inputs that take less than the target make room for those that need more.
    least = min(max(_cheapest(table), round(_BELOW_TARGET * rate * table.full)), most)
    limits = np.geomspace(max(least, 1), max(most, 1), count)
    chosen = dict.fromkeys(_least_harmful(harms, table, [round(limit) for limit in limits]))
    return tuple(sorted(chosen, key=lambda one: (table.total(one), one)))


def _least_harmful(harms: Harms, table: CostTable, limits: Sequence[int]) -> list[tuple[int, ...]]:
    """For each limit, the widths with the smallest sum of harms that cost no more: a knapsack, costs in whole units."""
    base = _cheapest(table)
    unit = max(1, (table.full - base) // _STEPS)
    # Beyond the cheapest choice, rounded up: no limit is exceeded.
    extra = [{w: -(-(c - min(costs.values())) // unit) for w, c in costs.items()} for costs in table.cells]
    room = max(0, (max(limits) - base) // unit)
    best = np.zeros(room + 1)
    taken: list[NDArray[np.int64]] = []
    for harm, costs in zip(harms, extra, strict=True):
        found = np.full(room + 1, np.inf)
        choice = np.zeros(room + 1, np.int64)
        for width, cost in sorted(costs.items()):
            if cost > room:
                continue
            reached = np.full(room + 1, np.inf)
            reached[cost:] = best[: room + 1 - cost] + harm[width]
            better = reached < found
            found[better], choice[better] = reached[better], width
        best = found
        taken.append(choice)
    paths: list[tuple[int, ...]] = []
    for limit in limits:
        left, widths = min(room, max(0, (limit - base) // unit)), list[int]()
        for choice, costs in zip(reversed(taken), reversed(extra), strict=True):
            widths.append(int(choice[left]))
            left -= costs[widths[-1]]
        paths.append(tuple(reversed(widths)))
    full = tuple(max(costs) for costs in table.cells)
    # Rounding up would leave out the path that keeps all where there is just room for it.
    return [full if table.full <= limit else path for limit, path in zip(limits, paths, strict=True)]


def _cheapest(table: CostTable) -> int:
    """Of all choices; by what was measured, less may cost more."""
    return table.always + sum(min(costs.values()) for costs in table.cells)


def harms_of_widths(
    gated: TracedModule, inputs: NDArray[np.float32], labels: NDArray[np.int64], table: CostTable
) -> list[dict[int, float]]:
    """How much each width of each cell alone adds to the cross-entropy of `inputs`; never less than nothing.

    Batch-norms go by what reaches them, as they will once each path has its own: statistics that were kept from the
    whole network can make a narrow cell look worse than one that is left out.
    """
    full = tuple(max(costs) for costs in table.cells)

    def loss(widths: Sequence[int]) -> float:
        return float(losses_on_path(gated, widths, inputs, labels).mean())

    found: list[dict[int, float]] = []
    with statistics_of_inputs(gated.graph_module):
        whole = loss(full)
        for number, costs in enumerate(table.cells):
            less = [width for width in sorted(costs) if width < full[number]]
            harms = {width: max(0.0, loss((*full[:number], width, *full[number + 1 :])) - whole) for width in less}
            found.append(harms | {full[number]: 0.0})
    return found


def losses_on_path(
    gated: TracedModule, widths: Sequence[int], inputs: NDArray[np.float32], labels: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Cross-entropy (N,) of inputs that all take one path, in evaluation mode."""
    with on_path(gated, widths):
        logits = torch.from_numpy(predict_logits(gated.graph_module, inputs, batch=_BATCH))
    return F.cross_entropy(logits, torch.from_numpy(labels), reduction="none").numpy()


@contextmanager
def statistics_of_inputs(module: nn.Module) -> Generator[None]:
    """Let batch-norms of `module` normalise by the batch, in evaluation mode too, and remember nothing of it."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    kept = [(norm.running_mean, norm.running_var) for norm in norms]
    try:
        for norm in norms:
            norm.running_mean = norm.running_var = None
        yield
    finally:
        for norm, (mean, var) in zip(norms, kept, strict=True):
            norm.running_mean, norm.running_var = mean, var


@contextmanager
def on_path(gated: TracedModule, widths: Sequence[int]) -> Generator[None]:
    """Let all inputs take one path meanwhile; scales stay the gate networks'."""
    gates = gates_of(gated)
    row = torch.from_numpy(gates_of_widths(gates.slots, [tuple(widths)], gates.total)[0])
    path = torch.tensor([-1.0 if gates.paths is None else gates.paths.number(widths)])

    def replaced(_module: object, _given: object, decisions: torch.Tensor) -> torch.Tensor:
        ends = [t.expand(len(decisions), -1) for t in (row, path)]
        return torch.cat([ends[0], decisions[:, gates.total : -1], ends[1]], 1)

    hook = gates.register_forward_hook(replaced)
    try:
        yield
    finally:
        hook.remove()
