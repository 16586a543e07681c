"""Where a network can skip."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.errors import NothingToSkip
from netcut_fx.gating.cells import Cell, find_cells
from netcut_fx.gating.channels import channel_sets
from netcut_fx.gating.regions import residual_regions
from netcut_fx.tracing import trace
from tests.zoo import ZOO, Classifier, ConvBnRelu, Residual, traced_zoo

SKIPPABLE = {
    "residual": 4,
    "residual_inplace": 4,
    "inverted_residual": 2,
    "transformer": 4,
    "windows": 4,
    "sequence": 1,
}


@pytest.mark.parametrize("name", ZOO)
def test_regions_of_the_zoo(name: str) -> None:
    traced = traced_zoo(name)
    regions, _ = residual_regions(traced)
    assert len(regions) == SKIPPABLE.get(name, 0)
    for region in regions:
        # Single entry and single exit, against the graph itself.
        body = {traced.by_qualname[n] for n in region.body}
        outside = {source for node in body for source in node.all_input_nodes} - body
        assert {n.meta["qualname"] for n in outside if n.op != "get_attr" and n.meta["spec"]} == {region.entry}
        users = {user for node in body for user in node.users} - body
        assert {n.meta["qualname"] for n in users if n.meta["spec"]} == {region.addition}


def test_shortcuts_are_identities_or_projections() -> None:
    regions, reasons = residual_regions(traced_zoo("residual"))
    assert [r.shortcut for r in regions] == ["stem.2", "layer1.0.relu#2", "layer2.0.shortcut.1", "layer2.0.relu#2"]
    assert [r.entry for r in regions] == ["stem.2", "layer1.0.relu#2", "layer1.1.relu#2", "layer2.0.relu#2"]
    assert regions[2].body == ("layer2.0.conv1", "layer2.0.bn1", "layer2.0.relu", "layer2.0.conv2", "layer2.0.bn2")
    assert reasons == ()


class Padded(nn.Module):
    """A shortcut that is strided and padded, as in CIFAR's ResNets; the sum in functional form."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(ConvBnRelu(4, 8, stride=2), nn.Conv2d(8, 8, 3, padding=1))
        self.head = Classifier(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.add(self.body(x), nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))))


def test_a_padded_shortcut_is_a_shortcut() -> None:
    (region,), _ = residual_regions(trace(Padded(), torch.zeros(1, 3, 8, 8)))
    assert (region.entry, region.shortcut, region.body[0]) == ("stem", "pad", "body.0.0")


def test_channels_of_an_addition_go_together() -> None:
    sets = {s.producers: s for s in channel_sets(traced_zoo("residual"))}
    trunk = sets["stem.0", "layer1.0.conv2", "layer1.1.conv2"]
    assert [name for name, _ in trunk.consumers] == [
        "layer1.0.conv1",
        "layer1.1.conv1",
        "layer2.0.shortcut.0",
        "layer2.0.conv1",
    ]
    inner = sets["layer1.0.conv1",]
    assert inner.through == (("layer1.0.bn1", 0), ("layer1.0.relu", 0))
    assert inner.consumers == (("layer1.0.conv2", 0),)
    assert (inner.channels, inner.refused) == (8, "")


def test_depthwise_follows_and_concatenation_shifts() -> None:
    sets = {s.producers[0]: s for s in channel_sets(traced_zoo("inverted_residual"))}
    assert ("blocks.1.conv.1.0", 0) in sets["blocks.1.conv.0.0"].through
    branches = {s.producers[0]: s for s in channel_sets(traced_zoo("inception"))}
    assert branches["mixed1.branch3.1.0"].consumers == tuple(
        (f"mixed2.{name}", 4) for name in ("branch1.0", "branch3.0.0", "branch_pool.0")
    )


def test_squeeze_and_excitation_couples_the_gate_with_what_it_scales() -> None:
    assert any(s.producers == ("blocks.0.conv", "blocks.0.expand") for s in channel_sets(traced_zoo("squeeze_excite")))


@pytest.mark.parametrize("name", ZOO)
def test_cells_do_not_overlap(name: str) -> None:
    traced = traced_zoo(name)
    try:
        cells = find_cells(traced)
    except NothingToSkip:
        return
    bodies = [n for cell in cells for n in cell.body]
    assert len(bodies) == len(set(bodies))
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        assert cell.skippable or cell.sets
        assert all(s.nodes <= set(cell.body) for s in cell.sets)


def test_layers_or_channels_alone() -> None:
    traced = traced_zoo("inverted_residual")
    layers, channels = find_cells(traced, channels=False), find_cells(traced, layers=False)
    assert [c.name for c in layers] == ["blocks.0.conv", "blocks.2.conv"]
    assert not any(c.sets for c in layers)
    assert not any(c.skippable for c in channels)

    def producers(cells: tuple[Cell, ...]) -> set[str]:
        return {p for c in cells for s in c.sets for p in s.producers}

    assert producers(channels) == producers(find_cells(traced)) != set()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("functional", "channels of conv1 are read by getattr"),
        ("two_inputs", "channels of stem.0 reach around other paths; channels of body.0 reach around other paths"),
    ],
)
def test_nothing_to_skip_says_why(name: str, reason: str) -> None:
    with pytest.raises(NothingToSkip) as error:
        find_cells(traced_zoo(name))
    assert str(error.value) == (
        f"nothing to skip in {name}: no residual region or channel group lies on the path from input to output "
        f"({reason}); gate a network with residual blocks or with plain convolutions in a row"
    )


class Shared(nn.Module):
    """One convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(self.conv(self.stem(x)))).mean((2, 3))


def test_weights_used_twice_are_left_alone() -> None:
    with pytest.raises(NothingToSkip):
        find_cells(trace(Shared(), torch.zeros(1, 3, 12, 12)))


def test_a_network_without_room_for_groups() -> None:
    with pytest.raises(NothingToSkip, match="too few"):
        find_cells(trace(Residual(), torch.zeros(1, 3, 32, 32)), layers=False, multiple=16)
