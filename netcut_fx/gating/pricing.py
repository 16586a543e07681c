"""The cost table of a gated network, from any price of a static network."""

from __future__ import annotations

from collections.abc import Callable

from cost_models import LatencyEstimate
from netcut_fx.gating.cost_table import CostTable, Unit, as_cost
from netcut_fx.gating.pieces import Pieces
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.latency import LatencyModel
from netcut_fx.passes.copying import copy_traced
from netcut_fx.tracing import retrace

#: Price of a network for one input: ms or FLOPs.
Price = Callable[[TracedModule], float]


def cost_table(
    pieces: Pieces,
    price: Price,
    *,
    unit: Unit = "ms",
    dispatch: float = 0.0,
    static: TracedModule | None = None,
) -> CostTable:
    """Price every piece once.

    Parameters
    ----------
    pieces : Pieces
        Of the gated network.
    price : callable
        Milliseconds, or FLOPs, of one piece: `price_of_model`, `flops`, or a measurement.
    unit : {"ms", "flops"}
        What `price` gives.
    dispatch : float
        What it takes to decide and to call each piece, for one input.
    static : TracedModule, optional
        The network without gates, priced along.

    Raises
    ------
    BudgetError
        Naming the piece that has no price.
    """

    def cost(piece: TracedModule | None) -> int:
        return 0 if piece is None else as_cost(unit, price(piece), piece.name)

    return CostTable(
        unit,
        sum(map(cost, pieces.always)) + as_cost(unit, dispatch, "dispatch"),
        tuple({width: cost(piece) for width, piece in cell.variants.items()} for cell in pieces.cells),
        tuple(cell.slots for cell in pieces.cells),
        0 if static is None else cost(for_one_input(static)),
    )


def for_one_input(traced: TracedModule) -> TracedModule:
    """The same network traced with a batch of one: prices are those of one input."""
    specs = [TensorSpec((1, *spec.shape[1:]), spec.dtype) for spec in traced.input_specs]
    if tuple(specs) == traced.input_specs:
        return traced
    return retrace(copy_traced(traced).graph_module, traced.name, specs)


def flops(piece: TracedModule) -> float:
    """Floating-point operations of a network; a multiply-add counts as two."""
    return float(sum(kernel.flops for kernel in kernels(piece)))


def price_of_model(model: LatencyModel) -> Price:
    """Milliseconds by a calibrated latency model; NaN where it does not know a kernel."""

    def price(piece: TracedModule) -> float:
        estimate: LatencyEstimate = model.price(kernels(piece))
        return estimate.ms

    return price
