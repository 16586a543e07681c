"""What training aims at: few labels, distributions, a teacher's answers; and how near an answer is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netcut_fx.angular import angular_similarity
from netcut_fx.augment import Augmentation, augmented
from netcut_fx.data import Dataset, load_data
from netcut_fx.errors import DataError
from netcut_fx.exploration.labels import distilled, target_table, with_few_labels
from netcut_fx.features import pooled_features
from netcut_fx.frontier import deepest_frontier
from netcut_fx.retraining import retrain
from netcut_fx.retraining_options import RetrainOptions
from netcut_fx.tracing import trace
from tests.small_run import digits, residual


def test_few_labels_keep_validation_and_test_and_are_nested() -> None:
    whole, five, ten = digits(), with_few_labels(digits(), 5, 0), with_few_labels(digits(), 10, 0)
    assert np.bincount(five.labels[five.splits["train"]]).tolist() == [5] * 10
    assert len(five.images) == 50 + len(whole.splits["validation"]) + len(whole.splits["test"])
    for split in ("validation", "test"):
        assert np.array_equal(five.subset(split)[0], whole.subset(split)[0])
        assert np.array_equal(five.subset(split)[1], whole.subset(split)[1])
    smaller, larger = ({image.tobytes() for image in d.subset("train")[0]} for d in (five, ten))
    assert smaller < larger
    assert five.digest != ten.digest != whole.digest


def test_a_teacher_changes_training_labels_only() -> None:
    dataset = digits()
    answers = np.full((len(dataset.images), 10), 0.1, np.float32)
    taught = distilled(dataset, answers, 0.4)
    assert taught.targets is not None
    assert taught.targets.sum(axis=1) == pytest.approx(1.0)
    train, held = dataset.splits["train"], dataset.splits["validation"]
    assert taught.targets[train, dataset.labels[train]] == pytest.approx(0.64)
    assert np.array_equal(taught.targets[held], target_table(dataset)[held])
    assert taught.digest != dataset.digest


def test_angular_similarity_is_one_for_the_same_direction_and_nothing_for_a_right_angle() -> None:
    answers = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
    assert angular_similarity(answers, answers) == pytest.approx(1.0, abs=1e-3)
    assert angular_similarity(answers[:1], answers[1:2]) == 0.0
    assert angular_similarity(answers[:1], answers[2:]) == pytest.approx(0.5)


def distributions(path: Path, **changed: np.ndarray) -> Path:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    table = np.full((60, 3), 0.1)
    table[np.arange(60), np.arange(60) % 3] = 0.8
    np.savez(path, **{"x": images, "p": table, **changed})
    return path


def test_distributions_as_labels_are_trained_towards(tmp_path: Path) -> None:
    dataset = load_data(str(distributions(tmp_path / "p.npz")), input_size=(32, 32))
    assert dataset.targets is not None
    assert dataset.targets[4].tolist() == pytest.approx([0.1, 0.8, 0.1])
    assert dataset.labels.tolist() == [0, 1, 2] * 20
    assert dataset.aims(np.array([4])).shape == (1, 3)
    import torch

    from netcut_fx.cutting import cut
    from netcut_fx.passes.head import HeadPass

    traced = trace(residual(), torch.zeros(1, 3, 32, 32))
    uncut = deepest_frontier(traced)
    features = pooled_features(traced, [uncut], dataset)[uncut.name]
    options = RetrainOptions(epochs=1, head_epochs=2, label_smoothing=0.0)
    trained = retrain(cut(traced, uncut, head=HeadPass(3)), dataset, options=options, features=features)
    # No answer can have a lower cross-entropy with these labels than their own entropy.
    assert trained.validation_loss > -(0.8 * np.log(0.8) + 0.2 * np.log(0.1)) - 1e-6


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("p", np.full((60, 3), 0.5), "row 0 of p is no distribution"),
        ("p", np.full(60, 0.5), "p is float64 .60,.; expected a row of probabilities for each image"),
        ("p", np.eye(3)[np.zeros(60, int)], "p has 3 columns, but only 1 classes are the likeliest"),
        ("split", np.array(["train"] * 59 + ["tset"]), "expected train, validation, test for each image"),
        ("split", np.array(["train"] * 61), "split names more images than the 60 of x"),
    ],
)
def test_distributions_and_splits_that_make_no_sense_are_refused(
    tmp_path: Path, name: str, value: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_data(str(distributions(tmp_path / "p.npz", **{name: value})), input_size=(32, 32))


def test_targets_of_another_shape_are_refused() -> None:
    found = digits()
    with pytest.raises(DataError, match=r"targets have shape \(2, 10\); expected \(240, 10\)"):
        Dataset("d", found.images, found.labels, found.classes, found.splits, found.preprocess, "", np.zeros((2, 10)))


def test_splits_that_the_file_brings_are_kept(tmp_path: Path) -> None:
    split = np.array(["train"] * 40 + ["test"] * 20)
    groups = np.array([0] * 40 + [1] * 20)
    dataset = load_data(str(distributions(tmp_path / "s.npz", split=split, group=groups)), input_size=(32, 32))
    assert dataset.splits["test"].tolist() == list(range(40, 60))
    assert len(dataset.splits["validation"]) > 0


def test_turning_by_a_quarter_and_zooming_move_pixels_as_they_should() -> None:
    image = np.zeros((1, 9, 9, 3), np.uint8)
    image[0, 1, 4] = 255  # above the middle

    class Full:
        """A generator that always draws the largest."""

        def integers(self, low: int, high: int, count: int) -> np.ndarray:
            return np.zeros(count, np.int64)

        def random(self, count: int) -> np.ndarray:
            return np.ones(count)

        def uniform(self, low: float, high: float, shape: tuple[int, int]) -> np.ndarray:
            return np.ones(shape)

    turned = augmented(image, Augmentation(turn_degrees=90), Full())  # pyright: ignore[reportArgumentType]
    assert sorted(map(tuple, np.argwhere(turned[0, :, :, 0]))) in ([(4, 7)], [(4, 1)])
    zoomed = augmented(image, Augmentation(zoom_fraction=0.5), Full())  # pyright: ignore[reportArgumentType]
    assert int(np.argwhere(zoomed[0, :, :, 0])[:, 0].max()) < 1 or zoomed.sum() == 0


def test_contrast_changes_values_and_keeps_their_order() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    changed = augmented(image, Augmentation(contrast_fraction=0.3), np.random.default_rng(0))
    assert not np.array_equal(changed, image)
    assert (np.diff(changed[0, :, :, 0].ravel().astype(int)) >= 0).all()
