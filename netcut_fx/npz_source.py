"""Images from an ``.npz``: ``x``, ``y`` and what else it may hold; checked before it is read."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcut_fx.errors import DataError
from netcut_fx.image_sources import Source
from netcut_fx.memory import check_memory
from netcut_fx.spec_text import did_you_mean, one_line
from netcut_fx.splits import SPLITS, Indices


def npz_source(path: Path) -> Source:
    """Images of an npz file, never unpickling anything.

    Parameters
    ----------
    path : Path
        ``x``: uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3). ``y``: N labels, integers from 0 or names. ``group``: N
        integers or names, optional. ``classes``: names, the i-th for label i, optional. ``split``: ``train``,
        ``validation`` or ``test`` for each image, optional; validation may be missing. ``p``: N rows of probabilities,
        one for each class, optional; the label is then the likeliest class, and ``y`` may be left out.

    Raises
    ------
    DataError
        Naming the file and the array, if one is missing, of another shape or type, or holds NaN or negative labels.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{path} is no npz file ({one_line(error)}); write it with numpy.savez(path, x=..., y=...)"
        ) from (error)
    with archive:
        present = [n.removesuffix(".npy") for n in archive.namelist()]
        targets = _probabilities(_read(archive, path, "p"), path) if "p" in present else None
        for name in ("x", "y") if targets is None else ("x",):
            if name not in present:
                raise DataError(f"{path} has no array '{name}'; {did_you_mean(name, present)}")
        images = _images(archive, path)
        values = _read(archive, path, "y") if targets is None else targets.argmax(axis=1)
        splits = _given_splits(_read(archive, path, "split"), path) if "split" in present else {}
        groups = _read(archive, path, "group") if "group" in present else None
        given = _read(archive, path, "classes") if "classes" in present else None
    if len(images) != len(values):
        raise DataError(f"{path}: x has {len(images)} images but y has {len(values)} labels; give one label per image")
    if groups is not None and groups.shape != (len(images),):
        raise DataError(f"{path}: group has shape {groups.shape} but x has {len(images)} images; give one per image")
    if any(index[-1] >= len(images) for index in splits.values()):
        raise DataError(f"{path}: split names more images than the {len(images)} of x; give one name per image")
    labels, classes = named_labels(values, given, str(path))
    if targets is not None and targets.shape[1] != len(classes):
        raise DataError(
            f"{path}: p has {targets.shape[1]} columns, but only {len(classes)} classes are the likeliest of some "
            "image; leave out the columns of the others"
        )
    group_numbers = None if groups is None else _group_numbers(groups, path)
    height, width = images.shape[1:3]
    return Source(path.stem, labels, classes, lambda i: images[i], (height, width), group_numbers, splits, targets)


def named_labels(values: NDArray[Any], given: NDArray[Any] | None, where: str) -> tuple[Indices, tuple[str, ...]]:
    """Labels as written, to labels from 0 without gaps and the name of each.

    Raises
    ------
    DataError
        If the labels are no vector, NaN, fractions, negative, or have no name in `given`.
    """
    if values.ndim != 1:
        hint = "; from one-hot rows make them with y.argmax(axis=1)" if values.ndim == 2 and values.shape[1] > 1 else ""
        raise DataError(f"{where}: y has shape {values.shape}; expected one label per image, shape (N,){hint}")
    if values.dtype.kind == "U":
        written, numbers = np.unique(values, return_inverse=True)
        return numbers.astype(np.int64), tuple(map(str, written.tolist()))
    if values.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise DataError(f"{where}: label of image {bad[0]} in y is {values[bad[0]]}; labels are integers from 0")
        bad = np.flatnonzero(values != np.rint(values))
        if len(bad):
            raise DataError(f"{where}: label of image {bad[0]} in y is {values[bad[0]]}; labels are integers from 0")
    elif values.dtype.kind not in "iub":
        raise DataError(f"{where}: y is {values.dtype}; labels are integers from 0, or names")
    integers = values.astype(np.int64)
    negative = np.flatnonzero(integers < 0)
    if len(negative):
        raise DataError(
            f"{where}: label of image {negative[0]} in y is {integers[negative[0]]}; labels are integers from 0: "
            "take unlabelled images out"
        )
    distinct, numbers = np.unique(integers, return_inverse=True)
    if given is None:
        return numbers.astype(np.int64), tuple(str(v) for v in distinct)
    names = _class_names(given, where)
    if len(distinct) and distinct[-1] >= len(names):
        raise DataError(f"{where}: y has label {distinct[-1]} but classes has {len(names)} names; name every label")
    return numbers.astype(np.int64), tuple(names[int(v)] for v in distinct)


