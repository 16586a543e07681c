"""A process that serves one artefact on given cores and does what it is asked, one JSON line a request.

Run as ``python -m netcut_fx.comparison.worker``. Nothing heavy is imported before the first line says what to serve: a
bundle is served as on a device, without torch and without the compiler.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from netcut_fx.errors import NetcutError, SpecError
from netcut_fx.spec_text import one_line

_SIGNAL_AT_PARENTS_END = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> None:
    """Answer requests until standard input ends."""
    # What libraries print goes to standard error; answers have a stream of their own.
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    artefact: Any = None
    for line in sys.stdin:
        try:
            request: dict[str, Any] = json.loads(line)
            if artefact is None:
                artefact = _opened(request)
                _reply(answers, {})
            else:
                _reply(answers, _done(artefact, request))
        except NetcutError as error:
            _reply(answers, {"error": type(error).__name__, "text": str(error)})
        except Exception as error:
            _reply(answers, {"failure": one_line(error)})


def _end_with_parent() -> None:
    """A stopped process would otherwise outlive a parent that was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_END, signal.SIGKILL)


def _reply(answers: IO[str], reply: dict[str, Any]) -> None:
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def _opened(job: dict[str, Any]) -> Any:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["cores"])
    if job["kind"] == "bundle":
        return _ServedBundle(job)
    if job["kind"] == "peak":
        from netcut_fx.backends.tvm.peak import PeakProbe
        from netcut_fx.target import Target

        return PeakProbe(Target.from_json(job["target"]))
    from netcut_fx.comparison.peers import open_peer

    return open_peer(job["kind"], Path(job["network"]), job["threads"], tuple(job["shape"]))


def _done(artefact: Any, request: dict[str, Any]) -> dict[str, Any]:
    """What a request asks for: answers of inputs, times of runs, rounds of kernels, peaks, memory."""
    kind = request["do"]
    if kind == "answer":
        inputs = np.load(request["inputs"], allow_pickle=False)
        answers = np.stack([artefact.answer(images) for images in inputs])
        np.save(request["answers"], answers, allow_pickle=False)
        return {}
    if kind == "time":
        runs = request["runs"]
        if isinstance(artefact, _ServedBundle):
            return {"ms": artefact.times_ms(runs)}
        # Back from its pause, as `Runtime.measure` comes back: threads are awake and caches filled.
        for _ in range(min(runs, 10)):
            artefact.call()
        return {"ms": [_milliseconds(artefact.call) for _ in range(runs)]}
    if kind == "kernels":
        return {"kernels": [[name, list(ms)] for name, ms in artefact.runtime.profile(request["rounds"])]}
    if kind == "peak":
        return {"flops_per_s": artefact.flops_per_s(), "bytes_per_s": artefact.bytes_per_s()}
    if kind == "memory":
        return {"bytes": _peak_memory()}
    raise SpecError(f"a worker cannot do '{kind}'")


class _ServedBundle:
    def __init__(self, job: dict[str, Any]) -> None:
        from netcut_fx.runtime import load

        self.runtime = load(job["folder"], any_cpu=job["any_cpu"])
        self.answer = self.runtime.logits

    def times_ms(self, runs: int) -> list[float]:
        return list(self.runtime.measure(runs))


def _milliseconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _peak_memory() -> int | None:
    """Largest resident set of this process so far, where the system tells."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith("VmHWM:")]
    return int(found[0].split()[1]) * 1024 if found else None


if __name__ == "__main__":
    main()
