"""What is observed about memory and batch: per operation once, whatever it is called."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from netcut_fx.effects import observe
from netcut_fx.frontier import explain, frontiers
from netcut_fx.graph import TensorSpec
from netcut_fx.passes.cut import cut_nodes
from netcut_fx.passes.dead_code import DeadCode
from netcut_fx.tracing import retrace, trace
from tests.zoo import image


def _overwriting(x: Tensor) -> Tensor:
    """An in-place operation that no name gives away."""
    return x.mul_(2)


fx.wrap("_overwriting")


class Writing(nn.Module):
    """Writes into a view of what it made, by a function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        _overwriting(made[:, :2])
        return self.fc(made + 1)


def test_writes_are_seen_whatever_the_function_is_called() -> None:
    traced = trace(Writing(), image(), via="fx")
    effects = observe(traced)
    assert set(effects.written) == {"_overwriting"}
    assert effects.storages["conv"] == effects.storages["getitem"] == tuple(effects.written["_overwriting"])
    assert effects.storages["add"] != effects.storages["conv"]
    assert "changed in place later by overwriting" in str(explain(traced, "conv"))
    assert [f.name for f in frontiers(traced, granularity="node")] == ["add"]


def test_passes_keep_what_writes_unseen() -> None:
    module = Writing().eval()
    traced = trace(module, image(), via="fx")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(DeadCode()(traced).graph_module(x), module(x))
    assert torch.equal(module.fc(cut_nodes(traced, ("add",)).graph_module(x)), module(x))


def test_exported_graphs_write_by_aten_operators() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            made = self.conv(x)
            made[:, :2].add_(1)
            return self.fc(made * 2)

    module = InPlace().eval()
    traced = trace(module, image(), via="export")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = module(x)
    assert "changed in place later" in str(explain(traced, "conv"))
    (frontier,) = frontiers(traced, granularity="node")
    assert torch.equal(module.fc(cut_nodes(traced, frontier.nodes).graph_module(x)), expected)
    assert torch.equal(DeadCode()(traced).graph_module(x), expected)


def test_a_view_with_the_batch_size_written_into_it_is_still_a_view() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc1, self.fc2 = nn.Conv2d(3, 2, 1), nn.Linear(32, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            made = self.conv(x)
            flat = made.view(2, 32)
            made.relu_()
            return self.fc2(self.fc1(flat))

    traced = trace(Fixed(), torch.zeros(2, 3, 4, 4))
    effects = observe(traced)
    assert effects.storages["view"] == effects.storages["conv"]
    assert "changed in place later by relu_" in str(explain(traced, "view"))
    assert [f.name for f in frontiers(traced, granularity="node")] == ["fc1"]


def test_nodes_that_look_alike_are_run_once() -> None:
    def chain(length: int) -> int:
        root, graph = nn.Module(), fx.Graph()
        value = graph.placeholder("x")
        for step in range(length):
            root.register_parameter(f"weight_{step}", nn.Parameter(torch.eye(4)))
            value = graph.call_function(torch.matmul, (value, graph.get_attr(f"weight_{step}")))
            value = graph.call_function(torch.relu, (value,))
        graph.output(value)
        traced = retrace(fx.GraphModule(root, graph).eval(), "chain", [TensorSpec((2, 4), torch.float32)])
        assert len(observe(traced).kinds) == 2 * length
        return len(set(observe(traced).kinds.values()))

    assert chain(5) == chain(50) == 2


def test_kinds_tell_shapes_options_and_shared_memory_apart() -> None:
    class Similar(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = x.clone()
            return x + y, y + x, x + x, x.sum(1), x.sum(2), torch.cat([x, y], 1), torch.cat([x, y], 2), x * 1, x * 1.0

    kinds = observe(trace(Similar(), image())).kinds
    assert kinds["add"] == kinds["add_1"]
    assert kinds["add"] != kinds["add_2"]
    assert len(set(kinds.values())) == len(kinds) - 1
