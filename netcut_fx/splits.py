"""Which images are for training, for choosing (validation) and for reporting (test): deterministic in the seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from netcut_fx.errors import DataError

Indices = NDArray[np.int64]

SPLITS = ("train", "validation", "test")

#: Shares of validation and test; the rest is for training.
SHARE = 0.2

#: A class with fewer images cannot be in all three splits.
LEAST_PER_CLASS = 3

_GROUP_TRIES = 20


def check_classes(labels: Indices, classes: Sequence[str], where: str, *, limited: bool = False) -> None:
    """Refuse labels with one class only, or with a class too small to be split.

    Raises
    ------
    DataError
        Naming `where` the data is from, and the class.
    """
    if len(labels) == 0:
        raise DataError(f"{where} has no images; add some")
    if len(classes) == 1:
        raise DataError(f"{where} has one class only ('{classes[0]}'); a classifier needs at least two")
    counts = np.bincount(labels, minlength=len(classes))
    least = int(counts.argmin())
    if counts[least] < LEAST_PER_CLASS:
        cure = "raise limit=" if limited else "add images or leave the class out"
        raise DataError(
            f"{where}: class '{classes[least]}' has {counts[least]} images, fewer than the {LEAST_PER_CLASS} that "
            f"train, validation and test need; {cure}"
        )


def random_splits(labels: Indices, seed: int) -> dict[str, Indices]:
    """Train/validation/test 60/20/20, stratified by label; every class is in all three.

    Parameters
    ----------
    labels : int64 array (N,)
        From 0, every class at least `LEAST_PER_CLASS` times.
    seed : int
        The same seed gives the same splits.

    Returns
    -------
    dict
        Ascending indices for ``"train"``, ``"validation"``, ``"test"``.
    """
    parts: dict[str, list[Indices]] = {name: [] for name in SPLITS}
    for members in _shuffled_members(labels, seed):
        held = max(1, round(SHARE * len(members)))
        parts["test"].append(members[:held])
        parts["validation"].append(members[held : 2 * held])
        parts["train"].append(members[2 * held :])
    return {name: np.sort(np.concatenate(parts[name])) for name in SPLITS}


def group_splits(labels: Indices, groups: Indices, classes: Sequence[str], seed: int, where: str) -> dict[str, Indices]:
    """Train/validation/test about 60/20/20 by label, all images of one group in one split.

    Of several shufflings the first is taken in which every class is in every split, or else one that misses least;
    train has every class in any case.

    Raises
    ------
    DataError
        With fewer than three groups, or if a class sits in so few groups that train would lack it.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # pyright: ignore[reportMissingTypeStubs]

    group_count = len(np.unique(groups))
    if group_count < len(SPLITS):
        raise DataError(
            f"{where} has {group_count} groups, fewer than the 3 that train, validation and test need; "
            "leave the array 'group' out to split at random"
        )
    folds = min(round(1 / SHARE), group_count)
    best: tuple[int, dict[str, Indices], list[int]] | None = None
    for attempt in range(_GROUP_TRIES):
        # Offsets far apart: seeds 0 and 1 must not share their attempts.
        splitter: Any = StratifiedGroupKFold(folds, shuffle=True, random_state=(seed * 1009 + attempt) % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class in fewer than five images is dealt with below
            try:
                pairs = cast(Iterator[tuple[Indices, Indices]], splitter.split(labels, labels, groups))
                held = [np.sort(fold).astype(np.int64) for _, fold in pairs]
            except ValueError:  # no class has as many images as there are folds
                break
        splits = {"train": np.sort(np.concatenate(held[2:])), "validation": held[1], "test": held[0]}
        absent = {name: missing_classes(labels[index], len(classes)) for name, index in splits.items()}
        if any(len(index) == 0 for index in splits.values()):
            continue
        # A class that train lacks cannot be learnt: worse than any number of gaps elsewhere.
        score = len(absent["train"]) * 3 * len(classes) + sum(len(a) for a in absent.values())
        if best is None or score < best[0]:
            best = (score, splits, absent["train"])
        if score == 0:
            break
    if best is None:
        raise DataError(f"{where}: its {group_count} groups cannot be divided into three splits; use smaller groups")
    if best[2]:
        raise DataError(
            f"{where}: class '{classes[best[2][0]]}' is in so few groups that train would have none of it; "
            "add groups with that class, or leave the array 'group' out to split at random"
        )
    return best[1]


def complete_splits(
    labels: Indices, given: Mapping[str, Indices], classes: Sequence[str], seed: int, where: str
) -> dict[str, Indices]:
    """Keep the splits that the data brings; what is missing is a stratified quarter of train each.

    Raises
    ------
    DataError
        If a split is empty, or train lacks a class that occurs elsewhere.
    """
    splits = {name: np.sort(index) for name, index in given.items()}
    for name in ("test", "validation"):
        if name in splits:
            continue
        train = splits["train"]
        parts = [m[: max(1, round(0.25 * len(m)))] for m in _shuffled_members(labels[train], seed) if len(m) > 1]
        chosen = np.concatenate(parts) if parts else np.empty(0, np.int64)
        splits[name] = np.sort(train[chosen])
        splits["train"] = np.delete(train, chosen)
    for name in SPLITS:
        if len(splits[name]) == 0:
            raise DataError(f"{where}: split '{name}' has no images; add some")
    absent = missing_classes(labels[splits["train"]], len(classes))
    if absent:
        raise DataError(f"{where}: class '{classes[absent[0]]}' is not in split 'train'; add images of it there")
    return {name: splits[name] for name in SPLITS}


def check_groups(splits: Mapping[str, Indices], groups: Indices, where: str) -> None:
    """Refuse splits that the data brings if one group of images is in two of them.

    Raises
    ------
    DataError
        Naming the splits: accuracy on images of a group that was trained on says nothing about new ones.
    """
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        if first in splits and second in splits:
            shared = np.intersect1d(groups[splits[first]], groups[splits[second]])
            if len(shared):
                raise DataError(
                    f"{where}: {len(shared)} groups have images in both '{first}' and '{second}' (the first is group "
                    f"number {shared[0]}); put all images of a group into one split, or leave the array 'split' out"
                )


def limited(strata: Indices, limit: int, seed: int) -> Indices:
    """Ascending indices of `limit` items, in the proportions of `strata`; a smaller limit takes a subset of a larger.

    Every stratum gives at least `LEAST_PER_CLASS` items where the limit and the stratum allow.
    """
    if limit >= len(strata):
        return np.arange(len(strata))
    rank = np.empty(len(strata), np.float64)
    for members in _shuffled_members(strata, seed):
        position = np.arange(len(members))
        rank[members] = np.where(
            position < LEAST_PER_CLASS, position - LEAST_PER_CLASS, (position + 0.5) / len(members)
        )
    return np.sort(np.argsort(rank, kind="stable")[:limit])


def missing_classes(labels: Indices, count: int) -> list[int]:
    """Classes 0 to ``count - 1`` that `labels` lacks."""
    return np.flatnonzero(np.bincount(labels, minlength=count) == 0).tolist()


def _shuffled_members(labels: Indices, seed: int) -> list[Indices]:
    """For every label, its indices in random order; each label has its own stream of numbers."""
    return [
        np.random.default_rng([seed, int(label)]).permutation(np.flatnonzero(labels == label))
        for label in np.unique(labels)
    ]
