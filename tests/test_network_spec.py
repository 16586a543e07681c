"""How networks of an exploration are written, and what an exploration refuses to be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netcut_fx.errors import SpecError
from netcut_fx.exploration.network_spec import NetworkSpec, check_networks, parse_network
from tests.small_exploration import options


def test_a_spec_alone_is_its_own_name() -> None:
    found = parse_network("torchvision.models:mobilenet_v2?weights=none")
    assert found == NetworkSpec(found.model, "torchvision.models:mobilenet_v2?weights=none", None, "imagenet")


def test_fields_follow_commas_and_a_normalisation_may_hold_commas_itself() -> None:
    found = parse_network("net.py:Net?width=0.5, name=half ,weights=w.pt,normalize=mean=1,2,3;std=4,5,6;bgr=true")
    assert found == NetworkSpec("half", "net.py:Net?width=0.5", Path("w.pt"), "mean=1,2,3;std=4,5,6;bgr=true")


def test_a_built_in_network_brings_its_normalisation_and_others_take_the_default() -> None:
    assert parse_network("demo").normalize == "efficientnet-lite"
    assert parse_network("net.py:Net", "half").normalize == "half"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("net.py:Net,weight=w.pt", "unknown field 'weight'; did you mean 'weights'"),
        ("net.py:Net,name=a,name=b", "has the field 'name' twice"),
        ("net.py:Net,name= ", "has the field 'name' without a value"),
        ("net.py:Net,normalize=imagnet", "there is no normalisation 'imagnet'"),
        (" ,name=x", "has no SPEC"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_network(text)


def test_duplicate_names_are_refused() -> None:
    with pytest.raises(SpecError, match="two networks are called 'demo'; give one of them another name: SPEC,name="):
        check_networks([parse_network("demo"), parse_network("demo")])
    with pytest.raises(SpecError, match="would share the folder 'A_b'"):
        check_networks([parse_network("demo,name=a b"), parse_network("demo,name=A/b")])
    with pytest.raises(SpecError, match="no network to explore"):
        check_networks([])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sweep": 0}, "give either deadlines .* or a sweep"),
        ({"sweep": 3, "deadlines_ms": (1.0,)}, "give either deadlines .* or a sweep"),
        ({"sweep": 1}, "at least 2 deadlines, got 1"),
        ({"deadlines_ms": (1.0, -1.0)}, "positive number of milliseconds, got -1.0"),
        ({"strategies": ("best",)}, "strategy is ranked, netcut, exhaustive, got 'best'"),
        ({"strategies": ("netcut", "netcut")}, "give each strategy once"),
        ({"train_per_class": 0}, "train_per_class must be at least 1, got 0"),
        ({"distillation": 1.0}, "distillation must be 0 or more, below 1, got 1.0"),
        ({"distillation": 0.5, "off_the_shelf": False}, "learns from the best uncut network"),
    ],
)
def test_senseless_options_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        options(**fields)
