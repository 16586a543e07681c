"""The frame around a pass, pipelines and instruments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from netcut_fx.errors import PassError
from netcut_fx.graph import TracedModule
from netcut_fx.instruments import Dump, Timing
from netcut_fx.passes import DeadCode, Pass, Pipeline, Simplify, copy_traced, prepare_pipeline
from netcut_fx.tracing import trace


def small() -> TracedModule:
    """Convolution, dropout, pooling."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return trace(model, torch.zeros(1, 3, 8, 8), name="small")


@dataclass(frozen=True)
class Scales(Pass):
    """Misbehaves on request."""

    own_copy: bool
    name: ClassVar[str] = "scales"

    def call(self, traced: TracedModule) -> TracedModule:
        work = copy_traced(traced) if self.own_copy else traced
        with torch.no_grad():
            next(work.graph_module.parameters()).mul_(2)
        return work


@dataclass(frozen=True)
class Returns(Pass):
    """Gives its argument back."""

    name: ClassVar[str] = "returns"

    def call(self, traced: TracedModule) -> TracedModule:
        return traced


@dataclass(frozen=True)
class Promises(Pass):
    """Its postcondition is about the result, and refuses it."""

    name: ClassVar[str] = "promises"

    def call(self, traced: TracedModule) -> TracedModule:
        work = copy_traced(traced)
        return TracedModule(work.graph_module, "result")

    def ensures(self, before: TracedModule, after: TracedModule) -> None:
        raise PassError(f"{after.name} made from {before.name} is refused")


def test_a_pass_that_changes_its_argument_is_refused() -> None:
    assert Scales(own_copy=True)(small()).name == "small"
    with pytest.raises(PassError) as error:
        Scales(own_copy=False)(small())
    assert str(error.value) == (
        "pass scales changed the weights of its argument small; start it from copy_traced(traced)"
    )


def test_a_pass_that_shares_weights_is_refused() -> None:
    with pytest.raises(PassError, match=r"small shares the storage of 0\.weight with the network it was made from"):
        Returns()(small())


def test_ensures_sees_the_result() -> None:
    with pytest.raises(PassError, match=r"^result made from small is refused$"):
        Promises()(small())


def test_pipeline_tells_instruments_before_and_after() -> None:
    timing, written = Timing(), list[str]()
    pipeline = Pipeline((Simplify(), DeadCode())).observed_by(timing, Dump(written.append, types=False))
    result = pipeline(small())
    assert [name for name, _ in timing.rows] == ["simplify", "dead-code"]
    assert all(seconds >= 0 for _, seconds in timing.rows)
    assert [text.splitlines()[0] for text in written] == ["# before simplify", "# after simplify", "# after dead-code"]
    assert "Dropout" in written[0]
    assert "Dropout" not in written[1]
    assert len(result.nodes) == 6


def test_instruments_can_be_used_again() -> None:
    written = list[str]()
    pipeline = Pipeline((Simplify(),), (Dump(written.append, types=False),))
    pipeline(small())
    pipeline(small())
    assert [text.splitlines()[0] for text in written] == ["# before simplify", "# after simplify"] * 2


def test_prepare_is_a_readable_list() -> None:
    assert [rewrite.name for rewrite in prepare_pipeline().passes] == ["fold-batch-norm", "simplify", "dead-code"]
    assert [rewrite.name for rewrite in Pipeline(()).then([DeadCode()]).passes] == ["dead-code"]
    assert Pipeline(())(traced := small()) is traced
