"""netcut_fx: trim a pretrained network until it answers before a deadline, and compile it with TVM.

The verbs, in the order in which they are used::

    traced = netcut_fx.trace(model, example_inputs)
    found = netcut_fx.frontiers(traced)
    trn = netcut_fx.cut(traced, found[5], head=netcut_fx.HeadPass(classes=10))
    profile = netcut_fx.profile_network(netcut_fx.tvm_backend(), trn, database=None)
    estimate = netcut_fx.estimate(trn, model=netcut_fx.LatencyModel.of_calibration(profile.calibration))
    decision = netcut_fx.choose(estimates, accuracies, deadline_ms)
    trained = netcut_fx.retrain(trn, dataset)
    compiled = netcut_fx.compile(trained.traced)
    finished = netcut_fx.run(model, data, deadline_ms=5.0, out="build/run")

Importing this package imports neither torch nor tvm: each name loads its module when it is first used, so that
`netcut_fx.runtime` can serve a bundle on a device that has neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> module that defines it. No module is called like a verb: importing it would hide the verb.
_EXPORTS = {
    "Accuracy": "netcut_fx.evaluate",
    "Dataset": "netcut_fx.data",
    "Decision": "netcut_fx.decision",
    "Frontier": "netcut_fx.graph",
    "HeadPass": "netcut_fx.passes.head",
    "IgnoredScope": "netcut_fx.ignored_scope",
    "LatencyModel": "netcut_fx.latency",
    "Measurement": "netcut_fx.measure",
    "NetcutError": "netcut_fx.errors",
    "Pipeline": "netcut_fx.passes.base",
    "RetrainOptions": "netcut_fx.retraining_options",
    "RunOptions": "netcut_fx.job_options",
    "Stopwatch": "netcut_fx.measure",
    "TracedModule": "netcut_fx.graph",
    "choose": "netcut_fx.decision",
    "compile": "netcut_fx.verbs",
    "cut": "netcut_fx.cutting",
    "estimate": "netcut_fx.verbs",
    "frontiers": "netcut_fx.frontier",
    "load_data": "netcut_fx.data",
    "load_model": "netcut_fx.model_spec",
    "parse_pipeline": "netcut_fx.passes.registry",
    "profile_network": "netcut_fx.profiling",
    "retrain": "netcut_fx.retraining",
    "run": "netcut_fx.verbs",
    "to_text": "netcut_fx.text",
    "trace": "netcut_fx.tracing",
    "tvm_backend": "netcut_fx.verbs",
}

__all__ = ["__version__", *_EXPORTS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module 'netcut_fx' has no attribute {name!r}; it has {', '.join(sorted(_EXPORTS))}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from netcut_fx.cutting import cut as cut
    from netcut_fx.data import Dataset as Dataset
    from netcut_fx.data import load_data as load_data
    from netcut_fx.decision import Decision as Decision
    from netcut_fx.decision import choose as choose
    from netcut_fx.errors import NetcutError as NetcutError
    from netcut_fx.evaluate import Accuracy as Accuracy
    from netcut_fx.frontier import frontiers as frontiers
    from netcut_fx.graph import Frontier as Frontier
    from netcut_fx.graph import TracedModule as TracedModule
    from netcut_fx.ignored_scope import IgnoredScope as IgnoredScope
    from netcut_fx.job_options import RunOptions as RunOptions
    from netcut_fx.latency import LatencyModel as LatencyModel
    from netcut_fx.measure import Measurement as Measurement
    from netcut_fx.measure import Stopwatch as Stopwatch
    from netcut_fx.model_spec import load_model as load_model
    from netcut_fx.passes.base import Pipeline as Pipeline
    from netcut_fx.passes.head import HeadPass as HeadPass
    from netcut_fx.passes.registry import parse_pipeline as parse_pipeline
    from netcut_fx.profiling import profile_network as profile_network
    from netcut_fx.retraining import retrain as retrain
    from netcut_fx.retraining_options import RetrainOptions as RetrainOptions
    from netcut_fx.text import to_text as to_text
    from netcut_fx.tracing import trace as trace
    from netcut_fx.verbs import compile as compile
    from netcut_fx.verbs import estimate as estimate
    from netcut_fx.verbs import run as run
    from netcut_fx.verbs import tvm_backend as tvm_backend
