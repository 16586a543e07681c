"""A bundle that was compiled for several images at a time answers any number of them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from netcut_fx.errors import BadBundle
from netcut_fx.runtime import Runtime, load
from tests.tiny_bundle import CLASSES, SIZE, build_library, reference, tiny_bundle, weights

pytest.importorskip("tvm_ffi")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bundles hold Linux libraries")

BATCH = 5


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tvm")
    path = tmp_path_factory.mktemp("library") / "lib.so"
    build_library(path, BATCH)
    return path


@pytest.fixture(scope="module")
def runtime(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Runtime]:
    with load(tiny_bundle(tmp_path_factory.mktemp("bundle") / "b", library, batch=BATCH)) as loaded:
        yield loaded


def inputs(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, 3, SIZE, SIZE)).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, BATCH, BATCH + 2, 71])
def test_any_number_of_images_is_answered(runtime: Runtime, n: int):
    assert runtime.manifest.batch == BATCH
    found = runtime.logits(inputs(n))
    assert found.shape == (n, CLASSES)
    np.testing.assert_allclose(found, reference(weights(), inputs(n)), rtol=1e-4, atol=1e-5)


def test_an_answer_does_not_depend_on_the_images_beside_it(runtime: Runtime):
    many = inputs(71)
    together = runtime.logits(many)
    alone = np.concatenate([runtime.logits(many[i : i + 1]) for i in range(len(many))])
    np.testing.assert_array_equal(together, alone)


def test_images_are_predicted_in_batches_too(runtime: Runtime):
    images = np.random.default_rng(0).integers(0, 256, (37, SIZE, SIZE, 3), dtype=np.uint8)
    found = runtime.predict(images)
    expected = reference(weights(), runtime.manifest.preprocess(images))
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-5)
    assert len(runtime.measure(3)) == 3


def test_a_library_for_another_number_of_images_is_refused(library: Path, tmp_path: Path):
    folder = tiny_bundle(tmp_path / "b", library, batch=BATCH + 1)
    with pytest.raises(BadBundle, match=r"does not run with its weights \(.*\); write the bundle again"):
        load(folder)
