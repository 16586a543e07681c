"""A bundle of a gated network: written, served without torch, refused where it is damaged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.errors import BadBundle, BudgetError, SpecError
from netcut_fx.gating.compiling import compile_gated
from netcut_fx.gating.cost_table import CostTable
from netcut_fx.gating.gated_bundle import GATES_FILE, read_gated_bundle, write_gated_bundle
from netcut_fx.gating.pieces import split
from netcut_fx.gating.pricing import cost_table
from netcut_fx.graph import TracedModule
from netcut_fx.manifest import Manifest
from netcut_fx.passes import GatePass
from netcut_fx.preprocess import Preprocess
from netcut_fx.runtime import load
from tests.command_line import ROOT
from tests.gating.deciding import vary
from tests.gating.test_compiling import eager_widths
from tests.zoo import CLASSES, traced_zoo

SERVE = """
import sys
import numpy as np
from netcut_fx.runtime import load
given = np.load(sys.argv[2])
with load(sys.argv[1]) as network:
    logits = network.logits(given)
assert not {"torch", "tvm"} & set(sys.modules)
np.save(sys.argv[3], logits)
"""


class Served:
    """One bundle for all tests here."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.network: TracedModule = GatePass(hidden=4, groups=2)(traced_zoo("residual"))
        self.images = torch.randn(24, 3, 32, 32)
        vary(self.network, self.images)
        pieces = split(self.network)
        backend = TvmBackend()
        self.compiled = compile_gated(pieces, backend)
        # Every piece takes a millisecond: what counts here is which of them run.
        self.table: CostTable = cost_table(pieces, lambda _: 1.0)
        self.manifest = Manifest(
            name="gated",
            target=backend.target,
            preprocess=Preprocess.named((32, 32), "half"),
            labels=tuple("abcde"[:CLASSES]),
            input_shape=(1, 3, 32, 32),
            output_shape=(1, CLASSES),
        )
        self.bundle = write_gated_bundle(folder / "bundle", self.compiled, self.table, self.manifest)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("served"))


def test_served_without_torch_and_decided_alike(served: Served, tmp_path: Path) -> None:
    run = served.compiled.dispatcher(served.table)
    expected = []
    for image in served.images:
        widths, logits = eager_widths(served.network, image)
        assert run(image[None].numpy())[1] == widths
        expected.append(logits[0])
    np.save(tmp_path / "images.npy", served.images.numpy())
    arguments = [served.bundle, tmp_path / "images.npy", tmp_path / "logits.npy"]
    subprocess.run([sys.executable, "-c", SERVE, *map(str, arguments)], check=True, cwd=ROOT, timeout=300)
    found = np.load(tmp_path / "logits.npy")
    assert np.abs(found - np.array(expected)).max() <= 1e-4 * np.abs(expected).max()


def test_the_runtime_serves_it_as_any_bundle(served: Served) -> None:
    with load(served.bundle) as network:
        assert network.predict(np.zeros((2, 40, 40, 3), np.uint8)).probabilities.shape == (2, CLASSES)
        assert len(network.measure(3)) == 3
        with pytest.raises(SpecError) as error:
            network.profile(1)
    assert str(error.value) == "kernels of a gated network depend on the input; profile the network without gates"


def test_a_budget_travels_with_the_bundle(served: Served, tmp_path: Path) -> None:
    budget_ms = served.table.mandatory / 1e6 + 2
    folder = write_gated_bundle(
        tmp_path / "bundle", served.compiled, served.table, served.manifest, budget_ms=budget_ms, fill=True
    )
    bundle = read_gated_bundle(folder)
    assert (bundle.budget_ms, bundle.fill, bundle.table) == (budget_ms, True, served.table)
    with load(folder) as network:
        free, bound = load(served.bundle), network.logits(served.images.numpy())
        assert np.abs(bound - free.logits(served.images.numpy())).max() > 1e-3
        free.close()
    with pytest.raises(BudgetError, match="is below the"):
        write_gated_bundle(tmp_path / "other", served.compiled, served.table, served.manifest, budget_ms=1.0)
    assert not (tmp_path / "other").exists()


def test_gates_that_are_missing_or_changed(served: Served, tmp_path: Path) -> None:
    def damaged(name: str, change: Any) -> str:
        folder = tmp_path / name
        shutil.copytree(served.bundle, folder)
        change(folder)
        with pytest.raises(BadBundle) as error:
            load(folder)
        return str(error.value).replace(str(tmp_path), "")

    assert damaged("one", lambda f: (f / GATES_FILE).unlink()) == (
        "gates.json cannot be read in the bundle /one: its gates are missing; copy the bundle again"
    )
    assert damaged("two", lambda f: (f / "piece-003.so").unlink()) == (
        "piece-003.so cannot be read in the bundle /two: a piece is missing; copy the bundle again"
    )
    assert damaged("three", lambda f: (f / GATES_FILE).write_text("{}")) == (
        "gates.json in the bundle /three was changed after it was written; copy the bundle again"
    )


def test_what_the_gates_file_says(served: Served) -> None:
    facts = json.loads((served.bundle / GATES_FILE).read_text())
    assert facts["budget_ms"] is None
    assert [cell["name"] for cell in facts["program"]["steps"][:4]] == ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]
