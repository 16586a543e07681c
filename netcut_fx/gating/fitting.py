"""Gate networks learn which path is worth its cost for which input, while the trunk stands still.

Once the loss of each input on each path is known, choosing is a small problem of its own: the gate networks minimise
the expected loss plus a price for what the path costs. The price rises while inputs cost more than the target on
average and falls while they cost less. At the end all saliences are moved by the cost of their step, so far that unseen
inputs meet the target: a step is then taken where it gains more than it costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from netcut_fx.data import Dataset
from netcut_fx.errors import NetcutError
from netcut_fx.evaluate import predict_logits
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.gate_network import GateNet, Gates
from netcut_fx.gating.path_choice import losses_on_path, some_rows
from netcut_fx.gating.paths import Paths
from netcut_fx.gating.pieces import gates_of
from netcut_fx.graph import TracedModule
from netcut_fx.passes.copying import copy_traced

#: How fast the price follows.
_PRICE_STEP = 0.05
#: Scales were trained with the trunk and shall stay as they are.
_SCALES_STAY = 10.0


@dataclass(frozen=True)
class FitOptions:
    """How gate networks are fitted.

    Parameters
    ----------
    images : int
        Training images at most.
    epochs : int
        Passes over them; they see features, not images.
    batch_size : int
        Images of a step.
    lr : float
        Of Adam.
    seed : int
        Of the first weights and the order.
    """

    images: int = 10_000
    epochs: int = 15
    batch_size: int = 256
    lr: float = 3e-3
    seed: int = 0


def fit_gates(
    gated: TracedModule, dataset: Dataset, table: CostTable, rate: float, options: FitOptions | None = None
) -> TracedModule:
    """Copy a gated network with paths and teach its gates to choose between them.

    Parameters
    ----------
    gated : TracedModule
        With paths.
    dataset : Dataset
        Training images teach, validation images say what inputs cost.
    table : CostTable
        In which `rate` is a share of the full cost.
    rate : float
        Mean cost that is aimed at; the cheapest path where it is below that.
    options : FitOptions, optional
        Default: ``FitOptions()``.
    """
    chosen = options or FitOptions()
    network = copy_traced(gated)
    gates = gates_of(network)
    if gates.paths is None:
        raise NetcutError(f"{network.name} has no paths to choose from; set them with with_paths")
    rows = some_rows(dataset, chosen.images)
    inputs = dataset.preprocess.normalise(dataset.images[rows])
    losses = np.stack([losses_on_path(network, one, inputs, dataset.labels[rows]) for one in gates.paths.widths], 1)
    shares = torch.tensor(gates.paths.costs, dtype=torch.float32) / table.full
    _fit(gates, pooled_features(network, inputs), torch.from_numpy(losses), shares, rate, chosen)
    _meet(gates, gates.paths, pooled_features(network, dataset.inputs("validation")), table, rate)
    return network


def pooled_features(gated: TracedModule, inputs: NDArray[np.float32]) -> Tensor:
    """What the gate networks read of inputs (N, ...), pooled as they do first."""
    gates, found = gates_of(gated), list[Tensor]()
    hook = gates.register_forward_pre_hook(lambda _, given: found.append(gates.pooled(given[0])))
    try:
        predict_logits(gated.graph_module, inputs)
    finally:
        hook.remove()
    return torch.cat(found)


def saliences(gated: TracedModule, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the gate networks say about inputs (N, ...): ``(N, total)``, in evaluation mode."""
    return _saliences(gates_of(gated), pooled_features(gated, inputs)).numpy()


def _saliences(gates: Gates, pooled: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([gates.from_pooled(part)[:, : gates.total] for part in pooled.split(1000)])


def _fit(gates: Gates, pooled: Tensor, losses: Tensor, shares: Tensor, rate: float, options: FitOptions) -> None:
    paths = gates.paths
    assert paths is not None
    nets = [net for net in (gates.l_net, gates.c_net) if net is not None]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(options.seed)
        for net in nets:
            _begin(net)
        with torch.no_grad():
            before = torch.cat([gates.from_pooled(part)[:, gates.total :] for part in pooled.split(1000)])
        parameters = [p for net in nets for p in net.parameters()]
        optimizer = torch.optim.Adam(parameters, options.lr)
        steps = options.epochs * -(-len(pooled) // options.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        price = 1.0
        for _ in range(options.epochs):
            for rows in torch.randperm(len(pooled)).split(options.batch_size):
                raw = gates.from_pooled(pooled[rows])
                likely = torch.softmax(gates.scores(raw[:, : gates.total], paths), 1)
                cost = (likely * shares).sum(1).mean()
                loss = (likely * losses[rows]).sum(1).mean() + price * cost
                if gates.scales:
                    loss = loss + _SCALES_STAY * F.mse_loss(raw[:, gates.total :], before[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                price = min(1e4, max(1e-4, price * float(torch.exp(_PRICE_STEP * (cost.detach() - rate) / rate))))
    for parameter in parameters:
        parameter.grad = None


def _begin(net: GateNet) -> None:
    """All paths alike at first, for gates that are all open leave nothing to learn from."""
    if bool((net.salience.weight == 0).all()):
        nn.init.normal_(net.salience.weight, std=0.01)
        nn.init.zeros_(net.salience.bias)


def _meet(gates: Gates, paths: Paths, pooled: Tensor, table: CostTable, rate: float) -> None:
    """Move all saliences by the cost of their step, so far that `pooled` costs `rate` on average, or just less."""
    with torch.no_grad():
        found = _saliences(gates, pooled)
        costs, step = torch.tensor(paths.costs, dtype=torch.float64), step_costs(table, gates.total)

        def mean_cost(price: float) -> float:
            chosen = gates.scores(found - price * step, paths).argmax(1)
            return float(costs[chosen].mean())

        target = rate * table.full
        low, high = -1.0, 1.0
        while mean_cost(high) > target and high < 1e6:
            high *= 4
        while mean_cost(low) < target and low > -1e6:
            low *= 4
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if mean_cost(middle) > target else (low, middle)
        # A little more, for an input at the very border may fall to either side when it is computed again.
        high += 1e-3 * max(1.0, abs(high))
        nets, start = (gates.l_net, gates.c_net), 0
        for net in nets:
            if net is not None:
                count = net.salience.out_features
                net.salience.bias.sub_(high * step[start : start + count])
                start += count


def step_costs(table: CostTable, total: int) -> Tensor:
    """What the step of each salience costs, as a share of the full cost ``(total,)``."""
    found = torch.zeros(total)
    for costs, slots in zip(table.cells, table.slots, strict=True):
        widths = sorted(costs)
        for before, after, column in zip(widths, widths[1:], slots.columns, strict=False):
            found[column] = (costs[after] - costs[before]) / table.full
    return found
