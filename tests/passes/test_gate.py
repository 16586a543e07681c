"""Pass ``gate``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.errors import NothingToSkip, PassError
from netcut_fx.gating.gate_network import Gates
from netcut_fx.graph import TracedModule
from netcut_fx.passes import GatePass, copy_traced
from netcut_fx.text import to_text
from tests.gating.deciding import cells_of, decide, gates_of, vary
from tests.passes.comparing import assert_equal, assert_near, results
from tests.zoo import ZOO, traced_zoo

GATEABLE = [name for name in ZOO if name not in ("functional", "two_outputs", "dict_output", "two_inputs")]


def count_calls(traced: TracedModule) -> Counter[str]:
    """How often each convolution is called from now on, by the end of its path."""
    calls: Counter[str] = Counter()
    for name, module in traced.graph_module.named_modules():
        if isinstance(module, nn.Conv2d):
            path = name.partition("body.")[2] or name
            module.register_forward_hook(lambda *_, path=path: calls.update([path]))
    return calls


@pytest.mark.parametrize(("layers", "channels"), [(True, False), (False, True), (True, True)])
def test_golden(golden: Callable[[str, str], None], layers: bool, channels: bool) -> None:
    name = f"gate_{'l' * layers}{'c' * channels}"
    golden(name, to_text(GatePass(layers=layers, channels=channels)(traced_zoo("residual"))))


@pytest.mark.parametrize("name", GATEABLE)
def test_open_gates_change_no_bit(name: str) -> None:
    traced = traced_zoo(name)
    _, inputs = ZOO[name]()
    assert_equal(results(GatePass(hidden=4)(traced), inputs), results(traced, inputs))


def test_a_skipped_region_is_not_called() -> None:
    traced = GatePass()(traced_zoo("residual"))
    decide(traced, layer_0=-1, layer_2=-1)
    calls = count_calls(traced)
    results(traced, (torch.randn(1, 3, 32, 32),))
    assert calls["layer1.0.conv1"] == calls["layer1.0.conv2"] == calls["layer2.0.conv1"] == 0
    assert calls["layer1.1.conv1"] == calls["layer2.0.shortcut.0"] == calls["layer2.1.conv2"] == 1


def test_samples_are_regrouped_by_decision() -> None:
    traced = GatePass()(traced_zoo("residual"))
    gates, inputs = gates_of(traced), torch.randn(16, 3, 32, 32)
    vary(traced, inputs)
    alone = torch.cat([results(traced, (image[None],))[0] for image in inputs])
    early: list[Tensor] = []
    gates.register_forward_hook(lambda _, __, made: early.append(made))
    seen: list[int] = []
    cells_of(traced)[0].body.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    assert_near(results(traced, (inputs,)), [alone])
    kept = early[0][:, : gates.total]
    assert 0 < float(kept[:, 0].mean()) < 1
    assert seen == [int(kept[:, 0].sum())]
    assert len({tuple(row.tolist()) for row in kept}) > 4


def test_groups_are_nested_and_the_first_is_kept() -> None:
    traced = GatePass()(traced_zoo("residual"))
    decide(traced, group_0=-1, group_2=-1, group_3=1)
    gates = gates_of(traced)
    made = gates(torch.randn(1, 8, 16, 16))
    assert made[0, 4:8].tolist() == [1, 1, 0, 0]
    cell = cells_of(traced)[0]
    assert cell.group_of(0).bincount().tolist() == [2, 2, 2, 2]


def test_groups_end_at_multiples() -> None:
    traced = GatePass(multiple=3)(traced_zoo("residual"))
    assert [cell.slots.groups for cell in cells_of(traced)] == [2, 2, 4, 4]
    assert [cell.group_of(0).bincount().tolist() for cell in cells_of(traced)] == [[3, 5]] * 2 + [[3, 3, 6, 4]] * 2
    few = GatePass(multiple=5)(traced_zoo("residual"))
    assert [cell.slots.groups for cell in cells_of(few)] == [1, 1, 3, 3]
    assert not cells_of(few)[0].cell.sets


def test_the_first_cells_can_be_left_alone() -> None:
    traced = GatePass(lead=2)(traced_zoo("residual"))
    assert [cell.cell.name for cell in cells_of(traced)] == ["layer2.0", "layer2.1"]
    gates = next(node for node in traced.nodes if node.op == "call_module" and node.target == "gates")
    assert gates.all_input_nodes[0].meta["qualname"] == "layer1.1.relu#2"


def test_a_closed_group_has_no_influence() -> None:
    traced = GatePass()(traced_zoo("residual"))
    decide(traced, group_2=-1)
    image = (torch.randn(1, 3, 32, 32),)
    expected = results(traced, image)
    dropped = cells_of(traced)[0].group_of(0) >= 2
    body = cells_of(traced)[0].body
    body.get_submodule("layer1.0.conv1").weight.data[dropped] += 7
    assert_equal(results(traced, image), expected)
    decide(traced, group_2=1)
    assert float((results(traced, image)[0] - expected[0]).abs().max()) > 1e-3


def test_scales_are_applied_to_what_is_kept() -> None:
    traced = GatePass(channels=False)(traced_zoo("transformer"))
    gates, cell = gates_of(traced), cells_of(traced)[0]
    assert gates.l_net is not None
    gates.l_net.scale.bias.data[0] = 1.0
    body: list[Tensor] = []
    cell.body.register_forward_hook(lambda _, __, made: body.append(made))
    values: list[tuple[Tensor, Tensor]] = []
    cell.register_forward_hook(lambda _, given, made: values.append((given[1], made)))
    results(traced, (torch.randn(1, 3, 32, 32),))
    (shortcut, made), factor = values[0], 2 * torch.sigmoid(torch.tensor(1.0))
    torch.testing.assert_close(made, shortcut + factor * body[0])


def test_without_scales_there_is_none() -> None:
    traced = GatePass(scales=False)(traced_zoo("residual"))
    gates = gates_of(traced)
    assert gates.raw(torch.zeros(1, 8, 16, 16)).shape == (1, gates.total)
    assert gates(torch.zeros(1, 8, 16, 16))[0, gates.total :].tolist() == [1.0] * gates.total + [-1.0]


def test_gradients_reach_the_gates() -> None:
    module = copy_traced(GatePass()(traced_zoo("residual"))).graph_module.train()
    gates = next(m for m in module.modules() if isinstance(m, Gates))
    module(torch.randn(8, 3, 32, 32)).square().sum().backward()
    assert gates.l_net is not None
    assert gates.c_net is not None
    for net in (gates.l_net, gates.c_net):
        for layer in (net.salience, net.scale):
            assert layer.weight.grad is not None
            assert float(layer.weight.grad.abs().sum()) > 0
    assert gates.last is not None
    assert gates.last.shape == (8, gates.total)


def test_stages_open_the_other_gates() -> None:
    traced = GatePass()(traced_zoo("residual"))
    decide(traced, layer_0=-1, group_1=-1)
    gates, early = gates_of(traced), torch.randn(1, 8, 16, 16)
    closed = {}
    for stage in ("none", "layers", "channels", "all"):
        gates.stage = stage
        closed[stage] = (gates(early)[0, : gates.total] == 0).nonzero().flatten().tolist()
    assert closed == {"none": [], "layers": [0], "channels": [5, 6, 7], "all": [0, 5, 6, 7]}


def test_the_source_and_the_seed() -> None:
    traced = traced_zoo("residual")
    one, same, other = GatePass()(traced), GatePass()(traced), GatePass(seed=1)(traced)
    assert one.state_hash() == same.state_hash() != other.state_hash()


def test_errors() -> None:
    with pytest.raises(NothingToSkip, match="nothing to skip in two_inputs"):
        GatePass()(traced_zoo("two_inputs"))
    with pytest.raises(PassError) as error:
        GatePass(layers=False, channels=False)(traced_zoo("residual"))
    assert str(error.value) == ("pass gate with layers=false and channels=false gates nothing; leave one of them on")
    with pytest.raises(PassError) as error:
        GatePass(groups=1)(traced_zoo("residual"))
    assert str(error.value) == (
        "pass gate needs groups of at least 2, hidden and multiple of at least 1, got groups=1, hidden=16 and "
        "multiple=1"
    )
    with pytest.raises(PassError) as error:
        GatePass(lead=4)(traced_zoo("residual"))
    assert str(error.value) == (
        "pass gate with lead=4 leaves nothing to skip: residual has 4 cells; give lead from 0 to 3"
    )
    with pytest.raises(PassError) as error:
        GatePass()(GatePass()(traced_zoo("residual")))
    assert str(error.value) == "residual has gates already; gate the network that it was made from"
