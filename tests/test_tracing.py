"""What cannot be traced is refused in one line, and which state a network's hash covers."""

from __future__ import annotations

import cProfile
import threading

import pytest
import torch
from torch import Tensor, nn

from netcut_fx.errors import TraceError
from netcut_fx.graph import state_hash
from netcut_fx.model_spec import load_model
from netcut_fx.passes import copy_traced, weightless
from netcut_fx.tracing import retrace, trace


class Masked(nn.Module):
    """A weight under two names, a buffer in the state dict and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) * self.kept + self.hidden


def test_a_model_that_cannot_be_copied() -> None:
    model = nn.Linear(2, 2)
    model.guard = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(TraceError) as error:
        trace(model, torch.zeros(1, 2), name="guarded")
    assert str(error.value) == (
        "cannot copy guarded, which is traced as a copy: cannot pickle '_thread.lock' object; let it hold only what "
        "copy.deepcopy can copy: no open files, locks or generators, and no tensors that belong to a computation "
        "(detach them)"
    )


def test_a_model_that_holds_a_tensor_of_a_computation() -> None:
    model = nn.Linear(2, 2)
    model.scaled = model.weight * 2  # type: ignore[assignment]
    with pytest.raises(TraceError, match=r"^cannot copy Linear, which is traced as a copy: Only Tensors created") as e:
        trace(model, torch.zeros(1, 2))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["first.weight", "kept", "hidden"])
def test_the_hash_covers_every_parameter_and_buffer(name: str) -> None:
    model = Masked()
    before = state_hash(model)
    assert state_hash(model) == before
    tensor = dict(model.named_parameters(), **dict(model.named_buffers()))[name]
    with torch.no_grad():
        tensor[0] += 1
    assert state_hash(model) != before


def test_the_hash_covers_each_name_of_a_shared_tensor() -> None:
    torch.manual_seed(0)
    tied = Masked()
    untied = Masked()
    untied.load_state_dict(tied.state_dict())
    untied.second.weight = nn.Parameter(tied.first.weight.detach().clone())
    assert state_hash(untied) == state_hash(tied)
    untied.second = nn.Identity()  # type: ignore[assignment]
    assert state_hash(untied) != state_hash(tied)


class Chooses(nn.Module):
    """Looks at values."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_what_neither_tracer_can_follow(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TraceError) as error:
        trace(Chooses(), torch.zeros(2, 2))
    text = str(error.value)
    line = f"(at {__file__}:{Chooses.forward.__code__.co_firstlineno + 1}: if x.sum() > 0:)"
    assert text.startswith(
        "cannot trace Chooses: torch.fx: symbolically traced variables cannot be used as inputs to control flow "
        f"{line}; torch.export: Could not guard on data-dependent expression"
    )
    assert text.endswith(
        f"{line}; keep the module whole (leaf_modules) or the function (wrapped_functions), give arguments that are no "
        "tensors as concrete_args, move control flow that depends on tensor values out of forward"
    )
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")


def test_one_tracer_only() -> None:
    class ByRank(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if x.dim() > 2 else x

    model, x = ByRank(), torch.randn(2, 3, 4)
    assert trace(model, x).traced_by == trace(model, x, via="export").traced_by == "export"
    with pytest.raises(TraceError, match=r"^cannot trace ByRank: symbolically traced .* \(via='auto'\)$"):
        trace(model, x, via="fx")
    with pytest.raises(TraceError) as error:
        trace(model, x, via="jit")  # type: ignore[arg-type]
    assert str(error.value) == "cannot trace ByRank via 'jit'; use one of auto, fx, export"


class Deep(nn.Module):
    """A chain with residual links, a parameter of its own in each link."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.scales = nn.ParameterList(torch.ones(1) for _ in range(length))
        self.links = nn.ModuleList(nn.ReLU() for _ in range(length))

    def forward(self, x: Tensor) -> Tensor:
        for scale, link in zip(self.scales, self.links, strict=True):
            x = x + link(x) * scale
        return x


def calls_to_trace(length: int) -> int:
    model, x = Deep(length), torch.zeros(1, 2)
    profile = cProfile.Profile()
    profile.enable()
    traced = trace(model, x)
    weightless(traced)
    retrace(copy_traced(traced).graph_module, "again", traced.input_specs)
    profile.disable()
    return sum(entry.callcount for entry in profile.getstats())


def test_work_grows_linearly_and_chains_may_be_deep() -> None:
    short, long = calls_to_trace(100), calls_to_trace(800)
    assert long < 9 * short


TORCHVISION = {
    "googlenet": ("&init_weights=false", 224),
    "inception_v3": ("&init_weights=false", 299),
    "maxvit_t": ("", 224),
    "swin_t": ("", 224),
    "vit_b_16": ("", 224),
    "densenet121": ("", 224),
}


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_torchvision_networks_go_by_fx(name: str) -> None:
    options, size = TORCHVISION[name]
    model = load_model(f"torchvision.models:{name}?weights=none{options}").eval()
    x = torch.randn(1, 3, size, size)
    traced = trace(model, x)
    assert traced.traced_by == "fx"
    with torch.no_grad():
        assert torch.equal(traced.graph_module(x), model(x))
