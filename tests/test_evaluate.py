"""Accuracy, its interval, and that measuring leaves the network as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from netcut_fx.data import Dataset, load_data
from netcut_fx.errors import DataError
from netcut_fx.evaluate import Accuracy, accuracy, predict_logits, top1


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits?limit=100", input_size=(8, 8), normalize="zero-one")


class Nearest(nn.Module):
    """Answers the class of the nearest training image: right on every training image."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        _, labels = dataset.subset("train")
        self.register_buffer("stored", torch.tensor(dataset.inputs("train")).flatten(1))
        self.register_buffer("answers", nn.functional.one_hot(torch.tensor(labels), dataset.class_count).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answers[torch.cdist(x.flatten(1), self.stored).argmin(1)]


# R. G. Newcombe, "Two-sided confidence intervals for the single proportion: comparison of seven methods", Statistics in
# Medicine 17 (1998) 857-872, table I, method 3 (Wilson score without continuity correction).
@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_against_published_values(correct, total, low, high):
    result = Accuracy(correct, total)
    assert result.low == pytest.approx(low, abs=5e-5)
    assert result.high == pytest.approx(high, abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_holds_the_value_and_mirrors(counts):
    correct, total = counts
    result, mirror = Accuracy(correct, total), Accuracy(total - correct, total)
    assert 0 <= result.low <= result.value <= result.high <= 1
    assert result.low == pytest.approx(1 - mirror.high, abs=1e-12)
    # The ends are where the true share p is 1.96 standard deviations away: Wilson's definition.
    for end in (result.low, result.high):
        if 0 < end < 1:
            deviation = math.sqrt(end * (1 - end) / total)
            assert abs(result.value - end) == pytest.approx(1.959964 * deviation, rel=1e-4)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(correct, total):
    with pytest.raises(DataError, match=f"accuracy of {correct} correct among {total} images is undefined"):
        Accuracy(correct, total)


def test_from_predictions_and_logits():
    labels = np.array([0, 1, 2, 2])
    assert Accuracy.from_predictions(np.array([0, 1, 1, 2]), labels) == Accuracy(3, 4)
    logits = np.eye(3)[[0, 1, 1, 2]]
    assert Accuracy.from_predictions(logits, labels) == Accuracy(3, 4)
    with pytest.raises(DataError, match="2 predictions but 4 labels"):
        Accuracy.from_predictions(np.array([0, 1]), labels)


def test_nan_is_a_wrong_answer():
    logits = np.array([[np.nan, 1.0], [2.0, np.nan], [0.0, 1.0]])
    assert top1(logits).tolist() == [-1, -1, 1]
    assert Accuracy.from_predictions(logits, np.array([0, 0, 1])) == Accuracy(1, 3)


def test_json_and_text():
    result = Accuracy(90, 100)
    assert Accuracy.from_json(result.to_json()) == result
    assert str(result) == "90.0% [82.6%, 94.5%]"


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_accuracy_of_a_network_that_knows_the_training_images(digits, batch):
    module = Nearest(digits)
    assert accuracy(module, digits, "train", batch) == Accuracy(60, 60)
    logits = predict_logits(module, digits.inputs("test"), batch)
    assert logits.shape == (20, 10)
    assert accuracy(module, digits, "test", batch) == Accuracy.from_predictions(logits, digits.subset("test")[1])
    assert 0.5 < accuracy(module, digits, "test", batch).value < 1


def test_predict_takes_tensors_read_only_arrays_and_tuple_answers():
    class Tupled(nn.Module):
        def forward(self, x):
            return (x.mean((2, 3)),)

    inputs = np.random.default_rng(0).random((5, 3, 4, 4), dtype=np.float32)
    inputs.flags.writeable = False
    logits = predict_logits(Tupled(), inputs, batch=2)
    np.testing.assert_allclose(logits, inputs.mean((2, 3)), rtol=1e-6)
    assert np.array_equal(predict_logits(Tupled(), torch.tensor(inputs), batch=2), logits)


def test_every_submodule_keeps_its_mode_and_its_state(digits):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10))
    module.train()
    module[1].eval()  # a frozen batch-norm inside a network in training
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    first = predict_logits(module, digits.inputs("test"))
    assert np.array_equal(first, predict_logits(module, digits.inputs("test")))  # no dropout
    assert [m.training for m in module] == [True, False, True, True, True]
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_modes_are_restored_after_a_failure():
    class Failing(nn.Linear):
        def forward(self, x):
            raise RuntimeError(f"training is {self.training}")

    module = nn.Sequential(Failing(2, 2))
    with pytest.raises(RuntimeError, match="training is False"):
        predict_logits(module, np.zeros((1, 3, 4, 4), np.float32))
    assert module.training
    assert module[0].training


def test_wrong_networks_are_refused(digits):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 7))
    with pytest.raises(DataError, match=r"the network answers 7 classes but digits has 10; put a head for this data"):
        accuracy(flat, digits, "test")
    with pytest.raises(DataError, match=r"the network answers \(20, 3, 8, 8\) for 20 images; expected \(20, classes\)"):
        accuracy(nn.Identity(), digits, "test")
    with pytest.raises(DataError, match="no images to predict; give at least one"):
        predict_logits(flat, np.empty((0, 3, 8, 8), np.float32))
