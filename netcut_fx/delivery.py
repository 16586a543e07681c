"""Hand over a finished job: bundle, its check against torch, report, result."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from netcut_fx.atomic_files import atomic_write, partial_path, report_storage_errors
from netcut_fx.bundle import write_bundle
from netcut_fx.errors import BackendError
from netcut_fx.evaluate import predict_logits
from netcut_fx.job_values import Finished, Reporter
from netcut_fx.kernel_rows import kernel_rows
from netcut_fx.manifest import Manifest
from netcut_fx.network_files import write_network_beside
from netcut_fx.report import write_report
from netcut_fx.result import result_of

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


def deliver(job: Finished, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """Write ``bundle/``, ``bundle.pt2``, ``report.html`` and ``result.json`` into `folder` and return its object.

    Raises
    ------
    BackendError
        If the bundle's answers are not those of torch eager on the same images.
    """
    reporter.stage("bundle")
    bundle, report = folder / BUNDLE, folder / "report.html"
    safe = "finished stages are safe"
    with report_storage_errors(f"deliver to {folder}", safe=safe), partial_folder(folder) as scratch:
        files = job.compiled.save(scratch)
        manifest = _manifest(job)
        parts = {name: files[name] for name in ("library", "runtime_library", "params")}
        # Only what was checked takes the place of an older bundle.
        agreement = check_agreement(job, write_bundle(scratch / BUNDLE, **parts, manifest=manifest), scratch)
        result = result_of(job, bundle=str(bundle), report=str(report), agreement=agreement)
        write_report(result, report)
        write_bundle(bundle, **parts, manifest=manifest, report=report)
        write_network_beside(job.trained[job.chosen].traced, bundle, reporter.note)
        atomic_write(folder / "result.json", (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    return result


@contextmanager
def partial_folder(folder: Path) -> Generator[Path]:
    """A scratch folder in `folder`, swept by the next run where a killed one leaves it."""
    scratch = partial_path(folder / "delivery")
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_agreement(job: Finished, bundle: Path, scratch: Path) -> dict[str, Any]:
    """Serve test images from the bundle in a fresh process and compare with torch eager."""
    images, _ = job.dataset.subset("test")
    images = images[:_CHECKED_IMAGES]
    module = job.trained[job.chosen].traced.graph_module
    expected = predict_logits(module, job.dataset.preprocess.normalise(images))
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


def _manifest(job: Finished) -> Manifest:
    trained, estimate = job.trained[job.chosen], job.estimates[job.chosen]
    height, width = job.dataset.preprocess.size
    return Manifest(
        name=trained.traced.name,
        target=job.backend.target,
        preprocess=job.dataset.preprocess,
        labels=job.dataset.classes,
        input_shape=(1, 3, height, width),
        output_shape=(1, job.dataset.class_count),
        frontier=job.chosen,
        head={"kind": job.options.head, "hidden": list(job.options.hidden), "classes": job.dataset.class_count},
        estimate={"ms": estimate.ms, "low_ms": estimate.low_ms, "high_ms": estimate.high_ms},
        measurement={
            **job.measured[job.chosen].to_json(),
            "deadline_ms": job.deadline_ms,
            "kernels": kernel_rows(trained.traced, job.compiled),
        },
        accuracy={
            split: {"correct": a.correct, "total": a.total, "value": a.value, "low": a.low, "high": a.high}
            for split, a in (("validation", trained.validation), ("test", trained.test))
        },
        versions=dict(job.backend.target.toolchain),
    )
