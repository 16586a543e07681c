"""Load labelled images by a SPEC and divide them into train, validation and test."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcut_fx.errors import DataError, SpecError
from netcut_fx.image_sources import (
    DEBIAN_FASHION_MNIST,
    FASHION_CLASSES,
    Source,
    digits_source,
    folder_source,
    idx_files,
    idx_source,
)
from netcut_fx.memory import check_memory
from netcut_fx.npz_source import npz_source
from netcut_fx.preprocess import Images, Preprocess
from netcut_fx.spec_text import did_you_mean, one_line, split_spec
from netcut_fx.splits import (
    SPLITS,
    Indices,
    check_classes,
    check_groups,
    complete_splits,
    group_splits,
    limited,
    missing_classes,
    random_splits,
)

BUILT_IN = ("digits", "fashion-mnist")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images at the size that the network reads, divided into splits. All arrays are read-only.

    Parameters
    ----------
    name : str
        What to call the data in reports.
    images : uint8 array (N, H, W, 3)
        Resized, not normalised.
    labels : int64 array (N,)
        Indices into `classes`.
    classes : tuple of str
        Names.
    splits : mapping
        ``"train"``, ``"validation"`` and ``"test"`` to ascending indices; no image is in two.
    preprocess : Preprocess
        How images were resized and are to be normalised.
    digest : str
        SHA-256 over images, labels, class names, splits, preprocessing and targets; computed unless given.
    targets : float32 array (N, classes), optional
        A distribution over the classes for each image, to train towards and to compare answers with; else the label.

    Raises
    ------
    DataError
        If the parts do not fit each other.
    """

    name: str
    images: Images
    labels: Indices
    classes: tuple[str, ...]
    splits: Mapping[str, Indices]
    preprocess: Preprocess
    digest: str = ""
    targets: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.images)
        if self.images.dtype != np.uint8 or self.images.shape != (count, *self.preprocess.size, 3):
            raise DataError(
                f"dataset {self.name}: images are {self.images.dtype} {self.images.shape}; expected uint8 "
                f"{(count, *self.preprocess.size, 3)}"
            )
        if self.labels.shape != (count,):
            raise DataError(f"dataset {self.name}: {count} images but labels of shape {self.labels.shape}")
        if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise DataError(f"dataset {self.name}: labels do not lie within its {len(self.classes)} classes")
        if self.targets is not None:
            wanted = (count, len(self.classes))
            if self.targets.shape != wanted:
                raise DataError(f"dataset {self.name}: targets have shape {self.targets.shape}; expected {wanted}")
            object.__setattr__(self, "targets", _read_only(self.targets.astype(np.float32, copy=False)))
        if set(self.splits) != set(SPLITS):
            raise DataError(f"dataset {self.name}: splits are {sorted(self.splits)}; expected {', '.join(SPLITS)}")
        uses = np.bincount(np.concatenate([self.splits[s] for s in SPLITS]), minlength=count)
        if len(uses) > count or uses.max(initial=0) > 1:
            raise DataError(f"dataset {self.name}: an image is in two splits, or a split points past its end")
        object.__setattr__(self, "images", _read_only(self.images))
        object.__setattr__(self, "labels", _read_only(self.labels.astype(np.int64, copy=False)))
        splits = {s: _read_only(self.splits[s].astype(np.int64, copy=False)) for s in SPLITS}
        object.__setattr__(self, "splits", MappingProxyType(splits))
        if not self.digest:
            object.__setattr__(self, "digest", self._digest())

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def subset(self, split: str) -> tuple[Images, Indices]:
        """Images (uint8 NHWC) and labels of one split, as copies."""
        index = self._index(split)
        return self.images[index], self.labels[index]

    def aims(self, index: Indices) -> NDArray[Any]:
        """What training on the images `index` aims at: their distributions (n, classes), or else their labels (n,)."""
        return self.labels[index] if self.targets is None else self.targets[index]

    def inputs(self, split: str) -> NDArray[np.float32]:
        """Normalise one split, all at once: float32 (n, 3, H, W), what the network reads."""
        index = self._index(split)
        height, width = self.preprocess.size
        check_memory(
            len(index) * height * width * 3 * 5,  # four bytes of float and one of the selected pixel
            f"split '{split}' of {self.name} as float32",
            "read it in batches, or use a smaller --input-size or ?limit=",
        )
        return self.preprocess.normalise(self.images[index])

    def batches(self, split: str, batch: int = 64) -> Iterator[tuple[NDArray[np.float32], Indices]]:
        """Normalised inputs (n, 3, H, W) and labels of one split, `batch` images at a time, in order."""
        index = self._index(split)
        for start in range(0, len(index), batch):
            part = index[start : start + batch]
            yield self.preprocess.normalise(self.images[part]), self.labels[part]

    def _index(self, split: str) -> Indices:
        if split not in self.splits:
            raise DataError(f"dataset {self.name} has no split '{split}'; {did_you_mean(split, SPLITS)}")
        return self.splits[split]

    def _digest(self) -> str:
        digest = hashlib.sha256()
        facts = {"shape": self.images.shape, "classes": self.classes, "preprocess": self.preprocess.to_json()}
        digest.update(json.dumps(facts, sort_keys=True).encode())
        for array in (self.images, self.labels, *(self.splits[s] for s in SPLITS)):
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        if self.targets is not None:
            digest.update(b"targets")
            digest.update(np.ascontiguousarray(self.targets).data)
        return digest.hexdigest()


