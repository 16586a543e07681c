"""Gated networks as pieces: each variant computes what the gated network does, with less work."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from netcut_fx.errors import PassError
from netcut_fx.gating.pieces import CellPieces, Pieces, split
from netcut_fx.gating.pricing import cost_table, flops
from netcut_fx.graph import TracedModule
from netcut_fx.passes import GatePass
from netcut_fx.verify import check
from tests.gating.deciding import vary
from tests.passes.comparing import assert_near, results
from tests.zoo import traced_zoo


def run(pieces: Pieces, image: Tensor, widths: Sequence[int] | None = None) -> Tensor:
    """Run the pieces one after the other in torch, by their own decisions or by `widths`."""
    with torch.no_grad():
        x = pieces.stem.graph_module(image)
        raw = pieces.gates.graph_module(x)[0]
        table = cost_table(pieces, lambda _: 1.0)
        chosen = iter(table.choose(raw[: pieces.total].numpy()) if widths is None else widths)
        scales = raw[pieces.total :]
        for step in pieces.steps:
            if isinstance(step, TracedModule):
                x = step.graph_module(x)
                continue
            width = next(chosen)
            variant = step.variants[width]
            if variant is not None:
                x = variant.graph_module(x, *given_scales(step, width, scales, variant))
        return x


def given_scales(step: CellPieces, width: int, scales: Tensor, variant: TracedModule) -> list[Tensor]:
    found: list[Tensor] = []
    shapes = [spec.shape for spec in variant.input_specs[1:]]
    if step.scaled and width and step.slots.layer is not None:
        found.append(scales[step.slots.layer])
    if step.channel_groups is not None and width and step.slots.first_group is not None:
        found.append(scales[[step.slots.first_group + g for g in step.channel_groups[width]]])
    return [s.reshape(shape) for s, shape in zip(found, shapes, strict=True)]


@pytest.mark.parametrize("name", ["residual", "inverted_residual", "transformer", "dense", "squeeze_excite"])
def test_pieces_compute_what_the_gated_network_does(name: str) -> None:
    gated = GatePass(hidden=4)(traced_zoo(name))
    images = torch.randn(12, 3, 32, 32)
    vary(gated, images)
    pieces = split(gated)
    for piece in (*pieces.always, *(v for c in pieces.cells for v in c.variants.values() if v is not None)):
        check(piece)
    for image in images:
        assert_near([run(pieces, image[None])], results(gated, (image[None],)))


def test_a_narrower_variant_has_fewer_operations() -> None:
    static = traced_zoo("residual")
    pieces = split(GatePass()(static))
    table = cost_table(pieces, flops, unit="flops", static=static)
    assert [list(costs) for costs in table.cells] == [[0, 1, 2, 3, 4]] * 4
    for costs in table.cells:
        assert costs[0] < costs[1] < costs[2] < costs[3] < costs[4]
        assert costs[1] < 0.4 * costs[4]
    assert table.cells[0][0] == 0  # a ReLU of what is positive already
    gates = flops(pieces.gates)
    assert table.full == pytest.approx(table.static + gates, rel=0.02)


def test_a_network_without_gates_has_no_pieces() -> None:
    with pytest.raises(PassError) as error:
        split(traced_zoo("residual"))
    assert str(error.value) == "residual has no gates; run the pass gate on it first"
