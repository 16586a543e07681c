"""What training aims at in an exploration: fewer images of each class, or labels softened by a teacher's answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from netcut_fx.data import Dataset
from netcut_fx.errors import DataError


def with_few_labels(dataset: Dataset, per_class: int, seed: int) -> Dataset:
    """`per_class` training images of each class, drawn at random; validation and test stay whole.

    A smaller number takes a subset of what a larger one takes.

    Raises
    ------
    DataError
        If a class has fewer training images.
    """
    train = dataset.splits["train"]
    kept: list[NDArray[np.int64]] = []
    for label, name in enumerate(dataset.classes):
        members = train[dataset.labels[train] == label]
        if len(members) < per_class:
            raise DataError(
                f"{dataset.name}: class '{name}' has {len(members)} training images, fewer than the {per_class} asked "
                "for; ask for fewer, or add images"
            )
        kept.append(np.random.default_rng([seed, label]).permutation(members)[:per_class])
    chosen = {**dataset.splits, "train": np.sort(np.concatenate(kept))}
    return _only(dataset, chosen)[0]


def without_test(dataset: Dataset) -> tuple[Dataset, NDArray[np.int64]]:
    """Training and validation images alone, and their places in `dataset`: all that a survey may look at."""
    return _only(dataset, {**dataset.splits, "test": np.empty(0, np.int64)})


def _only(dataset: Dataset, splits: Mapping[str, NDArray[np.int64]]) -> tuple[Dataset, NDArray[np.int64]]:
    """The images of `splits` alone, and their places: a pass over all images is what an exploration pays first."""
    used = np.sort(np.concatenate(list(splits.values())))
    kept = replace(
        dataset,
        images=dataset.images[used],
        labels=dataset.labels[used],
        splits={name: np.searchsorted(used, index) for name, index in splits.items()},
        targets=None if dataset.targets is None else dataset.targets[used],
        digest="",
    )
    return kept, used


def target_table(dataset: Dataset) -> NDArray[np.float32]:
    """What is asked for as distributions (N, classes): those of the data, or 1 at the label."""
    if dataset.targets is not None:
        return dataset.targets
    return np.eye(dataset.class_count, dtype=np.float32)[dataset.labels]


def distilled(dataset: Dataset, answers: NDArray[np.float32], share: float) -> Dataset:
    """Training labels mixed with a teacher's probabilities (N, classes), which take `share` of each.

    Validation and test keep what is asked for: candidates are judged by it.
    """
    targets = target_table(dataset).copy()
    train = dataset.splits["train"]
    targets[train] = (1 - share) * targets[train] + share * answers[train]
    return replace(dataset, targets=targets, digest="")
