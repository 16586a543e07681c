"""What makes two kernels neighbours: the family of their schedules, and the extents that decide among them."""

from __future__ import annotations

import math
from typing import Any

from netcut_fx.backends.tvm.records import workload_hash
from netcut_fx.backends.tvm.schedules.injective import is_injective
from netcut_fx.backends.tvm.schedules.kernel import Kernel, read_kernel
from netcut_fx.backends.tvm.schedules.winograd_nests import PRODUCTS
from netcut_fx.backends.tvm.trial_log import Workload


def workload_of(module: Any) -> Workload:
    """Read the kernel of `module`, a TVM module with one function ``main`` that is not scheduled.

    ``dense``, ``depthwise`` and ``window`` have the extents `rows` (output positions), `width` (the innermost of them),
    `channels`, `depth` (products or elements of one sum) and `window` (its part that is no channel); ``winograd`` has
    `rows` (tiles), `channels` and `depth`.
    """
    name, kernel = workload_hash(module), read_kernel(module["main"])
    if kernel is None:
        return Workload(name)
    if is_injective(kernel):
        return Workload(name, "injective", {"points": kernel.last.points})
    return Workload(name, *_sum(kernel))


def _sum(kernel: Kernel) -> tuple[str, dict[str, int]]:
    found, axes = kernel.contraction, kernel.anchor.axes
    sums = [axis.extent for axis in axes if axis.reduces]
    if found is None:
        kept = [axis.extent for axis in axes if not axis.reduces]
        if kernel.anchor.name == PRODUCTS:
            return "winograd", {"rows": math.prod(kept[2:-1]), "channels": kept[-1], "depth": math.prod(sums)}
        return "window", {"points": math.prod(kept), "depth": math.prod(sums)}
    rows = [axis.extent for axis in found.rows if axis.extent > 1] or [1]
    in_sum = found.sums[-1].extent if found.kind == "dense" else 1
    return found.kind, {
        "rows": math.prod(rows),
        "width": rows[-1],
        "channels": found.channel.extent,
        "depth": found.depth,
        "window": found.depth // in_sum,
    }
