"""Frontiers: against brute force, on the zoo, by name, and in deep networks."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, fx, nn

from netcut_fx import cut_search
from netcut_fx.cut_graph import cut_graph
from netcut_fx.errors import InvalidFrontier
from netcut_fx.frontier import deepest_frontier, explain, find_frontier, frontiers
from netcut_fx.graph import Frontier, TensorSpec, TracedModule
from netcut_fx.passes.cut import cut_nodes
from netcut_fx.tracing import retrace, trace
from tests.brute_force import brute_force_frontiers
from tests.strategies import RandomNetwork, examples, random_networks
from tests.zoo import ZOO, traced_zoo


@settings(max_examples=200)
@given(random_networks())
def test_agrees_with_brute_force_over_all_down_sets(network: RandomNetwork) -> None:
    traced = trace(network, examples(network.inputs))
    for width in (1, 2, 3):
        found = frontiers(traced, granularity="node", max_width=width)
        assert {frozenset(f.nodes) for f in found} == brute_force_frontiers(traced, width)
        assert len({f.nodes for f in found}) == len(found) == len({f.name for f in found})


def test_brute_force_is_exercised() -> None:
    """The random networks contain what is hard: several widths, in-place operations, dead branches, sizes."""
    widths: set[int] = set()
    operations: set[str] = set()

    @settings(max_examples=200, database=None)
    @given(random_networks())
    def look(network: RandomNetwork) -> None:
        traced = trace(network, examples(network.inputs))
        widths.update(f.width for f in frontiers(traced, granularity="node", max_width=3))
        operations.update(step.operation for step in network.steps)

    look()
    assert widths == {1, 2, 3}
    assert {"relu_", "relu_statement", "iadd", "write_part", "size", "constant", "sum_batch", "argmax"} <= operations


@pytest.mark.parametrize("name", ZOO)
def test_what_a_cut_yields_is_what_the_source_computes_there(name: str) -> None:
    module, inputs = ZOO[name]()
    traced = trace(module, inputs, name=name)
    interpreter = fx.Interpreter(traced.graph_module, garbage_collect_values=False)
    with torch.no_grad():
        interpreter.run(*(x.clone() for x in inputs))
        values = {node.name: value for node, value in interpreter.env.items()}
        found = {f.nodes: f for g in ("block", "node") for f in frontiers(traced, granularity=g, max_width=2)}
        for frontier in list(found.values())[:: max(1, len(found) // 25)]:
            result = cut_nodes(traced, frontier.nodes).graph_module(*(x.clone() for x in inputs))
            crossing = result if frontier.width > 1 else (result,)
            for node, tensor, spec in zip(frontier.nodes, crossing, frontier.specs, strict=True):
                assert torch.equal(tensor, values[node]), (frontier.name, node)
                assert spec == TensorSpec(tuple(tensor.shape), tensor.dtype)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("granularity", ["block", "kernel", "node"])
def test_parameters_add_up_and_grow(name: str, granularity: str) -> None:
    traced = traced_zoo(name)
    total = sum(p.numel() for p in traced.graph_module.parameters())
    found = frontiers(traced, granularity=granularity, max_width=1)
    assert found
    assert all(f.kept_params + f.removed_params == total and f.removed_params > 0 for f in found)
    assert [f.kept_params for f in found] == sorted(f.kept_params for f in found)
    assert [f.kept_flops for f in found] == sorted(f.kept_flops for f in found)
    for frontier in frontiers(traced, granularity=granularity, max_width=2):
        kept = cut_nodes(traced, frontier.nodes).graph_module
        assert frontier.kept_params == sum(p.numel() for p in kept.parameters()), frontier.name


@pytest.mark.parametrize("name", ZOO)
def test_every_frontier_is_found_by_its_name(name: str) -> None:
    traced = traced_zoo(name)
    for granularity in ("block", "kernel", "node"):
        for frontier in frontiers(traced, granularity=granularity, max_width=3):
            assert find_frontier(traced, frontier.name).nodes == frontier.nodes
            assert explain(traced, frontier.name) is None


def test_a_frontier_tells_whether_a_block_ends_there() -> None:
    traced = traced_zoo("residual")
    blocks = {f.name for f in frontiers(traced)}
    for granularity in ("kernel", "node"):
        found = frontiers(traced, granularity=granularity)
        assert {f.name for f in found if f.granularity == "block"} == blocks
        assert {f.granularity for f in found} == {"block", granularity}
    kernels, nodes = (frontiers(traced, granularity=g) for g in ("kernel", "node"))
    assert {f.nodes for f in kernels} < {f.nodes for f in nodes}
    assert find_frontier(traced, "stem.2").granularity == deepest_frontier(traced).granularity == "node"
    assert find_frontier(traced, "layer1.0").granularity == "block"


def test_a_frontier_is_found_by_its_node_or_an_enclosing_module() -> None:
    traced = traced_zoo("residual")
    block = find_frontier(traced, "layer1.1")
    assert block.nodes == ("layer1_1_relu_1",)
    assert find_frontier(traced, "layer1.1.relu#2") == find_frontier(traced, "layer1") == block
    wide = find_frontier(traced, "layer1.0.conv1+stem.2")
    assert (wide.name, wide.nodes) == ("stem.2+layer1.0.conv1", ("stem_2", "layer1_0_conv1"))


def test_inputs_that_join_late_cross_too() -> None:
    shallow = frontiers(traced_zoo("two_inputs"), max_width=2)[1]
    assert shallow.nodes == ("vector", "stem_2")


def test_the_deepest_frontier_leaves_the_classifier_out() -> None:
    deepest = deepest_frontier(traced_zoo("inverted_residual"))
    assert deepest.name == "head.drop"
    assert deepest.removed_params == 32 * 5 + 5


def test_a_shared_parameter_is_kept_if_the_trunk_uses_it() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(self.b(torch.relu(self.a(x))))

    traced = trace(Shared(), torch.zeros(2, 4))
    found = frontiers(traced, granularity="node")
    assert [(f.name, f.kept_params, f.removed_params) for f in found] == [("a", 20, 20), ("relu", 20, 20)]
    assert "no parameter removed" in str(explain(traced, "b"))


def _from_graph(graph: fx.Graph, root: nn.Module) -> TracedModule:
    return retrace(fx.GraphModule(root.eval(), graph).eval(), "generated", [TensorSpec((2, 4), torch.float32)])


def _generated(length: int, *, branches: bool) -> TracedModule:
    """A chain; with `branches` every so often two values side by side, or a sum with an earlier value."""
    draw = random.Random(0)
    root = nn.Module()
    root.fc = nn.Linear(4, 4)
    graph = fx.Graph()
    values = [graph.placeholder("x")]
    while len(values) < length:
        kind = draw.random() if branches else 1.0
        if kind < 0.1:
            pair = [graph.call_function(torch.neg, (values[-1],)) for _ in range(2)]
            values.append(graph.call_function(torch.add, tuple(pair)))
        elif kind < 0.3:
            earlier = values[max(0, len(values) - draw.randint(2, 20))]
            values.append(graph.call_function(torch.add, (values[-1], earlier)))
        else:
            values.append(graph.call_function(torch.neg, (values[-1],)))
    graph.output(graph.call_module("fc", (values[-1],)))
    return _from_graph(graph, root)


def test_a_chain_of_5000_nodes() -> None:
    """Deeper than Python recurses."""
    traced = _generated(5000, branches=False)
    assert len(frontiers(traced, granularity="node", max_width=2)) == 4999
    assert deepest_frontier(traced).name == "neg#4999"
    assert frontiers(traced) == ()
    assert "no parameter removed" in str(explain(traced, "fc"))
    x = torch.randn(2, 4)
    assert torch.equal(cut_nodes(traced, find_frontier(traced, "neg#4998").nodes).graph_module(x), x)


def test_a_value_that_all_blocks_use_does_not_slow_the_search() -> None:
    """What is looked at for each block end stays the same, although no single tensor separates the network."""

    class Gated(nn.Module):
        def __init__(self, length: int) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(length))
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            gate, x = torch.sigmoid(x), torch.relu(x)
            for layer in self.layers:
                x = x + torch.relu(layer(x)) * gate
            return self.fc(x)

    for length in (5, 50):
        traced = trace(Gated(length), torch.zeros(2, 4))
        graph = cut_graph(traced)
        assert len(graph.separators) < 4
        found = frontiers(traced, max_width=3)
        assert len(found) == length
        cuts = [cut_search.closure(graph, [graph.position[n] for n in f.nodes]) for f in found]
        assert max(len(cut.more) for cut in cuts) <= 6


def test_wide_search_stays_local_in_a_deep_network() -> None:
    """The number of decisions of the search grows with the network, not with its square."""
    steps: list[int] = []
    for length in (500, 2000):
        graph = cut_graph(_generated(length, branches=True))
        end, free = len(graph.order), [True] * len(graph.order)
        used = 0
        borders = [*graph.separators, end]
        for base, stop in pairwise(borders):
            search = cut_search.RegionSearch(graph, base, stop, 3, steps=cut_search.SEARCH_STEPS)
            assert sum(1 for _ in search.run(free)) <= end
            used += cut_search.SEARCH_STEPS - search.steps
        steps.append(used)
    assert 0 < steps[1] < 8 * steps[0]


def test_too_many_wide_cuts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    root = nn.Module()
    root.fc = nn.Linear(4, 4)
    graph = fx.Graph()
    start = graph.call_function(torch.neg, (graph.placeholder("x"),))
    branches = []
    for _ in range(2):
        value = start
        for _ in range(60):
            value = graph.call_function(torch.neg, (value,))
        branches.append(value)
    graph.output(graph.call_module("fc", (graph.call_function(torch.add, tuple(branches)),)))
    traced = _from_graph(graph, root)
    assert len(frontiers(traced, granularity="node", max_width=2)) == 60 * 60 + 2 * 60 + 2
    monkeypatch.setattr(cut_search, "SEARCH_STEPS", 1000)
    with pytest.raises(InvalidFrontier) as refused:
        frontiers(traced, granularity="node", max_width=2)
    assert str(refused.value) == (
        "too many cuts of width up to 2 in generated behind neg to list; lower max_width, or use granularity='block'"
    )


def test_a_frontier_prints_its_width() -> None:
    frontier = frontiers(traced_zoo("dense"), max_width=3)[1]
    assert isinstance(frontier, Frontier)
    assert frontier.width == len(frontier.specs) == 3
