"""Whether network and data fit each other, and the key under which a retraining is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from netcut_fx.code_version import sources_digest
from netcut_fx.data import Dataset
from netcut_fx.errors import NetcutError
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.retraining_options import RetrainOptions

#: What decides the numbers; an edit makes old checkpoints belong to another run.
SOURCES = (
    "retraining.py",
    "retraining_options.py",
    "training.py",
    "student.py",
    "augment.py",
    "quick.py",
    "features.py",
    "layout.py",
    "preprocess.py",
    "data.py",
    "evaluate.py",
    "checkpoint.py",
    "passes/head.py",
    "passes/cut.py",
    "pooling.py",
    "channel_axis.py",
    "class_token.py",
    "operation_kinds.py",
)

#: The same for gated networks.
GATING_SOURCES = ("gating/gate_network.py", "gating/gated_cell.py", "gating/objective.py", "gating/staged.py")


def check_fit(trn: TracedModule, dataset: Dataset) -> None:
    """Refuse a network that cannot be trained on this data.

    Raises
    ------
    NetcutError
        If the number of inputs, the size of images or the number of classes differs.
    """
    spec = trn.output.meta["spec"]
    if len(trn.inputs) != 1:
        raise NetcutError(f"{trn.name} has {len(trn.inputs)} inputs; only networks with one image as input are trained")
    wanted, given = trn.input_specs[0].shape[1:], (3, *dataset.preprocess.size)
    if wanted != given:
        raise NetcutError(
            f"{trn.name} reads images of shape {wanted} but {dataset.name} has {given}; load the data with "
            f"--input-size {'x'.join(str(n) for n in wanted[1:])}"
        )
    if not isinstance(spec, TensorSpec) or spec.shape[1:] != (dataset.class_count,):
        raise NetcutError(
            f"{trn.name} yields {spec} but {dataset.name} has {dataset.class_count} classes; "
            f"put a head on it with classes={dataset.class_count}"
        )


def retrain_key(
    trn: TracedModule,
    dataset: Dataset,
    options: RetrainOptions,
    features: NDArray[np.float32] | None,
    objective: Mapping[str, Any] | None = None,
) -> str:
    """Digest of all that decides the result, but for the number of threads, which only changes the last bits."""
    facts: dict[str, Any] = {
        "options": options.to_json(),
        "data": dataset.digest,
        "network": str(trn.graph_module),
        "weights": trn.state_hash(),
        "features": None if features is None else hashlib.sha256(np.ascontiguousarray(features).data).hexdigest(),
        "code": sources_digest(SOURCES),
        "torch": torch.__version__,
    }
    if objective is not None:
        facts["objective"] = objective
        facts["gates"] = sources_digest(GATING_SOURCES)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
