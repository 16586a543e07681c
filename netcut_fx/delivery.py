"""Hand over a finished job: bundle, its check against torch, report, result."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cost_models import LatencyEstimate
from netcut_fx.atomic_files import atomic_write, partial_path, report_storage_errors
from netcut_fx.backends.base import CompiledModule
from netcut_fx.bundle import write_bundle
from netcut_fx.data import Dataset
from netcut_fx.errors import BackendError
from netcut_fx.evaluate import predict_logits
from netcut_fx.job_options import RunOptions
from netcut_fx.job_values import Finished, Reporter
from netcut_fx.kernel_rows import kernel_rows
from netcut_fx.manifest import Manifest
from netcut_fx.measure import Measurement
from netcut_fx.network_files import write_network_beside
from netcut_fx.report import write_report
from netcut_fx.result import result_of
from netcut_fx.retraining import TrainedCandidate
from netcut_fx.target import Target

#: Name of the bundle's folder in the folder of a run.
BUNDLE = "bundle"
#: Largest difference of a logit, relative to the largest logit, between the artefact and torch eager.
TOLERANCE = 1e-4
_CHECKED_IMAGES = 64

# Run in a process of its own, as a device would: the bundle's runtime, without torch and without the compiler.
_SERVE = """
import sys
import numpy as np
from netcut_fx.runtime import load
images = np.load(sys.argv[2], allow_pickle=False)["images"]
prediction = load(sys.argv[1]).predict(images)
if "torch" in sys.modules or "tvm" in sys.modules:
    sys.exit("the runtime imported torch or tvm")
np.savez(sys.argv[3], logits=prediction.logits)
"""


@dataclass(frozen=True)
class Artefact:
    """A network that was retrained, compiled and timed.

    Parameters
    ----------
    frontier : str
        Where it was cut.
    trained : TrainedCandidate
        The network.
    compiled : CompiledModule
        What the compiler made of it.
    estimate, measured : LatencyEstimate, Measurement
        What it was predicted to take, and took.
    deadline_ms : float
        What it had to meet.
    dataset : Dataset
        Whose classes it tells apart.
    target : Target
        What it was compiled for.
    options : RunOptions
        With what head.
    """

    frontier: str
    trained: TrainedCandidate
    compiled: CompiledModule
    estimate: LatencyEstimate
    measured: Measurement
    deadline_ms: float
    dataset: Dataset
    target: Target
    options: RunOptions


def deliver(job: Finished, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Write ``bundle/``, ``bundle.pt2``, ``report.html`` and ``result.json`` into `folder` and return its object.

    Raises
    ------
    BackendError
        If the bundle's answers are not those of torch eager on the same images.
    """
    reporter.stage("bundle")
    bundle, report, chosen = folder / BUNDLE, folder / "report.html", job.chosen
    artefact = Artefact(
        chosen,
        job.trained[chosen],
        job.compiled,
        job.estimates[chosen],
        job.measured[chosen],
        job.deadline_ms,
        job.dataset,
        job.backend.target,
        job.options,
    )
    result: dict[str, Any] = {}

    def reported(agreement: dict[str, Any]) -> Path:
        result.update(result_of(job, bundle=str(bundle), report=str(report), agreement=agreement))
        return write_report(result, report)

    with report_storage_errors(f"deliver to {folder}", safe="finished stages are safe"):
        write_checked(artefact, bundle, reporter.note, reported)
        atomic_write(folder / "result.json", (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    return result


def write_checked(
    artefact: Artefact,
    bundle: Path,
    note: Callable[[str], None],
    report: Callable[[dict[str, Any]], Path | None] = lambda agreement: None,
) -> dict[str, Any]:
    """Write `artefact` as a bundle, and the network beside it, once the bundle was seen to answer as torch does.

    Parameters
    ----------
    artefact : Artefact
        What to write.
    bundle : Path
        Folder of the bundle.
    note : callable
        Hears why the network could not be written beside the bundle.
    report : callable, optional
        Makes the report that goes into the bundle from how far the answers agree.

    Returns
    -------
    dict
        How far the bundle's answers agree with torch eager.

    Raises
    ------
    BackendError
        If they do not.
    """
    with partial_folder(bundle.parent) as scratch:
        files = artefact.compiled.save(scratch)
        manifest = _manifest(artefact)
        parts = {name: files[name] for name in ("library", "runtime_library", "params")}
        # Only what was checked takes the place of an older bundle.
        agreement = check_agreement(artefact, write_bundle(scratch / BUNDLE, **parts, manifest=manifest), scratch)
        write_bundle(bundle, **parts, manifest=manifest, report=report(agreement))
        write_network_beside(artefact.trained.traced, bundle, note)
    return agreement


@contextmanager
def partial_folder(folder: Path) -> Generator[Path]:
    """A scratch folder in `folder`, swept by the next run where a killed one leaves it."""
    scratch = partial_path(folder / "delivery")
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_agreement(artefact: Artefact, bundle: Path, scratch: Path) -> dict[str, Any]:
    """Serve test images from the bundle in a fresh process and compare with torch eager."""
    images, _ = artefact.dataset.subset("test")
    images = images[:_CHECKED_IMAGES]
    module = artefact.trained.traced.graph_module
    expected = predict_logits(module, artefact.dataset.preprocess.normalise(images))
    given, answered = scratch / "images.npz", scratch / "logits.npz"
    np.savez(given, images=images)
    served = subprocess.run(
        [sys.executable, "-c", _SERVE, str(bundle), str(given), str(answered)],
        capture_output=True,
        text=True,
        check=False,
    )
    if served.returncode != 0:
        reason = (served.stderr.strip().splitlines() or [f"exit status {served.returncode}"])[-1]
        raise BackendError(f"the bundle does not answer in a process of its own: {reason}")
    logits = np.load(answered, allow_pickle=False)["logits"]
    error = float(np.abs(logits - expected).max() / np.abs(expected).max())
    same = int((logits.argmax(1) == expected.argmax(1)).sum())
    if not error <= TOLERANCE or same != len(images):
        raise BackendError(
            f"the compiled network differs from torch: relative error {error:.1e} (allowed {TOLERANCE:.0e}), same "
            f"top-1 on {same} of {len(images)} images; compile with --trials 0 to see whether a tuned kernel is wrong"
        )
    return {"images": len(images), "max_relative_error": error, "same_top1": same}


def _manifest(artefact: Artefact) -> Manifest:
    trained, estimate, dataset, options = artefact.trained, artefact.estimate, artefact.dataset, artefact.options
    height, width = dataset.preprocess.size
    return Manifest(
        name=trained.traced.name,
        target=artefact.target,
        preprocess=dataset.preprocess,
        labels=dataset.classes,
        input_shape=(1, 3, height, width),
        output_shape=(1, dataset.class_count),
        frontier=artefact.frontier,
        head={"kind": options.head, "hidden": list(options.hidden), "classes": dataset.class_count},
        estimate={"ms": estimate.ms, "low_ms": estimate.low_ms, "high_ms": estimate.high_ms},
        measurement={
            **artefact.measured.to_json(),
            "deadline_ms": artefact.deadline_ms,
            "kernels": kernel_rows(trained.traced, artefact.compiled),
        },
        accuracy={
            split: {"correct": a.correct, "total": a.total, "value": a.value, "low": a.low, "high": a.high}
            for split, a in (("validation", trained.validation), ("test", trained.test))
        },
        versions=dict(artefact.target.toolchain),
    )
