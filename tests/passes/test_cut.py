"""Pass ``cut``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from netcut_fx.errors import InvalidFrontier
from netcut_fx.frontier import find_frontier
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.passes import CutPass, cut_nodes, weightless
from netcut_fx.passes.copying import copy_traced
from netcut_fx.pooling import pool_of
from netcut_fx.text import to_text
from netcut_fx.tracing import trace
from netcut_fx.verify import check, check_no_shared_storage
from tests.passes.comparing import assert_equal, lively, results
from tests.zoo import ZOO


class Activations(fx.Interpreter):
    """Every tensor as it is when its node has run."""

    def __init__(self, traced: TracedModule) -> None:
        super().__init__(traced.graph_module)
        self.made: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.made[n.name] = value.clone()
        return value


def activations(traced: TracedModule, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Activations of the uncut network by fx name."""
    recorder = Activations(traced)
    with torch.no_grad():
        recorder.run(*(x.clone() for x in inputs))
    return recorder.made


class Branches(nn.Module):
    """Two branches, the second of which writes into what the first reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        left = self.left(x)
        right = self.right(self.relu(x))
        return self.fc(torch.cat([left, right], 1).mean((2, 3)))


def branches() -> TracedModule:
    return trace(lively(Branches()), torch.zeros(2, 3, 6, 6))


def test_golden(golden: Callable[[str, str], None]) -> None:
    traced = branches()
    golden("cut_before", to_text(traced))
    golden("cut_after", to_text(CutPass(at="stem.0")(traced)))


@pytest.mark.parametrize("name", ZOO)
def test_every_single_node_of_the_zoo(name: str) -> None:
    model, inputs = ZOO[name]()
    traced = trace(model, inputs)
    state, expected = traced.state_hash(), activations(traced, inputs)
    for node in traced.nodes:
        if node.op in ("placeholder", "output", "get_attr") or not isinstance(node.meta["spec"], TensorSpec):
            continue
        after = cut_nodes(traced, [node.name])
        check(after)
        check_no_shared_storage(traced, after)
        assert_equal(results(after, inputs), [expected[node.name]])
        assert {n.name for n in after.nodes} <= {n.name for n in traced.nodes}
    assert traced.state_hash() == state


def test_several_tensors_come_out_in_execution_order() -> None:
    traced = branches()
    inputs = (torch.randn(2, 3, 6, 6),)
    expected = activations(traced, inputs)
    after = cut_nodes(traced, ["right", "left"])
    check(after)
    assert_equal(results(after, inputs), [expected["left"], expected["right"]])
    assert "fc" not in dict(after.graph_module.named_modules())
    assert after.output.meta["spec"] == (traced.by_name["left"].meta["spec"], traced.by_name["right"].meta["spec"])


def test_a_write_behind_the_cut_changes_nothing() -> None:
    traced = branches()
    inputs = (torch.randn(2, 3, 6, 6),)
    after = cut_nodes(traced, ["stem_1"])
    assert float(results(after, inputs)[0].min()) < 0
    assert [node.meta["qualname"] for node in after.nodes] == ["x", "stem.0", "stem.1", "output"]


def test_a_write_between_crossing_tensors_is_refused() -> None:
    traced = branches()
    with pytest.raises(InvalidFrontier) as error:
        cut_nodes(traced, ["stem_1", "right"])
    assert str(error.value) == (
        "cannot cut Branches at stem.1+right: the in-place relu overwrites one tensor before the others exist; "
        "cut behind that operation"
    )


def test_names_and_weights_survive() -> None:
    traced = branches()
    after = CutPass(at="stem.0")(traced)
    kept = {name: value for name, value in traced.graph_module.state_dict().items() if name.startswith("stem.0")}
    assert after.graph_module.state_dict().keys() == kept.keys()
    for node in after.nodes:
        if node.op != "output":
            meta = dict(node.meta)
            assert meta.pop("pool", None) == ("channels-first" if node.name == "stem_0" else None)
            assert meta == traced.by_name[node.name].meta


def test_how_the_source_pools_is_remembered_through_copies_and_further_cuts() -> None:
    model, inputs = ZOO["transformer"]()
    traced = trace(model, inputs)
    last = CutPass(at="norm")(traced)
    again = CutPass(at="blocks.0")(copy_traced(last))
    assert pool_of(again, again.by_qualname["blocks.0.add#2"]) == "class-token"
    assert again.by_qualname["blocks.0.add#2"].meta["pool"] == "class-token"
    assert "pool" not in traced.by_qualname["norm"].meta
    assert find_frontier(last, "blocks.0").pools == find_frontier(traced, "blocks.0").pools == ("class-token",)


def test_without_weights() -> None:
    traced = branches()
    after = CutPass(at="stem.0")(weightless(traced))
    assert to_text(after) == to_text(CutPass(at="stem.0")(traced))
    assert all(p.is_meta for p in after.graph_module.parameters())


def test_unknown_frontier() -> None:
    with pytest.raises(InvalidFrontier, match="nowhere"):
        CutPass(at="nowhere")(branches())


def test_training_a_cut_leaves_its_source_alone() -> None:
    traced = branches()
    state = traced.state_hash()
    after = CutPass(at="stem.0")(traced).graph_module.train()
    after(torch.randn(2, 3, 6, 6)).square().sum().backward()
    with torch.no_grad():
        for parameter in after.parameters():
            assert parameter.grad is not None
            assert float(parameter.grad.abs().sum()) > 0
            parameter.sub_(parameter.grad)
    assert traced.state_hash() == state
    assert all(parameter.grad is None for parameter in traced.graph_module.parameters())
