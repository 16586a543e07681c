"""What a well-formed network is: each rule, broken once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from netcut_fx.errors import PassError
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.passes import copy_traced
from netcut_fx.tracing import trace
from netcut_fx.verify import RULES, check, check_no_shared_storage
from tests.zoo import ZOO


def small() -> TracedModule:
    """Convolution, ReLU, and a buffer that is read."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()
            self.register_buffer("mask", torch.tensor([float("-inf")]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.maximum(self.relu(self.conv(x)), self.mask)

    return trace(Small(), torch.zeros(1, 3, 5, 5))


def second_output(traced: TracedModule) -> None:
    graph = traced.graph_module.graph
    with graph.inserting_after(traced.nodes[-1]):
        graph.create_node("output", "output", (traced.nodes[1],))


def output_first(traced: TracedModule) -> None:
    with traced.graph_module.graph.inserting_after(traced.nodes[-1]):
        traced.graph_module.graph.call_function(torch.ones, (1,))


def late_input(traced: TracedModule) -> None:
    with traced.graph_module.graph.inserting_before(traced.nodes[-1]):
        late = traced.graph_module.graph.placeholder("late")
    late.meta.update(traced.nodes[0].meta, qualname="late")


def no_module(traced: TracedModule) -> None:
    del traced.graph_module.conv


def no_buffer(traced: TracedModule) -> None:
    del traced.graph_module.mask


def not_in_order(traced: TracedModule) -> None:
    traced.nodes[2].append(traced.nodes[1])


def no_name(traced: TracedModule) -> None:
    del traced.nodes[1].meta["qualname"]


def same_name(traced: TracedModule) -> None:
    traced.nodes[1].meta["qualname"] = "relu"


def no_spec(traced: TracedModule) -> None:
    del traced.nodes[1].meta["spec"]


def wrong_spec(traced: TracedModule) -> None:
    traced.nodes[1].meta["spec"] = TensorSpec((1, 4, 5, 5), torch.float32)


def cannot_run(traced: TracedModule) -> None:
    traced.nodes[1].args = (traced.nodes[0], traced.nodes[0])


def training(traced: TracedModule) -> None:
    traced.graph_module.conv.train()  # type: ignore[operator,union-attr]


def nan(traced: TracedModule) -> None:
    with torch.no_grad():
        traced.graph_module.conv.weight[0, 0, 0, 0] = float("nan")  # type: ignore[index,union-attr]


def nan_buffer(traced: TracedModule) -> None:
    traced.graph_module.mask.fill_(float("nan"))  # type: ignore[operator,union-attr]


def unused_module(traced: TracedModule) -> None:
    traced.graph_module.add_submodule("extra.relu", nn.ReLU())


def unused_parameter(traced: TracedModule) -> None:
    traced.graph_module.register_parameter("extra", nn.Parameter(torch.ones(1)))


BROKEN: list[tuple[Callable[[TracedModule], None], str, str]] = [
    (second_output, "one output, at the end", "the graph: 2 output nodes where there must be one"),
    (output_first, "one output, at the end", "ones: comes after the output"),
    (late_input, "inputs come first", "late: an input after conv"),
    (no_module, "targets exist", "conv: there is no module conv"),
    (no_buffer, "targets exist", "mask: there is no parameter or buffer mask"),
    (not_in_order, "the graph passes lint", "the graph: Argument 'conv' of Node 'relu' was used before it has been"),
    (no_name, "every node has a unique name and a spec", "conv: it has no qualified name"),
    (same_name, "every node has a unique name and a spec", "conv: 2 nodes are called relu"),
    (no_spec, "every node has a unique name and a spec", "conv: it has no spec"),
    (training, "eval mode", "conv: it is in training mode; call .eval() first"),
    (unused_module, "nothing dangles", "extra: no node uses this module"),
    (unused_parameter, "nothing dangles", "extra: no node uses this tensor"),
    (nan, "weights are numbers", "conv.weight: it holds NaN or infinity; load intact weights"),
    (nan_buffer, "weights are numbers", "mask: it holds NaN; load intact weights"),
    (
        wrong_spec,
        "specs agree with the computation",
        "conv: recorded as float32[1, 4, 5, 5] but computes float32[1, 4, 3, 3]",
    ),
    (cannot_run, "specs agree with the computation", "conv: it cannot be run: Conv2d.forward() takes 2 positional"),
]


@pytest.mark.parametrize(("damage", "rule", "where"), BROKEN, ids=[damage.__name__ for damage, _, _ in BROKEN])
def test_each_rule(damage: Callable[[TracedModule], None], rule: str, where: str) -> None:
    traced = small()
    check(traced)
    damage(traced)
    with pytest.raises(PassError) as error:
        check(traced)
    text = str(error.value)
    assert text.startswith(f"Small is not well-formed: rule {rule!r} broken at {where}")
    assert "\n" not in text


def test_no_rule_is_untested() -> None:
    assert {rule.name for rule in RULES} == {rule for _, rule, _ in BROKEN}


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_is_well_formed(name: str) -> None:
    model, inputs = ZOO[name]()
    traced = trace(model, inputs)
    before = traced.state_hash()
    check(traced)
    assert traced.state_hash() == before


def test_shared_storage_is_found() -> None:
    traced = small()
    copied = copy_traced(traced)
    check_no_shared_storage(traced, copied)
    with torch.no_grad():
        copied.graph_module.conv.bias = nn.Parameter(traced.graph_module.conv.weight.view(-1)[:4])  # type: ignore[union-attr,operator,index]
    with pytest.raises(PassError) as error:
        check_no_shared_storage(traced, copied)
    assert str(error.value) == (
        "Small shares the storage of conv.bias with the network it was made from, so training one would change the "
        "other; start the pass from copy_traced(traced)"
    )
