"""Keys of stored stages: an option that changes a result changes the key."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from netcut_fx.frontier import frontiers
from netcut_fx.ignored_scope import IgnoredScope
from netcut_fx.job_keys import network_key, target_key
from netcut_fx.job_options import RunOptions
from netcut_fx.tracing import trace
from tests.small_run import options, residual


def key_of(chosen: RunOptions) -> dict[str, Any]:
    traced = trace(residual(), torch.zeros(1, 3, 32, 32), name="net", leaf_modules=chosen.leaf_modules, via=chosen.via)
    found = frontiers(traced, granularity=chosen.granularity, max_width=chosen.max_width, ignored=chosen.ignored)
    return target_key(network_key(traced, found, "data", chosen), "target", chosen)


@pytest.mark.parametrize(
    "changed",
    [
        {"pool": "mean"},
        {"ignored": IgnoredScope(names=("layer1.1",))},
        {"ignored": IgnoredScope(modules=("layer2*",))},
        {"ignored": IgnoredScope(operations=("Conv2d",))},
        {"leaf_modules": ("ResidualBlock",)},
        {"via": "export"},
        {"granularity": "node"},
        {"seed": 1},
    ],
)
def test_a_changed_option_finds_no_stage_of_another(changed: dict[str, Any]) -> None:
    assert key_of(options()) == key_of(options())
    assert key_of(options(**changed)) != key_of(options())


def test_the_key_alone_tells_how_a_network_was_asked_for() -> None:
    """Also where graph and frontiers come out the same."""
    assert key_of(options(ignored=IgnoredScope(operations=("Conv2d",))))["frontiers"] == key_of(options())["frontiers"]
    traced = trace(residual(), torch.zeros(1, 3, 32, 32), name="net")
    found = frontiers(traced)
    auto, forced = (network_key(traced, found, "data", options(via=via)) for via in ("auto", "fx"))
    assert auto != forced
