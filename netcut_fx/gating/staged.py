"""Training of a gated network in stages: the layers' gates, the channels', both, and at last between whole paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netcut_fx.data import Dataset
from netcut_fx.errors import SpecError
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.gate_network import Gates, Stage
from netcut_fx.gating.objective import CostObjective
from netcut_fx.gating.paths import Paths, pick_paths
from netcut_fx.gating.pieces import gates_of
from netcut_fx.graph import TracedModule
from netcut_fx.passes.copying import copy_traced
from netcut_fx.retraining import Progress, RetrainOptions, TrainedCandidate, retrain

#: Epochs of each stage, in order. Before the stage ``paths`` the paths are picked, and only they can be chosen then.
Stages = Sequence[tuple[Stage | Literal["paths"], int]]
#: Training images whose choices say which paths are picked.
_ASKED = 2000

_STAGES = (*get_args(Stage), "paths")


def default_stages(gates: Gates, epochs: int) -> Stages:
    """Divide `epochs`: a quarter for the layers, a quarter for the channels, a quarter for both, the rest for paths."""
    part = epochs // 4
    if gates.l_net is None or gates.c_net is None:
        planned: Stages = (("all", epochs - epochs // 3), ("paths", epochs // 3))
    else:
        planned = (("layers", part), ("channels", part), ("all", epochs - 3 * part), ("paths", part))
    return tuple(stage for stage in planned if stage[1])


def train_gated(
    gated: TracedModule,
    dataset: Dataset,
    table: CostTable,
    rate: float,
    *,
    options: RetrainOptions | None = None,
    stages: Stages | None = None,
    weight: float = 2.0,
    paths: int = 8,
    budget: int | None = None,
    fill: bool = False,
    checkpoint_dir: Path | None = None,
    progress: Progress | None = None,
) -> TrainedCandidate:
    """Train a copy of `gated` towards an expected cost, from the weights that it has.

    Each stage is a retraining with its own schedule (`netcut_fx.retraining.retrain`), resumes as such, and starts from
    the weights of the stage before. The trunk learns along: it has to get used to what is missing.

    Parameters
    ----------
    gated : TracedModule
        With a head for the classes of `dataset`; its trunk pretrained.
    dataset : Dataset
        At the size that the network reads.
    table : CostTable
        Costs in ms, or FLOPs.
    rate : float
        Target as a share of what the network costs with all gates open, in (0, 1].
    options : RetrainOptions, optional
        Of each stage; `epochs` is that of all together unless `stages` are given.
    stages : sequence of (stage, epochs), optional
        Default: `default_stages`.
    weight : float
        Of the cost in the loss.
    paths : int
        How many at most; see `netcut_fx.gating.paths.pick_paths`.
    budget, fill
        What no path may cost, and whether it is spent; see `CostTable.choose`.
    checkpoint_dir : Path, optional
        Where checkpoints are kept.
    progress : callable, optional
        Called with each record of the history.

    Returns
    -------
    TrainedCandidate
        That of the last stage; all gates decide in it, and its paths are set.

    Raises
    ------
    BudgetError
        If the target is outside its range.
    SpecError
        If there is no stage, or one is not known.
    """
    objective = CostObjective(table, rate, weight)
    chosen = options or RetrainOptions(head_epochs=0)
    planned = default_stages(gates_of(gated), chosen.epochs) if stages is None else tuple(stages)
    if not planned or any(stage not in _STAGES or epochs < 1 for stage, epochs in planned):
        raise SpecError(
            f"stages {list(planned)} cannot be trained; give pairs of {', '.join(_STAGES)} and epochs from 1 on"
        )
    current, trained = copy_traced(gated), None
    for stage, epochs in planned:
        if stage == "paths":
            current = with_paths(current, dataset, table, paths, budget=budget, fill=fill)
        gates_of(current).stage = "all" if stage == "paths" else stage
        trained = retrain(
            current,
            dataset,
            options=replace(chosen, epochs=epochs, head_epochs=0),
            checkpoint_dir=checkpoint_dir,
            progress=progress,
            objective=objective,
        )
        current = trained.traced
    assert trained is not None
    gates = gates_of(trained.traced)
    gates.stage = "all"
    if gates.paths is None:
        picked = gates_of(with_paths(trained.traced, dataset, table, paths, budget=budget, fill=fill))
        gates.paths, gates.fill = picked.paths, picked.fill
    return trained


def with_paths(
    gated: TracedModule,
    dataset: Dataset,
    table: CostTable,
    count: int,
    *,
    budget: int | None = None,
    fill: bool = False,
) -> TracedModule:
    """Copy a gated network and let it choose between `count` paths: those most wanted for some training images."""
    network = copy_traced(gated)
    gates = gates_of(network)
    inputs = dataset.preprocess.normalise(dataset.images[dataset.splits["train"]][:_ASKED])
    wanted = [table.choose(row, budget, fill=fill) for row in saliences(network, inputs)]
    widths = pick_paths(wanted, table, count, budget=budget)
    gates.paths, gates.fill = Paths(gates.slots, widths, tuple(map(table.total, widths))), fill and budget is not None
    return network


def saliences(gated: TracedModule, inputs: NDArray[np.float32], batch: int = 250) -> NDArray[np.float32]:
    """What the gate networks say about inputs (N, ...): ``(N, total)``, in evaluation mode."""
    gates, found = gates_of(gated), list[Tensor]()
    hook = gates.register_forward_pre_hook(lambda _, given: found.append(gates.raw(given[0])[:, : gates.total]))
    gated.graph_module.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(inputs), batch):
                gated.graph_module(torch.from_numpy(inputs[start : start + batch]))
    finally:
        hook.remove()
    return torch.cat(found).numpy()
