"""What a finished job knows, as one JSON object: `netcut run --json` prints it, the report is made from it."""

from __future__ import annotations

import math
import platform
from typing import Any

import networkx as nx
from torch import fx

from cost_models import LatencyEstimate, ModelledKernels
from netcut_fx.evaluate import Accuracy
from netcut_fx.graph import Frontier, TensorSpec, TracedModule
from netcut_fx.job_values import Finished
from netcut_fx.measure import Measurement
from netcut_fx.ops import node_flops
from netcut_fx.retraining import TrainedCandidate
from netcut_fx.tracing import operation_name

SCHEMA_VERSION = 1

Json = dict[str, Any]


def result_of(job: Finished, *, bundle: str, report: str, agreement: Json) -> Json:
    """The result object.

    Parameters
    ----------
    job : Finished
        What was found.
    bundle, report : str
        Paths.
    agreement : dict
        How far the bundle's outputs are from torch eager's.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "model": job.traced.name,
        "data": job.dataset.name,
        "deadline_ms": job.deadline_ms,
        "deadline_from": (
            "given"
            if job.options.deadline_ms is not None
            else f"{job.options.deadline_fraction:g} of the uncut network's {job.deadline_reference_ms:.3f} ms"
        ),
        "target": {**job.backend.target.to_json(), "fingerprint": job.backend.target.fingerprint()},
        "granularity": job.options.granularity,
        "max_width": job.options.max_width,
        "ignored": {name: list(found) for name, found in vars(job.options.ignored).items()},
        "tracing": {"by": job.traced.traced_by, "leaf_modules": list(job.options.leaf_modules)},
        "head": {
            "kind": job.options.head,
            "hidden": list(job.options.hidden),
            "classes": job.dataset.class_count,
            "pool": job.options.pool,
        },
        "seed": job.options.seed,
        "trials": job.options.trials,
        "images": {name: len(index) for name, index in job.dataset.splits.items()},
        "uncut": {
            "name": job.uncut.name,
            **_measured(job.uncut_measured),
            "predicted_ms": _number(job.estimates[job.uncut.name].ms),
            **_trained(job.uncut_trained),
            "kept_flops": job.uncut.kept_flops,
            "params": _parameters(job.uncut_trained),
        },
        "chosen": {
            "frontier": job.chosen,
            **_estimated(job.estimates[job.chosen]),
            **_measured(job.measured[job.chosen]),
            **_trained(job.trained[job.chosen]),
            "kept_flops": next(f for f in job.frontiers if f.name == job.chosen).kept_flops,
            "params": _parameters(job.trained[job.chosen]),
            "untuned_kernels": [k.name for k in job.compiled.kernels if not k.tuned],
        },
        "candidates": [_candidate(job, frontier) for frontier in job.frontiers],
        "kernels": _kernels(job),
        "graph": _graph(job),
        "agreement": agreement,
        "stages": [vars(stage) for stage in job.stages],
        "decision": [*str(job.decision).splitlines(), *_untuned(job)],
        "versions": {"python": platform.python_version(), **dict(job.backend.target.toolchain)},
        "bundle": bundle,
        "report": report,
    }


def _candidate(job: Finished, frontier: Frontier) -> Json:
    name = frontier.name
    judgement = next(j for j in job.decision.judgements if j.name == name)
    verdict, reason = str(judgement.verdict), judgement.reason
    if name == job.chosen:
        verdict, reason = (
            "chosen",
            f"best of the retrained that met the deadline when measured: {_validated(job, name)}",
        )
    elif name in job.refused:
        verdict, reason = "refused", job.refused[name]
    elif name in job.trained:
        reason = f"retrained: {_validated(job, name)}; {job.chosen} ranks first ({_validated(job, job.chosen)})"
    trained = job.trained.get(name) or (job.uncut_trained if name == job.uncut.name else None)
    quick = job.quick[name].accuracy
    return {
        "name": name,
        "width": frontier.width,
        "shape": [list(spec.shape) for spec in frontier.specs],
        "pools": list(frontier.pools),
        "kept_flops": frontier.kept_flops,
        "kept_params": frontier.kept_params,
        **_estimated(job.estimates[name]),
        **(_measured(job.measured[name]) if name in job.measured else _measured(None)),
        "quick_accuracy": quick.value,
        "quick_low": quick.low,
        "quick_high": quick.high,
        "validation_accuracy": None if trained is None else trained.validation.value,
        "test_accuracy": None if trained is None else trained.test.value,
        "verdict": verdict,
        "reason": reason,
    }


def _untuned(job: Finished) -> list[str]:
    """A line for the kernels of the chosen network that run untuned, if there are any."""
    names = [k.name for k in job.compiled.kernels if not k.tuned]
    return [f"{len(names)} kernels have no tuning record and run untuned: {', '.join(names)}"] if names else []


def _validated(job: Finished, name: str) -> str:
    """On what the ranking of the retrained rests: accuracies within one standard error are told apart by the loss."""
    trained = job.trained[name]
    return f"validation {trained.validation.value:.1%}, loss {trained.validation_loss:.3f}"


def _estimated(estimate: LatencyEstimate) -> Json:
    return {
        "predicted_ms": _number(estimate.ms),
        "low_ms": _number(estimate.low_ms),
        "high_ms": _number(estimate.high_ms),
        "provenance": dict(estimate.provenance),
        "missing": list(estimate.missing),
    }


def _measured(measurement: Measurement | None) -> Json:
    if measurement is None:
        return {"measured_ms": None, "measured_low_ms": None, "measured_high_ms": None}
    return {
        "measured_ms": measurement.ms,
        "measured_low_ms": measurement.low_ms,
        "measured_high_ms": measurement.high_ms,
    }


def _trained(trained: TrainedCandidate) -> Json:
    test: Accuracy = trained.test
    return {
        "test_accuracy": test.value,
        "test_low": test.low,
        "test_high": test.high,
        "validation_accuracy": trained.validation.value,
        "validation_loss": trained.validation_loss,
        "epochs": trained.epochs,
    }


def _kernels(job: Finished) -> list[Json]:
    by_key = {sample.key: sample for sample in job.calibration.samples}
    analytical = ModelledKernels.fit("analytical", job.calibration.samples, job.calibration.machine)
    kept = {origin for kernel in job.chosen_kernels for origin in kernel.origin}
    rows: list[Json] = []
    for kernel in job.uncut_kernels:
        sample = by_key.get(kernel.key)
        modelled = LatencyEstimate.unknown(kernel.key) if analytical is None else analytical.predict(kernel)
        rows.append(
            {
                "key": kernel.key,
                "name": kernel.origin[-1] if kernel.origin else kernel.key,
                "origin": list(kernel.origin),
                "ops": list(kernel.ops),
                "kind": kernel.kind,
                "predicted_ms": _number(modelled.ms),
                "measured_ms": None if sample is None else sample.ms,
                "flops": kernel.flops,
                "bytes": kernel.bytes,
                "in_chosen": bool(kernel.origin) and kernel.origin[0] in kept,
            }
        )
    return rows


def _graph(job: Finished) -> Json:
    traced = job.traced
    chosen = next(f for f in job.frontiers if f.name == job.chosen)
    kept = set(chosen.nodes)
    for name in chosen.nodes:
        kept |= nx.ancestors(traced.digraph, name)
    crossing = {node: f.name for f in job.frontiers for node in f.nodes}
    drawn = [node for node in traced.nodes if node.op != "get_attr"]
    index = {node.name: i for i, node in enumerate(drawn)}
    return {
        "nodes": [
            {
                "name": node.meta["qualname"],
                "module": node.meta["qualname"].rpartition(".")[0] or node.meta["module_path"],
                "op": _operation(traced, node),
                "shape": list(spec.shape) if isinstance(spec := node.meta["spec"], TensorSpec) else None,
                "flops": node_flops(traced, node),
                "kept": node.name in kept,
                "frontier": crossing.get(node.name),
            }
            for node in drawn
        ],
        "edges": [[index[s.name], index[n.name]] for n in drawn for s in n.all_input_nodes if s.name in index],
    }


def _operation(traced: TracedModule, node: fx.Node) -> str:
    """What a reader calls the node: a module's class, a function's name."""
    if node.op == "call_module":
        return type(traced.graph_module.get_submodule(str(node.target))).__name__
    return operation_name(node) if node.op.startswith("call_") else node.op


def _parameters(trained: TrainedCandidate) -> int:
    return sum(p.numel() for p in trained.traced.graph_module.parameters())


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
