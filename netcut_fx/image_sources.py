"""Where images come from: folders, npz, IDX files, scikit-learn's digits. Each yields images one by one, unscaled."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from netcut_fx.errors import DataError
from netcut_fx.preprocess import Images, read_image
from netcut_fx.spec_text import one_line
from netcut_fx.splits import Indices

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

#: Class names in the order of the labels; https://github.com/zalandoresearch/fashion-mnist, table "Labels".
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_FOLDER_SPLITS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Source:
    """Labels now, images on demand.

    Parameters
    ----------
    name : str
        What to call the data in reports.
    labels : int64 array (N,)
        From 0, indices into `classes`.
    classes : tuple of str
        Every one occurs.
    image : callable
        Index to uint8 (H, W) or (H, W, C) of the image's own size.
    size : tuple of int
        Height and width to use unless the user says otherwise.
    groups : int64 array (N,), optional
        Images of one group stay together.
    splits : mapping
        Splits that the data brings; may lack some.
    targets : float32 array (N, classes), optional
        A distribution over the classes for each image, where a label alone would say too little.
    """

    name: str
    labels: Indices
    classes: tuple[str, ...]
    image: Callable[[int], Images]
    size: tuple[int, int]
    groups: Indices | None = None
    splits: Mapping[str, Indices] = field(default_factory=dict[str, Indices])
    targets: NDArray[np.float32] | None = None


def digits_source() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels of 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    bunch = cast(Any, load_digits())
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    return Source("digits", labels, tuple(str(d) for d in range(10)), lambda i: pixels[i], (96, 96))


def folder_source(folder: Path) -> Source:
    """Read a folder of class folders, or of ``train``, ``val``/``validation`` and ``test`` folders that hold such.

    Raises
    ------
    DataError
        If there is no class folder, or one without images.
    """
    children = _folders(folder)
    by_split: dict[str, list[tuple[str, Path]]] = {}
    if children and {"train"} <= {c.name for c in children} <= set(_FOLDER_SPLITS):
        for child in children:
            split = _FOLDER_SPLITS[child.name]
            if split in by_split:
                raise DataError(f"{folder} has two folders for split '{split}', the second is {child.name}; keep one")
            by_split[split] = _class_files(child)
    else:
        by_split[""] = _class_files(folder)
    classes = tuple(sorted({label for files in by_split.values() for label, _ in files}))
    number = {label: i for i, label in enumerate(classes)}
    splits: dict[str, Indices] = {}
    paths: list[Path] = []
    labels: list[int] = []
    for split, files in by_split.items():
        if split:
            splits[split] = np.arange(len(paths), len(paths) + len(files))
        paths += [path for _, path in files]
        labels += [number[label] for label, _ in files]
    name = folder.resolve().name
    return Source(name, np.array(labels, np.int64), classes, lambda i: read_image(paths[i]), (224, 224), None, splits)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_files(folder: Path) -> list[tuple[str, Path]]:
    """(class name, image file) pairs in a fixed order."""
    class_folders = _folders(folder)
    if not class_folders:
        if any(p.suffix.lower() in SUFFIXES for p in folder.iterdir()):
            raise DataError(f"{folder} has images but no class folders; put the images of each class in a folder")
        raise DataError(f"{folder} is empty; expected one folder of images for each class")
    pairs: list[tuple[str, Path]] = []
    for class_folder in class_folders:
        files = sorted(
            path
            for path in class_folder.rglob("*")
            if path.suffix.lower() in SUFFIXES
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(class_folder).parts)
        )
        if not files:
            raise DataError(f"class folder {class_folder} has no images ({', '.join(SUFFIXES)}); add some or remove it")
        pairs += [(class_folder.name, path) for path in files]
    return pairs


def idx_files(folder: Path) -> dict[str, Path] | None:
    """Find the four IDX files of a folder by role (``"train-images"``...), raw or gzipped; None if it holds none."""
    found: dict[str, Path] = {}
    for role, kind in (("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1)):
        for separator in "-.":
            for ending in ("", ".gz"):
                path = folder / f"{role}{separator}idx{kind}-ubyte{ending}"
                if path.is_file():
                    found.setdefault(role, path)
    return found or None


def idx_source(folder: Path, name: str, classes: Sequence[str] = ()) -> Source:
    """MNIST-like IDX files; the ``t10k`` files are the test split, validation is taken from train.

    Raises
    ------
    DataError
        If a file is missing or damaged, or numbers of images and labels differ.
    """
    files = idx_files(folder) or {}
    for role in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        if role not in files:
            kind = 3 if role.endswith("images") else 1
            raise DataError(f"{folder} lacks {role}-idx{kind}-ubyte or {role}-idx{kind}-ubyte.gz; get the missing file")
    images = {part: _read_idx(files[f"{part}-images"], 3) for part in ("train", "t10k")}
    labels = {part: _read_idx(files[f"{part}-labels"], 1).astype(np.int64) for part in ("train", "t10k")}
    for part in ("train", "t10k"):
        if len(images[part]) != len(labels[part]):
            raise DataError(
                f"{files[f'{part}-images']} has {len(images[part])} images but {files[f'{part}-labels'].name} has "
                f"{len(labels[part])} labels; the files do not belong together"
            )
    if images["train"].shape[1:] != images["t10k"].shape[1:]:
        raise DataError(f"{folder}: images of train and t10k differ in size; the files do not belong together")
    train_count = len(labels["train"])
    values, numbers = np.unique(np.concatenate([labels["train"], labels["t10k"]]), return_inverse=True)
    known = len(classes) > values.max(initial=0)
    parts = images["train"], images["t10k"]
    return Source(
        name,
        numbers.astype(np.int64),
        tuple(str(classes[v] if known else v) for v in values),
        lambda i: parts[0][i] if i < train_count else parts[1][i - train_count],
        (96, 96),
        None,
        {"train": np.arange(train_count), "test": np.arange(train_count, len(numbers))},
    )


def _read_idx(path: Path, ndim: int) -> Images:
    """Read an IDX file of unsigned bytes; format: http://yann.lecun.com/exdb/mnist, "THE IDX FILE FORMAT"."""
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({one_line(error)}); get the file again") from error
    header = 4 + 4 * ndim
    if data[:4] != bytes((0, 0, 8, ndim)) or len(data) < header:
        raise DataError(f"{path} is no IDX file of unsigned bytes in {ndim} dimensions; get the file again")
    shape = struct.unpack(f">{ndim}I", data[4:header])
    if len(data) - header != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{path} has {len(data) - header} bytes of data but announces {shape}; get the file again")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
