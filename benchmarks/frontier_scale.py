"""How the search for frontiers grows: random residual networks of 1,000 to 100,000 nodes.

``python -m benchmarks.frontier_scale`` prints JSON. Each size has a process of its own. Only the search is timed, all
that the first call of `netcut_fx.frontier.frontiers` does; building and tracing the network is told apart.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from netcut_fx.frontier import frontiers
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.tracing import retrace

SIZES = (1_000, 10_000, 100_000)
#: The size at which wider cuts are searched too.
WIDE_SIZE = 10_000
WIDTHS = (1, 4)
#: Searches at each size of up to 10,000 nodes; the fastest counts.
ROUNDS = 3
#: A first search loads what torch loads late.
_WARM_UP_SIZE = 100
_SHAPE = (1, 4, 2, 2)


def residual_network(nodes: int, seed: int = 0) -> TracedModule:
    """A network of `nodes` nodes (weights that are fetched included): a trunk with residual sums of random span.

    A tenth of the steps are convolutions with weights of their own, an eighth adds an earlier value, and now and then
    two branches run side by side. Spans have the same distribution everywhere, so that the points where one tensor
    crosses are a fixed share of all nodes.
    """
    draw = random.Random(seed)
    root, graph = nn.Module(), fx.Graph()
    trunk = [graph.placeholder("x")]
    count = 1

    def layer(value: fx.Node) -> fx.Node:
        nonlocal count
        kind = draw.random()
        if kind < 0.1:
            root.register_parameter(f"weight_{count}", nn.Parameter(torch.eye(4).reshape(4, 4, 1, 1)))
            weight = graph.get_attr(f"weight_{count}")
            count += 2
            return graph.call_function(torch.conv2d, (value, weight))
        count += 1
        return graph.call_function(torch.mul, (value, 0.5)) if kind < 0.3 else graph.call_function(torch.relu, (value,))

    while count < nodes - 3:
        kind = draw.random()
        if kind < 0.125:
            span = min(len(trunk), 2 + int(draw.expovariate(0.2)))
            trunk.append(graph.call_function(torch.add, (trunk[-1], trunk[-span])))
            count += 1
        elif kind < 0.15:
            left = right = trunk[-1]
            for _ in range(draw.randint(1, 3)):
                left = layer(left)
            for _ in range(draw.randint(1, 3)):
                right = layer(right)
            trunk.append(graph.call_function(torch.add, (left, right)))
            count += 1
        else:
            trunk.append(layer(trunk[-1]))
    root.register_parameter("weight_last", nn.Parameter(torch.eye(4).reshape(4, 4, 1, 1)))
    graph.output(graph.call_function(torch.conv2d, (trunk[-1], graph.get_attr("weight_last"))))
    graph_module = fx.GraphModule(root.eval(), graph, "Residual").eval()
    return retrace(graph_module, f"residual-{nodes}", [TensorSpec(_SHAPE, torch.float32)])


def scale_rows(sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Search networks of all `sizes`, one process each.

    Returns
    -------
    dict
        ``rows``: one for each size, ``wide``: width 4 at 10,000 nodes, ``exponent`` of seconds over nodes for single
        tensors, by least squares in logarithms, and ``seconds_100k`` where that size was asked for.
    """
    rows = [_in_own_process(size, 1) for size in sizes]
    return {
        "rows": rows,
        "wide": [_in_own_process(WIDE_SIZE, width) for width in WIDTHS if width > 1],
        "exponent": _exponent([(row["nodes"], row["search_s"]) for row in rows]),
        "seconds_100k": next((row["search_s"] for row in rows if row["asked_nodes"] == 100_000), None),
    }


def _in_own_process(size: int, width: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.frontier_scale", "--one", str(size), "--width", str(width)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(size: int, width: int) -> dict[str, Any]:
    """One row, measured in this process; each search is the first on its network."""
    frontiers(residual_network(_WARM_UP_SIZE), granularity="node", max_width=width)
    seconds: list[float] = []
    row: dict[str, Any] = {"asked_nodes": size, "max_width": width}
    for _ in range(ROUNDS if size <= WIDE_SIZE else 1):
        started = time.perf_counter()
        traced = residual_network(size)
        built = time.perf_counter()
        before_mb = _memory_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        searched = time.perf_counter()
        found = frontiers(traced, granularity="node", max_width=width)
        seconds.append(time.perf_counter() - searched)
        peak_mb = _memory_mb("VmHWM")
        row |= {
            "nodes": len(traced.nodes),
            "frontiers": len(found),
            "build_and_trace_s": built - started,
            "memory_before_mb": before_mb,
            "peak_memory_mb": peak_mb,
            # Later rounds find memory that earlier ones gave back.
            "peak_increase_mb": max(peak_mb - before_mb, row.get("peak_increase_mb", 0.0)),
        }
    return {**row, "search_s": min(seconds)}


def _memory_mb(field: str) -> float:
    """A line of ``/proc/self/status``, which counts in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """Slope of a line through the points in logarithms."""
    if len(points) < 2:
        return None
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - mean_x) ** 2 for x in xs)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--one", type=int, default=None, help=argparse.SUPPRESS)
    options.add_argument("--width", type=int, default=1, help=argparse.SUPPRESS)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    chosen = options.parse_args()
    if chosen.one is not None:
        print(json.dumps(measure(chosen.one, chosen.width)))
    else:
        print(json.dumps(scale_rows(chosen.sizes), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
