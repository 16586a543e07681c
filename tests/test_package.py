"""What importing costs, and that no module hides a verb."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import netcut_fx


@pytest.mark.parametrize(
    "module", ["netcut_fx", "netcut_fx.runtime", "netcut_fx.preprocess", "netcut_fx.cli", "cost_models"]
)
def test_import_brings_neither_compiler_nor_framework(module: str) -> None:
    code = f"import sys, logging, {module}; print([m for m in ('torch', 'tvm', 'torchvision') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_every_verb_is_there_and_none_is_hidden_by_a_module() -> None:
    modules = {info.name for info in pkgutil.iter_modules(netcut_fx.__path__)}
    for name in netcut_fx.__all__:
        assert name not in modules
        assert getattr(netcut_fx, name) is not None
    for verb in ("trace", "frontiers", "estimate", "choose", "cut", "retrain", "compile", "run"):
        assert callable(getattr(netcut_fx, verb))
        importlib.import_module("netcut_fx.job")
        assert callable(getattr(netcut_fx, verb))


def test_a_misspelt_name_lists_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'cutt'; it has .*cut"):
        netcut_fx.cutt  # noqa: B018
