"""How well is the latency of trimmed networks predicted? NetCut's 148 TRNs, each tuned, compiled and measured.

    python -m benchmarks.latency_estimation [--only NAME ...] [--trials 32] [--cuts N] [--sweep 0 8]
                                            [--calibration FILE] [--summary]

For each network the uncut one is tuned, measured and profiled first; then every block frontier is cut, given NetCut's
head, tuned with the same records, compiled and measured end to end with one thread, in rounds in which a canary in turn
with it was at its best. Some are measured again at the end, for the noise floor. ``--sweep`` then profiles the uncut
networks tuned with fewer trials, to see how few suffice. Everything goes into ``build/latency_estimation/`` as it
comes: a run that was stopped anywhere goes on there, a network that fails is a row with its error and is tried again by
the next run. ``--summary`` measures nothing and scores what is there (minutes). ``--calibration`` adds the kernels of
``netcut calibrate``. Weights are random: latency does not depend on them.

Writes ``benchmarks/results/latency_estimation.json`` and a plot beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.latency_measuring import Failures, Measuring, Task, measure_all, tasks_of
from benchmarks.latency_plot import plot
from benchmarks.latency_scores import PROFILE_SOURCE, scores, trials_sweep
from benchmarks.machine import machine
from benchmarks.networks import netcut_networks
from cost_models import Calibration
from netcut_fx.atomic_files import atomic_write

HERE = Path(__file__).parent
OUT = HERE / "results" / "latency_estimation.json"
BUILD = HERE.parent / "build" / "latency_estimation"
#: Of how many TRNs one is measured again.
AGAIN_EACH = 12
EVIDENCE, FAILURES = "evidence.json", "failures.json"


def sweep_file(trials: int) -> str:
    """Where the profiles with so many trials are."""
    return f"evidence-{trials}-trials.json"


def measure(given: argparse.Namespace) -> None:
    """Measure what is missing: uncut networks and cuts, some again, then the sweep."""
    first, again = list[Task](), list[Task]()
    for network in netcut_networks():
        if not given.only or network.name in given.only:
            print(f"reading {network.name}", flush=True)
            one, two = tasks_of(network, given.cuts, AGAIN_EACH)
            first, again = first + one, again + two
    failures = Failures(given.build / FAILURES)
    measure_all(Measuring(given.build, given.trials, EVIDENCE, "tuning"), [*first, *again], failures)
    uncut = [task for task in first if task.source == PROFILE_SOURCE]
    for trials in given.sweep:
        session = Measuring(given.build, trials, sweep_file(trials), f"tuning-{trials}-trials")
        measure_all(session, uncut, Failures(given.build / f"failures-{trials}-trials.json"))


def report(given: argparse.Namespace) -> dict[str, Any] | None:
    """Score what is there and write the result."""
    path = given.build / EVIDENCE
    if not path.exists():
        return None
    found = Calibration.load(path)
    extra = None if given.calibration is None else Calibration.load(given.calibration, fingerprint=found.fingerprint)
    result: dict[str, Any] = {"machine": machine(), "trials": given.trials, **scores(found, extra)}
    swept = {n: given.build / sweep_file(n) for n in given.sweep}
    profiles = {n: Calibration.load(p, fingerprint=found.fingerprint) for n, p in swept.items() if p.exists()}
    result["trials_sweep"] = trials_sweep(found, {**profiles, given.trials: found})
    result["failed"] = Failures(given.build / FAILURES).reasons
    given.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(given.out, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    atomic_write(given.out.with_suffix(".svg"), plot(result["rows"]).encode())
    return result["summary"]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [n.name for n in netcut_networks()]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--trials", type=int, default=32, help="schedules tried for each kernel")
    parser.add_argument("--cuts", type=int, help="so many cuts of each network, spread evenly; all by default")
    parser.add_argument(
        "--sweep", nargs="*", type=int, default=[0, 8], metavar="N", help="fewer trials to compare with"
    )
    parser.add_argument("--calibration", type=Path, help="what netcut calibrate wrote on this machine")
    parser.add_argument("--summary", action="store_true", help="measure nothing, score what is there")
    parser.add_argument("--build", type=Path, default=BUILD)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(words)
    given.build.mkdir(parents=True, exist_ok=True)
    if not given.summary:
        measure(given)
    found = report(given)
    if found is None:
        print(f"nothing was measured yet in {given.build}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