def load_data(
    spec: str, *, input_size: tuple[int, int] | None = None, normalize: str | None = None, seed: int = 0
) -> Dataset:
    """Load, resize and split labelled images.

    Parameters
    ----------
    spec : str
        ``digits``; ``fashion-mnist`` (Debian's files) or ``fashion-mnist:FOLDER``; an ``.npz`` with ``x``, ``y`` and
        optionally ``group``, ``classes``, ``split`` and ``p`` (see `netcut_fx.npz_source.npz_source`); a folder of
        class folders; a folder of ``train``, ``validation`` and ``test`` folders; a folder of IDX files. ``?limit=N``
        appended takes N images, in proportion to the classes.
    input_size : (height, width), optional
        Default: 96x96 for digits and IDX files, the images' own size for npz, 224x224 for folders.
    normalize : str, optional
        See `netcut_fx.preprocess.parse_normalisation`; default ``imagenet``.
    seed : int
        Decides the splits and the limit.

    Returns
    -------
    Dataset
        Splits that the data brings are kept; else 60/20/20, stratified by label, or by ``group`` with all images of a
        group in one split.

    Raises
    ------
    DataError
        If the data is missing, damaged or cannot be split.
    SpecError
        If an option cannot be understood.
    """
    where, limit = _read_spec(spec)
    try:
        source = _open(where)
    except OSError as error:  # no permission, a name too long, a disk that fails
        raise DataError(
            f"cannot read data '{where}' ({one_line(error)}); check the path and its permissions"
        ) from error
    preprocess = Preprocess.named(source.size if input_size is None else input_size, normalize or "imagenet")
    check_classes(source.labels, source.classes, where)
    chosen = _limit(source, limit, seed)
    labels = source.labels[chosen]
    check_classes(labels, source.classes, f"{where} with limit={limit}" if limit else where, limited=limit is not None)
    splits = _splits(source, chosen, seed, where)
    height, width = preprocess.size
    check_memory(
        len(chosen) * height * width * 3,
        f"{where}: {len(chosen)} images of {height}x{width}",
        "use a smaller --input-size, or ?limit=N for fewer images",
    )
    images = np.empty((len(chosen), height, width, 3), np.uint8)
    for row, i in enumerate(chosen):
        images[row] = preprocess.resize_one(source.image(int(i)))
    targets = None if source.targets is None else source.targets[chosen]
    return Dataset(source.name, images, labels, source.classes, splits, preprocess, targets=targets)


def _read_spec(spec: str) -> tuple[str, int | None]:
    """Where the data is, and how many images to take."""
    if "?" in spec and os.path.exists(spec):  # a path may contain a question mark
        return spec, None
    where, options = split_spec(spec)
    for name in options:
        if name != "limit":
            raise SpecError(f"data '{spec}' has an unknown option '{name}'; {did_you_mean(name, ['limit'])}")
    limit = options.get("limit")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise SpecError(f"limit={limit} in data '{spec}'; give a number of images of at least 1")
    return where, limit


def _open(where: str) -> Source:
    if where == "digits":
        return digits_source()
    kind, _, folder = where.partition(":")
    if kind == "fashion-mnist":
        path = Path(folder) if folder else DEBIAN_FASHION_MNIST
        if not path.is_dir():
            raise DataError(
                f"there is no folder {path} for fashion-mnist; install Debian's package dataset-fashion-mnist, or "
                "write fashion-mnist:FOLDER with a folder of its IDX files"
            )
        return idx_source(path, "fashion-mnist", FASHION_CLASSES)
    path = Path(where)
    if path.is_dir():
        return idx_source(path, path.resolve().name) if idx_files(path) else folder_source(path)
    if path.exists():
        return npz_source(path)
    hint = did_you_mean(where, BUILT_IN) if "/" not in where and "." not in where else "check the path"
    raise DataError(
        f"there is no data '{where}'; {hint.rstrip('?')}{'?' if hint.endswith('?') else ';'} "
        "give a folder of class folders, an .npz, 'digits' or 'fashion-mnist'"
    )


def _limit(source: Source, limit: int | None, seed: int) -> Indices:
    """Choose the images to use; their indices."""
    if limit is None:
        return np.arange(len(source.labels))
    strata = source.labels.copy()
    for number, index in enumerate(source.splits.values(), start=1):
        strata[index] += number * len(source.classes)
    return limited(strata, limit, seed)


def _splits(source: Source, chosen: Indices, seed: int, where: str) -> dict[str, Indices]:
    labels = source.labels[chosen]
    if source.splits:
        if source.groups is not None:
            check_groups(source.splits, source.groups, where)
        given = {name: np.flatnonzero(np.isin(chosen, index)) for name, index in source.splits.items()}
        splits = complete_splits(labels, given, source.classes, seed, where)
    elif source.groups is not None:
        splits = group_splits(labels, source.groups[chosen], source.classes, seed, where)
    else:
        splits = random_splits(labels, seed)
    lacking = missing_classes(labels[splits["train"]], len(source.classes))
    assert not lacking, f"train lacks classes {lacking}"
    return splits


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Make a view that cannot be written; the caller's own array stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view
