from __future__ import annotations

import numpy as np
import pytest

from netcut_fx.errors import NetcutError
from netcut_fx.quick import MOST_TRAINING_IMAGES, QuickResult, quick_heads, standardisation


def _blobs(
    count: int, width: int, distance: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Three classes around three centres."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    centres = generator.normal(size=(3, width)) * distance
    table = (centres[labels] + generator.normal(size=(count, width))).astype(np.float32)
    order = generator.permutation(count)
    thirds = np.array_split(order, 3)
    return table, labels.astype(np.int64), {"train": thirds[0], "validation": thirds[1], "test": thirds[2]}


def test_ranks_frontiers_by_what_their_features_tell() -> None:
    clear, labels, splits = _blobs(300, 8, 3.0)
    noise = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)

    results = quick_heads({"shallow": noise, "deep": clear}, labels, splits, seed=0)

    assert list(results) == ["shallow", "deep"]
    assert isinstance(results["deep"], QuickResult)
    assert (results["shallow"].width, results["deep"].width) == (4, 8)
    assert results["deep"].training_images == 100
    assert results["deep"].accuracy.total == 100
    assert results["deep"].accuracy.value > 0.97
    assert results["shallow"].accuracy.high < results["deep"].accuracy.low


def test_size_of_features_does_not_matter() -> None:
    table, labels, splits = _blobs(300, 6, 0.8)
    scaled = (table * np.float32([1e-2, 1e-1, 1, 1e1, 1e2, 1e3]) + np.float32(3.0)).astype(np.float32)

    results = quick_heads({"plain": table, "scaled": scaled}, labels, splits)

    difference = abs(results["plain"].accuracy.correct - results["scaled"].accuracy.correct)
    assert difference <= 2


def test_constant_features_are_harmless() -> None:
    table, labels, splits = _blobs(150, 5, 3.0)
    table[:, 2] = 7.25

    results = quick_heads({"cut": table}, labels, splits)

    assert results["cut"].accuracy.value > 0.95
    mean, scale = standardisation(table)
    assert mean[2] == np.float32(7.25)
    assert scale[2] == 1.0


def test_validation_and_test_rows_are_not_fitted() -> None:
    table, labels, splits = _blobs(300, 8, 1.0)
    spoilt = table.copy()
    spoilt[splits["test"]] = 1e6

    first = quick_heads({"cut": table}, labels, splits)["cut"]
    second = quick_heads({"cut": spoilt}, labels, splits)["cut"]

    assert first.accuracy == second.accuracy


def test_many_training_images_are_sampled_by_the_seed() -> None:
    table, labels, splits = _blobs(3 * (MOST_TRAINING_IMAGES + 10), 3, 0.7)

    results = [quick_heads({"cut": table}, labels, splits, seed=seed)["cut"] for seed in (0, 0, 1)]

    assert [r.training_images for r in results] == [MOST_TRAINING_IMAGES] * 3
    assert results[0].accuracy == results[1].accuracy
    assert results[0].accuracy.total == len(splits["validation"])


def test_nan_names_the_frontier() -> None:
    table, labels, splits = _blobs(30, 4, 1.0)
    table[3, 1] = np.nan
    table[7, 0] = np.inf
    with pytest.raises(NetcutError) as error:
        quick_heads({"features.3": table}, labels, splits)
    assert str(error.value) == (
        "features of frontier features.3 are not finite for 2 of 30 images; "
        "check the network's weights for NaN and the normalisation of its inputs"
    )


def test_features_of_other_data() -> None:
    table, labels, splits = _blobs(30, 4, 1.0)
    with pytest.raises(NetcutError) as error:
        quick_heads({"features.3": table[:20]}, labels, splits)
    assert str(error.value) == (
        "features of frontier features.3 have shape (20, 4) but there are 30 images; compute them from the same data"
    )


def test_one_class() -> None:
    table, labels, splits = _blobs(30, 4, 1.0)
    with pytest.raises(NetcutError, match="quick heads need training images of at least two classes"):
        quick_heads({"cut": table}, np.zeros_like(labels), splits)