def _class_names(given: NDArray[Any], where: str) -> list[str]:
    names = [str(name) for name in given.ravel()]
    if given.ndim != 1 or given.dtype.kind not in "Uiu":
        raise DataError(f"{where}: classes is {given.dtype} of shape {given.shape}; expected a vector of names")
    for i, name in enumerate(names):
        if name in names[:i]:
            raise DataError(f"{where}: the name '{name}' is twice in classes; names must differ")
    return names


def _images(archive: zipfile.ZipFile, path: Path) -> NDArray[np.uint8]:
    shape, dtype = _header(archive, path, "x")
    colour_first = len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape[1:]:
        cure = "; move the channels last with x.transpose(0, 2, 3, 1)" if colour_first else ""
        raise DataError(f"{path}: x has shape {shape}; expected (N, height, width) or (N, height, width, 1 or 3){cure}")
    images = _read(archive, path, "x")
    if dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(images.reshape(len(images), -1)).all(axis=1))
        if len(bad):
            raise DataError(f"{path}: image {bad[0]} in x holds NaN or infinite values; take it out")
    if dtype != np.uint8:
        found = f" from {images.min()} to {images.max()}" if images.size and dtype.kind in "iuf" else ""
        raise DataError(f"{path}: x is {dtype}{found}; expected uint8 with values 0 to 255")
    return images


def _header(archive: zipfile.ZipFile, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type without reading the data."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with archive.open(f"{name}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            shape, _, dtype = read[version](stream)
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{path}: array '{name}' is damaged ({one_line(error)}); write the file again") from error
    if dtype.hasobject:
        raise DataError(f"{path}: array '{name}' holds Python objects, which are not read; save numbers or text")
    return shape, dtype


def _read(archive: zipfile.ZipFile, path: Path, name: str) -> NDArray[Any]:
    shape, dtype = _header(archive, path, name)
    needed_bytes = int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
    check_memory(needed_bytes, f"{path}: array '{name}' {shape}", "use a smaller file or more memory")
    try:
        with archive.open(f"{name}.npy") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{path}: array '{name}' is damaged ({one_line(error)}); write the file again") from error


def _probabilities(values: NDArray[Any], path: Path) -> NDArray[np.float32]:
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise DataError(f"{path}: p is {values.dtype} {values.shape}; expected a row of probabilities for each image")
    table = values.astype(np.float64)
    wrong = np.flatnonzero(~((table >= 0).all(axis=1) & (np.abs(table.sum(axis=1) - 1) < 1e-3)))
    if len(wrong):
        raise DataError(f"{path}: row {wrong[0]} of p is no distribution; give numbers of at least 0 that sum to 1")
    return (table / table.sum(axis=1, keepdims=True)).astype(np.float32)


def _given_splits(values: NDArray[Any], path: Path) -> dict[str, Indices]:
    if values.ndim != 1 or values.dtype.kind != "U" or not set(values.tolist()) <= set(SPLITS):
        raise DataError(f"{path}: split is {values.dtype} {values.shape}; expected {', '.join(SPLITS)} for each image")
    return {name: np.flatnonzero(values == name) for name in SPLITS if (values == name).any()}


def _group_numbers(groups: NDArray[Any], path: Path) -> Indices:
    if groups.dtype.kind not in "iubUS":
        raise DataError(f"{path}: group is {groups.dtype}; expected integers or names")
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)
