"""What makes a cut invalid, and what the refusal says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.errors import InvalidFrontier, SpecError
from netcut_fx.frontier import deepest_frontier, explain, find_frontier, frontiers, require_frontiers
from netcut_fx.tracing import trace
from tests.zoo import ZOO, image, traced_zoo


def test_a_frontier_keeps_the_batch_when_the_batch_is_one() -> None:
    traced = trace(ZOO["transformer"]()[0], image(batch=1))
    assert [f.name for f in frontiers(traced)] == ["blocks.0", "blocks.1"]
    assert [f.specs[0].shape for f in frontiers(traced)] == [(1, 17, 8), (1, 17, 8)]


def test_a_first_dimension_that_only_looks_like_the_batch_is_none() -> None:
    class Channels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)
            self.fc = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(x).transpose(0, 1).flatten(2)).mean(1)

    traced = trace(Channels(), torch.zeros(2, 3, 4, 4))
    assert explain(traced, "transpose") == (
        "cannot cut Channels at transpose: batch dimension lost: the first dimension of float32[2, 2, 4, 4] is not the "
        "batch; the nearest single tensor to cut at is 'conv'"
    )


def test_a_batch_size_written_into_the_network_falls_back_to_the_shape() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)
            self.fc1, self.fc2 = nn.Linear(32, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(self.fc1(self.conv(x).reshape(2, 32)))

    traced = trace(Fixed(), torch.zeros(2, 3, 4, 4))
    assert [f.name for f in frontiers(traced, granularity="node")] == ["conv", "reshape", "fc1"]


@pytest.mark.parametrize(
    ("network", "name", "reason"),
    [
        ("residual", "x", "it is an input: nothing of the network would be kept; the nearest single tensor"),
        ("residual", "output", "it is the output: nothing would be removed; "),
        ("residual", "head.fc", "no parameter removed: nothing with parameters lies behind it; "),
        ("residual", "head", "no parameter removed: nothing with parameters lies behind it; "),
        (
            "residual",
            "layer1.0.conv1",
            "other tensor stem.2 also crosses: width 2; to cut there say 'stem.2+layer1.0.conv1'",
        ),
        (
            "dense",
            "block1.denselayer2.conv2",
            "other tensors stem.2, block1.denselayer1.conv2 also cross: width 3; to cut there say 'block1.denselayer2'",
        ),
        (
            "residual_inplace",
            "layer1.0.bn1",
            "changed in place later by layer1.0.relu; "
            "the nearest single tensor to cut at is 'stem.2' or 'layer1.0.relu#2'",
        ),
        ("inplace_relu", "conv3", "changed in place later by relu_; "),
        (
            "transformer",
            "blocks.0.attention.permute",
            "batch dimension lost: the first dimension of float32[3, 2, 2, 17, 4] is not the batch; ",
        ),
        ("transformer", "class_token", "it is a parameter, not computed from the input; "),
        ("functional", "size", "its value is no tensor; the nearest single tensor to cut at is 'flatten' or 'reshape'"),
        ("dead_branch", "auxiliary.1", "its value does not come from an input or does not reach the output; "),
        ("dead_branch", "auxiliary", "nothing in it comes from an input and reaches the output; "),
    ],
)
def test_refusals_say_why(network: str, name: str, reason: str) -> None:
    traced = traced_zoo(network)
    with pytest.raises(InvalidFrontier) as refused:
        find_frontier(traced, name)
    text = str(refused.value)
    assert text.startswith(f"cannot cut {network} at {name}: {reason}")
    assert "\n" not in text
    assert explain(traced, name) == text


def test_integer_and_tuple_values_are_refused() -> None:
    class Codes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.table, self.fc = nn.Conv2d(3, 4, 1), nn.Embedding(4, 6), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.table(self.conv(x).argmax(1)).chunk(2, -1)
            return self.fc(first + second)

    traced = trace(Codes(), torch.zeros(2, 3, 4, 4))
    assert "at argmax: integer tensor int64[2, 4, 4]; " in str(explain(traced, "argmax"))
    assert "at chunk: it yields 2 values, not one tensor; " in str(explain(traced, "chunk"))
    assert [f.name for f in frontiers(traced, granularity="node", max_width=2)] == [
        "conv",
        "table",
        "getitem+getitem#2",
        "add",
    ]


def test_unknown_names_say_what_may_have_been_meant() -> None:
    with pytest.raises(InvalidFrontier) as refused:
        find_frontier(traced_zoo("residual"), "layer9.1")
    assert str(refused.value) == (
        "no node or module 'layer9.1' in residual; did you mean 'layer2.1' or 'layer1.1' or 'layer1'?"
    )
    with pytest.raises(
        InvalidFrontier, match=r"^no node or module 'zzzz' in residual; list the names with netcut frontiers"
    ):
        find_frontier(traced_zoo("residual"), "zzzz")


def test_options_are_checked() -> None:
    traced = traced_zoo("residual")
    with pytest.raises(SpecError, match=r"^unknown granularity 'layer'; use one of block, kernel, node$"):
        frontiers(traced, granularity="layer")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SpecError, match=r"^max_width is 0, but at least one tensor crosses a cut; use 1 or more$"):
        frontiers(traced, max_width=0)


def test_no_frontier_at_all_is_an_error_with_advice() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.relu(self.a(x))) + self.b(x)

    single = trace(Single(), torch.zeros(2, 4))
    with pytest.raises(InvalidFrontier) as refused:
        require_frontiers(single)
    assert str(refused.value) == (
        "Single has no block frontier of width up to 1; the network has no point where a trunk could end"
    )
    with pytest.raises(InvalidFrontier, match=r"^Single has no frontier where one tensor crosses; look at wider ones"):
        deepest_frontier(single)
    parallel = trace(Parallel(), torch.zeros(2, 4))
    with pytest.raises(
        InvalidFrontier, match=r"at its block ends 2 or more tensors cross, use --max-width 2 \(max_width=2\)$"
    ):
        require_frontiers(parallel)
    assert require_frontiers(parallel, max_width=2)
