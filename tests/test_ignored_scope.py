"""Where not to cut: the scope takes out exactly the cuts where a tensor in it crosses, and says so."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from netcut_fx.errors import InvalidFrontier
from netcut_fx.frontier import explain, find_frontier, frontiers, require_frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.ignored_scope import IgnoredScope, operation_kind
from netcut_fx.tracing import trace
from tests.brute_force import brute_force_frontiers
from tests.strategies import RandomNetwork, examples, random_networks
from tests.zoo import traced_zoo


def _in_scope(traced: TracedModule, node: fx.Node, scope: IgnoredScope) -> bool:
    """The definition, taken literally; in a random network only convolutions are made inside a module."""
    path = str(node.target) if node.op == "call_module" else ""
    paths = [path[:end] for end in range(1, len(path) + 1) if end == len(path) or path[end] == "."]
    return (
        node.meta["qualname"] in scope.names
        or operation_kind(traced, node) in scope.operations
        or any(fnmatchcase(part, pattern) for part in paths for pattern in scope.modules)
    )


def _some(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple) if values else st.just(())


@settings(max_examples=150)
@given(random_networks(), st.data())
def test_agrees_with_brute_force_less_what_is_in_the_scope(network: RandomNetwork, data: st.DataObject) -> None:
    traced = trace(network, examples(network.inputs))
    nodes = [n for n in traced.nodes if n.op != "output"]
    kinds = [kind for n in nodes if (kind := operation_kind(traced, n)) is not None]
    paths = [str(n.target) for n in nodes if n.op == "call_module" and str(n.target).startswith("convs.")]
    patterns = [*paths, *(["convs.*", "*s.*"] if paths else [])]
    scope = IgnoredScope(
        names=data.draw(_some([n.meta["qualname"] for n in nodes])),
        modules=data.draw(_some(list(dict.fromkeys(patterns)))),
        operations=data.draw(_some(list(dict.fromkeys(kinds)))),
    )
    for width in (1, 2, 3):
        expected = {
            crossing
            for crossing in brute_force_frontiers(traced, width)
            if not any(_in_scope(traced, traced.by_name[name], scope) for name in crossing)
        }
        found = frontiers(traced, granularity="node", max_width=width, ignored=scope)
        assert {frozenset(f.nodes) for f in found} == expected


@pytest.mark.parametrize("granularity", ["block", "kernel", "node"])
def test_all_granularities_leave_the_scope_out(granularity: str) -> None:
    traced = traced_zoo("dense")
    scope = IgnoredScope(modules=("block1.denselayer2",), operations=("AvgPool2d",))
    everything = frontiers(traced, granularity=granularity, max_width=3)
    left = frontiers(traced, granularity=granularity, max_width=3, ignored=scope)
    gone = [f for f in everything if f not in left]
    assert gone
    inside = ("cat_1", "transition_3", "block1_denselayer2_")
    assert all(any(node.startswith(inside) for node in f.nodes) for f in gone)
    assert not any(node.startswith(inside) and node != "cat_1" for f in left for node in f.nodes)
    assert frontiers(traced, granularity=granularity, max_width=3, ignored=IgnoredScope()) == everything


def test_a_wide_frontier_is_ignored_alone() -> None:
    traced = traced_zoo("dense")
    names = [f.name for f in frontiers(traced, max_width=3)]
    assert names == ["block1.denselayer1", "block1.denselayer2", "block1", "transition", "block2.denselayer1", "block2"]
    wide = IgnoredScope(names=("block1.denselayer1", "stem.2+block1.denselayer1.conv2+block1.denselayer2.conv2"))
    left = [f.name for f in frontiers(traced, max_width=3, ignored=wide)]
    assert left == ["block1", "transition", "block2.denselayer1", "block2"]


def test_a_block_is_ignored_by_its_name() -> None:
    traced = traced_zoo("residual")
    scope = IgnoredScope(names=("layer1.1",))
    assert [f.name for f in frontiers(traced, ignored=scope)] == ["layer1.0", "layer2.0", "layer2.1"]
    assert str(explain(traced, "layer1.1", ignored=scope)).startswith(
        "cannot cut residual at layer1.1: ignored: its name layer1.1 is in the ignored scope; "
    )


def test_explain_says_what_matched() -> None:
    traced = traced_zoo("residual")
    scope = IgnoredScope(modules=("layer1.*",))
    with pytest.raises(InvalidFrontier) as refused:
        find_frontier(traced, "layer1.1", ignored=scope)
    assert str(refused.value) == explain(traced, "layer1.1", ignored=scope)
    assert str(refused.value) == (
        "cannot cut residual at layer1.1: ignored: its module layer1.1 matches 'layer1.*'; "
        "the nearest single tensor to cut at is 'stem.2' or 'layer2.0.add'"
    )
    operations = IgnoredScope(operations=("ReLU",))
    assert str(explain(traced, "layer1.1", ignored=operations)).startswith(
        "cannot cut residual at layer1.1: ignored: it is the result of ReLU; the nearest"
    )
    assert explain(traced, "layer2.0", ignored=scope) is None
    assert find_frontier(traced, "layer2.0", ignored=scope) == find_frontier(traced, "layer2.0")


@pytest.mark.parametrize(
    ("scope", "text"),
    [
        (
            IgnoredScope(names=("layer9.1",)),
            "ignored name 'layer9.1' is no node or frontier of residual; "
            "did you mean 'layer2.1' or 'layer1.1' or 'layer2.0'?",
        ),
        (
            IgnoredScope(names=("zzzz",)),
            "ignored name 'zzzz' is no node or frontier of residual; "
            "list the names with netcut frontiers, or frontiers(traced)",
        ),
        (
            IgnoredScope(modules=("layr1",)),
            "ignored modules 'layr1' match no module of residual; did you mean 'layer1' or 'layer2.1' or 'layer1.1'?",
        ),
        (
            IgnoredScope(modules=("z*z",)),
            "ignored modules 'z*z' match no module of residual; give a module path as in its node names, "
            "with * for any part",
        ),
        (
            IgnoredScope(operations=("relu",)),
            "ignored operation 'relu' does not occur in residual; did you mean 'ReLU'?",
        ),
        (
            IgnoredScope(operations=("zzzz",)),
            "ignored operation 'zzzz' does not occur in residual; it has AdaptiveAvgPool2d, BatchNorm2d, Conv2d, "
            "Dropout, Flatten, Linear, ReLU, add",
        ),
    ],
)
def test_what_matches_nothing_is_refused(scope: IgnoredScope, text: str) -> None:
    with pytest.raises(InvalidFrontier) as refused:
        frontiers(traced_zoo("residual"), ignored=scope)
    assert str(refused.value) == text


def test_all_ignored_is_said() -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(torch.relu(self.a(x))))

    traced = trace(Three(), torch.zeros(2, 4))
    with pytest.raises(InvalidFrontier) as refused:
        require_frontiers(traced, ignored=IgnoredScope(operations=("Linear", "relu")))
    assert str(refused.value) == "Three has no block frontier of width up to 1; all 2 of them are ignored; ignore less"
    with pytest.raises(InvalidFrontier) as refused:
        require_frontiers(traced_zoo("inplace_relu"), ignored=IgnoredScope(operations=("relu", "ReLU", "relu_")))
    assert str(refused.value).endswith("are ignored; ignore less")
    left = require_frontiers(traced, granularity="node", ignored=IgnoredScope(operations=("Linear",)))
    assert [f.name for f in left] == ["relu"]
