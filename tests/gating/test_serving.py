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
from netcut_fx.gating.gated_bundle import GATES_FILE, read_gated_bundle, write_gated_bundle
from netcut_fx.manifest import Manifest
from netcut_fx.preprocess import Preprocess
from netcut_fx.runtime import load
from tests.command_line import ROOT
from tests.gating.deciding import gates_of
from tests.gating.test_compiling import compiled_by, eager_widths, gated
from tests.zoo import CLASSES

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
        self.network, self.images = gated("residual", 4, groups=2)
        backend = TvmBackend()
        self.compiled = compiled_by(backend, self.network)
        self.manifest = Manifest(
            name="gated",
            target=backend.target,
            preprocess=Preprocess.named((32, 32), "half"),
            labels=tuple("abcde"[:CLASSES]),
            input_shape=(1, 3, 32, 32),
            output_shape=(1, CLASSES),
        )
        self.bundle = write_gated_bundle(folder / "bundle", self.compiled, self.manifest)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("served"))


def test_served_without_torch_and_decided_alike(served: Served, tmp_path: Path) -> None:
    expected = []
    with load(served.bundle) as network:
        paths = network.paths(served.images.numpy())
    for image, path in zip(served.images, paths, strict=True):
        widths, logits = eager_widths(served.network, image)
        assert served.compiled.program.paths.widths[path] == widths
        expected.append(logits[0])
    assert len(set(paths.tolist())) > 2
    np.save(tmp_path / "images.npy", served.images.numpy())
    arguments = [served.bundle, tmp_path / "images.npy", tmp_path / "logits.npy"]
    subprocess.run([sys.executable, "-c", SERVE, *map(str, arguments)], check=True, cwd=ROOT, timeout=300)
    found = np.load(tmp_path / "logits.npy")
    assert np.abs(found - np.array(expected)).max() <= 1e-4 * np.abs(expected).max()


def test_a_thousand_images_are_decided_alike(served: Served) -> None:
    images = torch.randn(1000, 3, 32, 32)
    made: list[torch.Tensor] = []
    hook = gates_of(served.network).register_forward_hook(lambda _, __, decided: made.append(decided[:, -1]))
    with torch.no_grad():
        expected = served.network.graph_module(images).numpy()
    hook.remove()
    own = gates_of(served.network).paths
    assert own is not None
    with load(served.bundle) as network:
        paths, logits = network.paths(images.numpy()), network.logits(images.numpy())
    widths = served.compiled.program.paths.widths
    assert [widths[path] for path in paths] == [own.widths[int(path)] for path in made[0]]
    assert len(set(paths.tolist())) > 2
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_runtime_serves_it_as_any_bundle(served: Served) -> None:
    with load(served.bundle) as network:
        assert network.predict(np.zeros((2, 40, 40, 3), np.uint8)).probabilities.shape == (2, CLASSES)
        assert len(network.measure(3)) == 3
        with pytest.raises(SpecError) as error:
            network.profile(1)
    assert str(error.value) == "kernels of a gated network depend on the input; profile the network without gates"


def test_a_budget_travels_with_the_bundle(served: Served, tmp_path: Path) -> None:
    costs = served.compiled.program.paths.costs
    budget_ms = costs[0] / 1e6
    folder = write_gated_bundle(
        tmp_path / "bundle", served.compiled, served.manifest, budget_ms=budget_ms + 1e-6, fill=True
    )
    bundle = read_gated_bundle(folder)
    assert (bundle.budget_ms, bundle.fill, bundle.program) == (budget_ms + 1e-6, True, served.compiled.program)
    with load(folder) as network, load(served.bundle) as free:
        assert set(network.paths(served.images.numpy()).tolist()) == {0}
        bound = network.logits(served.images.numpy())
        assert np.abs(bound - free.logits(served.images.numpy())).max() > 1e-3
    with pytest.raises(BudgetError, match="is below the"):
        write_gated_bundle(tmp_path / "other", served.compiled, served.manifest, budget_ms=1e-5)
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
        "gates.json is missing in the bundle /one; copy the bundle again"
    )
    assert damaged("two", lambda f: (f / "piece-003.so").unlink()) == (
        "piece-003.so is missing in the bundle /two; copy the bundle again"
    )
    assert damaged("three", lambda f: (f / GATES_FILE).write_text("{}")).startswith(
        "gates.json in the bundle /three was changed after it was written: SHA-256 "
    )


def test_what_the_gates_file_says(served: Served) -> None:
    facts = json.loads((served.bundle / GATES_FILE).read_text())
    assert facts["budget_ms"] is None
    assert facts["program"]["paths"]["widths"] == [list(one) for one in served.compiled.program.paths.widths]
