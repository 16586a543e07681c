"""Our artefacts beside ONNX Runtime, OpenVINO and torch, and what tuning them took.

Ten networks at 224 x 224, float32, batch 1 (`benchmarks.speed_networks`), with one thread and with two. Each is tuned
(at most ``--minutes`` and ``--trials`` a kernel), compiled into a bundle and timed in turn with the peers, all pinned
to the same cores, by what ``netcut bench`` uses. Rows are written as they come; a run that was stopped goes on where it
was: rows that are there are kept, tuning records and the minutes they took too. ``--again`` measures anew.

    python -m benchmarks.artefact_speed [--networks NAME ...] [--threads 1 2] [--minutes 30] [--trials 32]

Writes ``benchmarks/results/artefact_speed.json``; needs the extras ``build``, ``demo``, ``networks`` and ``peers``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.cold_start import cold_start
from benchmarks.machine import machine
from benchmarks.speed_networks import NAMES, SIZE, traced_network
from benchmarks.speed_summary import summary
from benchmarks.warm_start import warm_start
from netcut_fx.atomic_files import atomic_write
from netcut_fx.backends.base import Backend
from netcut_fx.bundle import network_beside, write_bundle
from netcut_fx.comparison.peers import PEERS
from netcut_fx.comparison.versus import compare
from netcut_fx.graph import TracedModule
from netcut_fx.kernel_rows import kernel_rows
from netcut_fx.manifest import Manifest
from netcut_fx.measure import Stopwatch
from netcut_fx.network_files import program_of, write_program
from netcut_fx.preprocess import Preprocess
from netcut_fx.verbs import tvm_backend

HERE = Path(__file__).parent
OUT = HERE / "results" / "artefact_speed.json"
BUILD = HERE.parent / "build" / "artefact_speed"


def slug(name: str, threads: int) -> str:
    """Name of the files of a network and thread count."""
    return f"{name.replace(' ', '-')}-{threads}"


def tune_within(backend: Backend, network: TracedModule, build: Path, *, trials: int, minutes: float) -> dict[str, Any]:
    """Tune until trials bring nothing any more, or `trials` a kernel or the minutes are over.

    Minutes of earlier runs count: they stand in ``build/minutes``, beside the records that they went into.
    """
    account = build / "minutes" / f"{slug(network.name, backend.target.threads)}.json"
    before: float = json.loads(account.read_text()) if account.exists() else 0.0
    started = time.monotonic()
    account.parent.mkdir(parents=True, exist_ok=True)

    def spent() -> float:
        return before + (time.monotonic() - started) / 60

    report = backend.tune(
        network,
        trials=trials,
        database=build / "tuning",
        minutes=max(minutes - before, 1e-3),
        progress=lambda *_: atomic_write(account, json.dumps(spent()).encode()),
    )
    atomic_write(account, json.dumps(spent()).encode())
    return {
        "minutes": spent(),
        "trials_per_kernel": trials,
        "trials": report.trials,
        "failed_trials": report.failed_trials,
        "finished": report.trials_left == 0,
    }


def build_bundle(backend: Backend, network: TracedModule, database: Path, folder: Path) -> Path:
    """Compile with the records of `database` and write the bundle, and the network beside it."""
    compiled = backend.compile(network, database=database)
    scratch = folder.with_name(f"{folder.name}-files")
    files = compiled.save(scratch)
    shape = network.output.meta["spec"].shape
    manifest = Manifest(
        name=network.name,
        target=backend.target,
        preprocess=Preprocess.named((SIZE, SIZE), "imagenet"),
        labels=tuple(str(i) for i in range(shape[1])),
        input_shape=(1, 3, SIZE, SIZE),
        output_shape=shape,
        measurement={
            **Stopwatch(repeat=5).measure_timer(compiled.timer()).to_json(),
            "kernels": kernel_rows(network, compiled),
        },
    )
    write_bundle(folder, **{name: files[name] for name in ("library", "runtime_library", "params")}, manifest=manifest)
    shutil.rmtree(scratch)
    write_program(program_of(network), network_beside(folder))
    return folder


def measured_row(name: str, threads: int, given: argparse.Namespace) -> dict[str, Any]:
    """Tune, compile, compare: one row of the result."""
    network, backend = traced_network(name), tvm_backend(threads=threads)
    tuning = tune_within(backend, network, given.build, trials=given.trials, minutes=given.minutes)
    folder = build_bundle(backend, network, given.build / "tuning", given.build / "bundles" / slug(name, threads))
    found = compare([folder], peers=given.peers, rounds=given.rounds, runs=given.runs)
    ours, *others = found.timings
    slowest = sorted(ours.kernels, key=lambda k: -(k.lost_ms or 0.0))[:10]
    return {
        "network": name,
        "threads": threads,
        "ms": {"netcut": ours.measured.ms, **{t.name: t.measured.ms for t in others}},
        "interval_ms": {t.name: [t.measured.low_ms, t.measured.high_ms] for t in found.timings},
        "relative_error": {t.name: t.relative_error for t in others},
        "versions": {t.name: t.version for t in others},
        "memory_bytes": {t.name: t.memory_bytes for t in found.timings},
        "peak": found.peaks[threads].to_json(),
        "peak_share": ours.flops_share,
        "bandwidth_share": ours.bandwidth_share,
        "untuned_kernels": sum(k.tuned is False for k in ours.kernels),
        "kernels": [k.to_json() for k in slowest],
        "tuning": tuning,
        "machine": machine(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NAMES), choices=NAMES, metavar="NAME")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--minutes", type=float, default=30.0, help="of tuning, for each network and thread count")
    parser.add_argument("--trials", type=int, default=32, help="at most so many for each kernel")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--runs", type=int, default=110)
    parser.add_argument("--warm-start", nargs="*", default=["ResNet-18"], metavar="NAME", help="networks to tune twice")
    parser.add_argument("--again", action="store_true", help="measure rows anew that are there already")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder of tuning records and bundles")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "rows": [], "warm_start": {}, "cold_start": {}}
    if given.out.exists():
        result.update(json.loads(given.out.read_text()))

    def keep() -> None:
        result["summary"] = summary(result)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(given.out, (json.dumps(result, indent=1) + "\n").encode())

    for name in given.networks:
        for threads in given.threads:
            there = [r for r in result["rows"] if (r["network"], r["threads"]) == (name, threads)]
            if there and not given.again:
                continue
            row = measured_row(name, threads, given)
            result["rows"] = [r for r in result["rows"] if r not in there] + [row]
            keep()
            print(name, threads, {k: round(v, 3) for k, v in row["ms"].items()}, flush=True)
    for name in given.warm_start:
        if name not in result["warm_start"]:
            result["warm_start"][name] = warm_start(name, given.build, trials=given.trials)
            keep()
    bundles = sorted((given.build / "bundles").glob("*-1"))
    if bundles and (given.again or not result["cold_start"]):
        result["cold_start"] = cold_start(bundles[0], rounds=9)
    keep()
    print(json.dumps(result["summary"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
