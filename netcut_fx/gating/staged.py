"""Training of a gated network in stages: the trunk on all its paths, the gates between them, then both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from netcut_fx.data import Dataset
from netcut_fx.errors import SpecError
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.fitting import fit_gates
from netcut_fx.gating.gate_network import Gates
from netcut_fx.gating.gate_network import Stage as Deciding
from netcut_fx.gating.objective import CostObjective
from netcut_fx.gating.path_choice import with_paths
from netcut_fx.gating.pieces import gates_of
from netcut_fx.graph import TracedModule
from netcut_fx.passes.copying import copy_traced
from netcut_fx.retraining import Progress, RetrainOptions, retrain

#: In ``layers``, ``channels`` and ``paths`` every input takes any path, of which only the layers left out, only the
#: channels, or both count. In ``joint`` the gates choose.
Stage = Literal["layers", "channels", "paths", "joint"]
#: Epochs of each stage, in order.
Stages = Sequence[tuple[Stage, int]]

_STAGES: tuple[Stage, ...] = get_args(Stage)
#: Share of the inputs that take any path while the gates choose: paths that are not chosen yet have to stay as good.
_EXPLORED = 0.25


def default_stages(gates: Gates, epochs: int) -> Stages:
    """Divide `epochs`: an eighth for the layers, an eighth for the channels, a half for whole paths, the rest joint."""
    part = epochs // 8
    both = gates.l_net is not None and gates.c_net is not None
    joint = epochs // 4
    first: Stages = (("layers", part), ("channels", part)) if both else ()
    planned: Stages = (*first, ("paths", epochs - joint - 2 * part * both), ("joint", joint))
    return tuple(stage for stage in planned if stage[1])


def prepare_stage(gated: TracedModule, dataset: Dataset, table: CostTable, rate: float, stage: Stage) -> TracedModule:
    """Copy a network with paths and make it ready to be trained in `stage`."""
    joint = stage == "joint"
    network = fit_gates(gated, dataset, table, rate) if joint else copy_traced(gated)
    gates = gates_of(network)
    deciding: Deciding = "all" if stage in ("paths", "joint") else stage
    gates.stage, gates.explore = deciding, _EXPLORED if joint else 1.0
    return network


def train_gated(
    gated: TracedModule,
    dataset: Dataset,
    table: CostTable,
    rate: float,
    *,
    options: RetrainOptions | None = None,
    stages: Stages | None = None,
    weight: float = 2.0,
    paths: int = 6,
    budget: int | None = None,
    fill: bool = False,
    checkpoint_dir: Path | None = None,
    progress: Progress | None = None,
) -> TracedModule:
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
        Of the cost in the loss, while the gates choose.
    paths : int
        How many at most; see `netcut_fx.gating.path_choice.choose_paths`.
    budget, fill
        What no path may cost, and whether it is spent on what the gates would leave out.
    checkpoint_dir : Path, optional
        Where checkpoints are kept.
    progress : callable, optional
        Called with each record of the history.

    Returns
    -------
    TracedModule
        With the weights of the last stage, its gates fitted to the trained trunk.

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
    current = with_paths(gated, dataset, table, rate, paths, budget=budget)
    for stage, epochs in planned:
        current = retrain(
            prepare_stage(current, dataset, table, rate, stage),
            dataset,
            options=replace(chosen, epochs=epochs, head_epochs=0),
            checkpoint_dir=checkpoint_dir,
            progress=progress,
            # Without a weight it only says that the last epoch counts, not the best one with all gates open.
            objective=objective if stage == "joint" else replace(objective, weight=0.0),
        ).traced
    return finish(current, dataset, table, rate, fill=fill and budget is not None)


def finish(gated: TracedModule, dataset: Dataset, table: CostTable, rate: float, *, fill: bool = False) -> TracedModule:
    """Copy a network whose trunk is trained, fit its gates, and let them alone decide."""
    network = fit_gates(gated, dataset, table, rate)
    gates = gates_of(network)
    gates.stage, gates.explore, gates.fill = "all", 0.0, fill
    return network
