"""Training of a gated network in stages: first the layers' gates, then the channels', then both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from netcut_fx.data import Dataset
from netcut_fx.errors import SpecError
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.gate_network import Gates, Stage
from netcut_fx.gating.objective import CostObjective
from netcut_fx.gating.pieces import gates_of
from netcut_fx.graph import TracedModule
from netcut_fx.passes.copying import copy_traced
from netcut_fx.retraining import Progress, RetrainOptions, TrainedCandidate, retrain

#: Epochs of each stage, in order.
Stages = Sequence[tuple[Stage, int]]


def default_stages(gates: Gates, epochs: int) -> Stages:
    """Divide `epochs`: a quarter for the layers, a quarter for the channels, the rest for both together."""
    if gates.l_net is None or gates.c_net is None:
        return (("all", epochs),)
    alone = epochs // 4
    planned: Stages = (("layers", alone), ("channels", alone), ("all", epochs - 2 * alone))
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
    checkpoint_dir : Path, optional
        Where checkpoints are kept.
    progress : callable, optional
        Called with each record of the history.

    Returns
    -------
    TrainedCandidate
        That of the last stage; all gates decide in it.

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
    if not planned or any(stage not in get_args(Stage) or epochs < 1 for stage, epochs in planned):
        raise SpecError(
            f"stages {list(planned)} cannot be trained; give pairs of {', '.join(get_args(Stage))} and epochs from 1 on"
        )
    current, trained = copy_traced(gated), None
    for stage, epochs in planned:
        gates_of(current).stage = stage
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
    gates_of(trained.traced).stage = "all"
    return trained
