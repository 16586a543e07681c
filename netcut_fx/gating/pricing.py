"""The cost table of a gated network, from any price of a static network.

A cell at a width costs what the whole path loses when the cell is narrowed from it to its least width, all others being
kept: what is fused across cells, and what layouts cost between them, is then counted as it really is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from cost_models import LatencyEstimate
from netcut_fx.backends.base import Backend
from netcut_fx.gating.cost_table import CostTable, Unit, as_cost
from netcut_fx.gating.pieces import cells_of, entry_piece, gates_of, path_piece
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.latency import LatencyModel
from netcut_fx.measure import Stopwatch
from netcut_fx.passes.copying import copy_traced
from netcut_fx.tracing import retrace

#: Prices of networks for one input, in ms or FLOPs.
Prices = Callable[[Sequence[TracedModule]], Sequence[float]]


def cost_table(
    gated: TracedModule, prices: Prices, *, unit: Unit = "ms", dispatch: float = 0.0, static: TracedModule | None = None
) -> CostTable:
    """Price the cells of a gated network.

    Parameters
    ----------
    gated : TracedModule
        With gates.
    prices : callable
        Milliseconds, or FLOPs, of some networks: `flops`, `ms_of_model` or `ms_measured`.
    unit : {"ms", "flops"}
        What `prices` gives.
    dispatch : float
        What it takes to decide and to call two pieces, for one input.
    static : TracedModule, optional
        The network without gates, priced along.

    Raises
    ------
    BudgetError
        Naming the piece that has no price.
    """
    slots = tuple(cell.slots for cell in cells_of(gated))
    full, least = tuple(s.widths[-1] for s in slots), tuple(s.widths[0] for s in slots)
    entry = entry_piece(gated, range(gates_of(gated).total))
    networks = [entry, path_piece(gated, full), path_piece(gated, least)]
    networks += [] if static is None else [for_one_input(static)]
    # Paths of the same kernels cost the same: cells repeat.
    by_kernels: dict[Any, int] = {}
    place: dict[tuple[int, int], int] = {}
    for number, one in enumerate(slots):
        for width in one.widths[:-1]:
            path = path_piece(gated, (*full[:number], width, *full[number + 1 :]))
            key = tuple(sorted(kernel.key for kernel in kernels(path)))
            if key not in by_kernels:
                by_kernels[key] = len(networks)
                networks.append(path)
            place[number, width] = by_kernels[key]
    found = [as_cost(unit, price, n.name) for price, n in zip(prices(networks), networks, strict=True)]
    cells = [
        _costs({w: found[1] - found[place[number, w]] for w in one.widths[:-1]} | {one.widths[-1]: 0})
        for number, one in enumerate(slots)
    ]
    # What cells save one by one need not add up; the ends of the table are those that were priced.
    whole, real = sum(max(costs.values()) for costs in cells), max(0, found[1] - found[2])
    cells = [{w: round(cost * real / max(1, whole)) for w, cost in costs.items()} for costs in cells]
    rest = found[0] + found[1] - sum(costs[s.widths[-1]] for costs, s in zip(cells, slots, strict=True))
    always = max(0, rest) + as_cost(unit, dispatch, "dispatch")
    return CostTable(unit, always, tuple(cells), slots, 0 if static is None else found[3])


def _costs(saved: dict[int, int]) -> dict[int, int]:
    """Costs of a cell from what its widths save; where less was measured to take longer, it costs the same."""
    widths = sorted(saved, reverse=True)
    least = list(accumulate((max(0, saved[w]) for w in widths), max))
    return {w: least[-1] - ns for w, ns in zip(reversed(widths), reversed(least), strict=True)}


def for_one_input(traced: TracedModule) -> TracedModule:
    """The same network traced with a batch of one: prices are those of one input."""
    specs = [TensorSpec((1, *spec.shape[1:]), spec.dtype) for spec in traced.input_specs]
    if tuple(specs) == traced.input_specs:
        return traced
    return retrace(copy_traced(traced).graph_module, traced.name, specs)


def flops(networks: Sequence[TracedModule]) -> list[float]:
    """Floating-point operations of networks; a multiply-add counts as two."""
    return [float(sum(kernel.flops for kernel in kernels(network))) for network in networks]


def ms_of_model(model: LatencyModel) -> Prices:
    """Milliseconds by a calibrated latency model; NaN where it does not know a kernel."""

    def prices(networks: Sequence[TracedModule]) -> list[float]:
        estimates: list[LatencyEstimate] = [model.price(kernels(network)) for network in networks]
        return [estimate.ms for estimate in estimates]

    return prices


def ms_measured(backend: Backend, watch: Stopwatch, **options: Any) -> Prices:
    """Milliseconds of compiled networks, measured in turn; `options` go to `Backend.compile`."""

    def prices(networks: Sequence[TracedModule]) -> list[float]:
        timers = [backend.compile(network, **options).timer() for network in networks]
        # The fastest round: what others do on the machine meanwhile is no cost of a cell.
        return [measured.min_ms for measured in watch.measure_interleaved(timers)]

    return prices


def path_flops(gated: TracedModule, widths: Sequence[Sequence[int]]) -> list[int]:
    """Operations of whole paths, the entry included."""
    entry = flops([entry_piece(gated, range(gates_of(gated).total))])[0]
    return [round(entry + found) for found in flops([path_piece(gated, one) for one in widths])]
