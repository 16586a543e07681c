"""Can any network be cut, everywhere, exactly? Every classifier of torchvision and transformers, each block frontier.

``python -m benchmarks.frontiers`` writes ``results/frontiers.json`` after every network and goes on where it stopped;
``--again`` forgets what is there, ``--only NAME ...`` measures these networks alone, ``--summary`` reports only.
Each network has a process of its own, so that memory and time of one do not show in the next.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from benchmarks.exactness import cut_row, exports
from benchmarks.feature_extraction import extractor_row
from benchmarks.machine import machine
from benchmarks.networks import Network, netcut_networks, torchvision_networks, transformers_networks
from netcut_fx.atomic_files import atomic_write
from netcut_fx.frontier import frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.tracing import trace

HERE = Path(__file__).parent
RESULT = HERE / "results" / "frontiers.json"
ROUNDS = 3
#: Wider than any frontier of these networks.
ANY_WIDTH = 10_000


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--again", action="store_true")
    options.add_argument("--only", nargs="+", default=None)
    options.add_argument("--summary", action="store_true")
    options.add_argument(
        "--jobs", type=int, default=1, help="processes at a time; with more than one, seconds say little"
    )
    options.add_argument("--one", default=None, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one is not None:
        print(json.dumps(model_row(_named(chosen.one))))
        return 0
    known: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() and not chosen.again else {}
    result: dict[str, Any] = {
        "machine": machine(),
        "torch_threads": torch.get_num_threads(),
        "summary": {},
        "counts": known.get("counts", {}),
        "scale": known.get("scale", {}),
        "models": {},
    }
    networks = _by_name()
    # The largest last: whoever interrupts has most of the rows.
    names = sorted(networks, key=lambda name: networks[name].parameters)
    rows = known.get("models", {})
    result["models"] = {name: rows[name] for name in names if name in rows}
    if not chosen.summary:
        wanted = [n for n in names if (n.split("/", 1)[1] in chosen.only if chosen.only else not _is_ok(rows.get(n)))]
        with ThreadPoolExecutor(chosen.jobs) as pool:
            done = {pool.submit(_in_own_process, name, chosen.jobs): name for name in wanted}
            for number, future in enumerate(as_completed(done), start=1):
                result["models"][done[future]] = row = future.result()
                shown = {key: row.get(key) for key in ("traced_by", "block", "exact", "gradients", "error")}
                print(f"{number}/{len(wanted)} {done[future]}: {shown}", flush=True)
                _write(result, names)
        if chosen.only is None:
            result["counts"] = result["counts"] or counts()
            _write(result, names)
            if not result["scale"]:
                from benchmarks.frontier_scale import scale_rows

                result["scale"] = scale_rows()
    _write(result, names)
    print(json.dumps(result["summary"], indent=1))
    return 0


def model_row(network: Network) -> dict[str, Any]:
    """All that is found out about one network."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model, image = network.build(), network.image()
    start = time.perf_counter()
    traced = trace(model, image, name=network.name)
    row: dict[str, Any] = {
        "source": network.source,
        "traced_by": traced.traced_by,
        "input": list(image.shape),
        "nodes": len(traced.nodes),
        "parameters": sum(p.numel() for p in traced.graph_module.parameters()),
    }
    seconds = {"trace": time.perf_counter() - start}
    start = time.perf_counter()
    found = frontiers(traced, granularity="block", max_width=ANY_WIDTH)
    seconds["block"] = time.perf_counter() - start
    row["block"], row["widest_block"] = len(found), max((f.width for f in found), default=0)
    for granularity in ("kernel", "node"):
        start = time.perf_counter()
        row[granularity] = len(frontiers(traced, granularity=granularity))
        seconds[granularity] = time.perf_counter() - start
    row["seconds"] = seconds
    cuts, truth = cut_row(model, traced, found, image)
    row |= cuts
    row["exports"] = exports(traced, found[len(found) // 2], image)
    row["create_feature_extractor"] = extractor_row(model, found, image, truth)
    row["error"] = None
    return row


def counts() -> dict[str, Any]:
    """Block frontiers of NetCut's seven networks, as found and as its text counts them."""
    published = (13, 13, 17, 17, 11, 16, 61)
    rows: dict[str, Any] = {}
    for network, expected in zip(netcut_networks(), published, strict=True):
        traced = trace(network.build(), network.image(), name=network.name)
        found = frontiers(traced, granularity="block", max_width=ANY_WIDTH)
        rows[network.name] = {"block": len(found), "netcut": expected, "widest": max(f.width for f in found)}
        rows[network.name]["seconds"] = _median_search_seconds(traced)
        gc.collect()
    return rows


def _median_search_seconds(traced: TracedModule) -> float:
    """Median of the block search on fresh copies of the network, about which nothing is remembered."""
    found: list[float] = []
    for _ in range(ROUNDS):
        fresh = TracedModule(traced.graph_module, traced.name)
        start = time.perf_counter()
        frontiers(fresh, granularity="block", max_width=ANY_WIDTH)
        found.append(time.perf_counter() - start)
    return sorted(found)[ROUNDS // 2]


def summary(result: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The figures that the README quotes."""
    rows = [row for name, row in result["models"].items() if name in names]
    done = [row for row in rows if row["error"] is None]
    by_fx = [row for row in done if row["traced_by"] == "fx"]
    by_export = [row for row in done if row["traced_by"] == "export"]
    theirs = [row["create_feature_extractor"] for row in done]
    scale = result["scale"]
    return {
        "models_ok": sum(map(_is_ok, rows)),
        "models_total": len(names),
        "models_torchvision": sum(row["source"] == "torchvision" for row in done),
        "models_transformers": sum(row["source"] == "transformers" for row in done),
        "traced_by_fx": len(by_fx),
        "traced_by_export": len(by_export),
        "cuts_total": sum(row["cuts"] for row in done),
        "all_cuts_bit_exact": len(done) == len(names) and all(row["exact"] for row in done),
        "worst_relative_error_by_export": max((row["worst_relative_error"] for row in by_export), default=None),
        "gradients_reach_the_first_layer": len(done) == len(names) and all(row["gradients"] for row in done),
        "block_frontiers_seven_networks": sum(row["block"] for row in result["counts"].values()),
        "create_feature_extractor_cuts": sum(row["cuts"] for row in theirs),
        "create_feature_extractor_right": sum(row["right"] for row in theirs),
        "create_feature_extractor_shares_parameters": any(row["shares_parameters"] for row in theirs),
        "scale_exponent": scale.get("exponent"),
        "seconds_100k": scale.get("seconds_100k"),
    }


def _is_ok(row: dict[str, Any] | None) -> bool:
    return row is not None and row["error"] is None and row["exact"] and row["gradients"] and row["exports"]


def _by_name() -> dict[str, Network]:
    found = [*torchvision_networks(), *transformers_networks()]
    return {f"{network.source}/{network.name}": network for network in found}


def _named(name: str) -> Network:
    """One network, without importing the package that it is not of."""
    source, own = name.split("/", 1)
    found = torchvision_networks() if source == "torchvision" else transformers_networks(own)
    return next(network for network in found if network.name == own)


def _in_own_process(name: str, jobs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.frontiers", "--one", name]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=HERE.parent, env=environment, check=False, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return {"source": name.split("/", 1)[0], "error": last[:400]}


def _write(result: dict[str, Any], names: list[str]) -> None:
    result["summary"] = summary(result, names)
    atomic_write(RESULT, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
