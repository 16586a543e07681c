"""Loading images by SPEC: real small files, deterministic splits, one clear line for everything that is wrong."""

from __future__ import annotations

import dataclasses
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from netcut_fx import memory
from netcut_fx.data import Dataset, load_data
from netcut_fx.errors import DataError, NetcutError, SpecError
from netcut_fx.image_sources import FASHION_CLASSES
from netcut_fx.preprocess import Preprocess
from netcut_fx.splits import SPLITS, group_splits, limited, random_splits


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save_class(
    folder: Path, count: int, *, size: tuple[int, int] = (10, 12), suffixes: tuple[str, ...] = ("png",)
) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        image = Image.fromarray(pixels(*size, 3, seed=i))
        image.save(folder / f"{i:03}.{suffixes[i % len(suffixes)]}")


def save_npz(path: Path, **arrays: object) -> Path:
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if v is not None})  # pyright: ignore[reportArgumentType]
    return path


def refusal(spec: object, kind: type[NetcutError] = DataError, **options: object) -> str:
    """The one line with which `spec` is refused."""
    with pytest.raises(kind) as error:
        load_data(str(spec), **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def assert_partition(dataset: Dataset) -> None:
    together = np.concatenate([dataset.splits[s] for s in SPLITS])
    assert sorted(together) == list(range(len(dataset.images)))
    assert tuple(dataset.splits) == SPLITS
    assert set(dataset.labels[dataset.splits["train"]]) == set(range(dataset.class_count))


# ---- digits


def test_digits():
    dataset = load_data("digits?limit=200")
    assert dataset.images.shape == (200, 96, 96, 3)
    assert dataset.images.dtype == np.uint8
    assert dataset.labels.dtype == np.int64
    assert dataset.classes == tuple("0123456789")
    assert dataset.preprocess == Preprocess.named((96, 96), "imagenet")
    assert [len(dataset.splits[s]) for s in SPLITS] == [120, 40, 40]
    assert_partition(dataset)


def test_digits_at_their_own_size_are_scikit_learns():
    from sklearn.datasets import load_digits

    dataset = load_data("digits", input_size=(8, 8))
    bunch = load_digits()
    assert np.array_equal(dataset.labels, bunch.target)
    assert np.array_equal(dataset.images[..., 1], np.rint(bunch.images * 255 / 16))
    counts = [np.bincount(dataset.subset(s)[1], minlength=10) for s in SPLITS]
    shares = [c / np.bincount(bunch.target) for c in counts]
    np.testing.assert_allclose(shares, [[0.6] * 10, [0.2] * 10, [0.2] * 10], atol=0.01)


def test_the_same_seed_gives_the_same_digest_and_another_another():
    def digest(spec: str = "digits?limit=60", **options: object) -> str:
        return load_data(spec, **({"input_size": (8, 8)} | options)).digest

    assert len(digest()) == 64
    assert digest() == digest(seed=0)
    others = [
        digest(),
        digest(seed=1),
        digest("digits?limit=61"),
        digest(input_size=(8, 9)),
        digest(normalize="tf"),
    ]
    assert len(set(others)) == len(others)


def test_subset_and_inputs_and_batches_agree():
    dataset = load_data("digits?limit=50", input_size=(8, 8), normalize="tf")
    images, labels = dataset.subset("validation")
    inputs = dataset.inputs("validation")
    assert np.array_equal(inputs, dataset.preprocess.normalise(images))
    parts = list(dataset.batches("validation", 3))
    assert [len(y) for _, y in parts] == [3, 3, 3, 1]
    assert np.array_equal(np.concatenate([x for x, _ in parts]), inputs)
    assert np.array_equal(np.concatenate([y for _, y in parts]), labels)
    with pytest.raises(DataError, match=r"dataset digits has no split 'valid'; did you mean 'validation'\?"):
        dataset.subset("valid")


def test_a_dataset_cannot_be_changed():
    dataset = load_data("digits?limit=50", input_size=(8, 8))
    for array in (dataset.images, dataset.labels, dataset.splits["test"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(TypeError):
        dataset.splits["test"] = np.arange(3)  # pyright: ignore[reportIndexIssue]
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_dataset_of_parts_that_do_not_fit_is_refused():
    good = load_data("digits?limit=50", input_size=(8, 8))
    for change, text in (
        ({"images": good.images[:, :7]}, r"images are uint8 \(50, 7, 8, 3\); expected uint8 \(50, 8, 8, 3\)"),
        ({"labels": good.labels[:-1]}, r"50 images but labels of shape \(49,\)"),
        ({"labels": good.labels - 1}, "labels do not lie within its 10 classes"),
        ({"splits": {"train": np.arange(50)}}, r"splits are \['train'\]; expected train, validation, test"),
        ({"splits": dict(good.splits) | {"test": good.splits["train"]}}, "an image is in two splits"),
        ({"splits": dict(good.splits) | {"test": np.array([50])}}, "a split points past its end"),
    ):
        with pytest.raises(DataError, match=text):
            dataclasses.replace(good, digest="", **change)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("digits?limit=0", "limit=0 in data 'digits?limit=0'; give a number of images of at least 1"),
        ("digits?limit=true", "limit=True"),
        ("digits?limit=1.5", "limit=1.5"),
        ("digits?limt=5", "data 'digits?limt=5' has an unknown option 'limt'; did you mean 'limit'?"),
        ("digits?limit", "cannot read 'limit' in 'digits?limit': options are written name=value"),
        ("digits?limit=5&limit=6", "option 'limit' is given twice"),
    ],
)
def test_bad_options(spec, text):
    assert text in refusal(spec, SpecError)


def test_bad_sizes_and_normalisations():
    assert "input size (0, 8) is no image size" in refusal("digits", SpecError, input_size=(0, 8))
    assert "did you mean 'imagenet'?" in refusal("digits", SpecError, normalize="imagenett")
    assert "digits with limit=20: class '" in refusal("digits?limit=20")
    assert "fewer than the 3 that train, validation and test need; raise limit=" in refusal("digits?limit=20")


def test_missing_data():
    assert refusal("digit") == (
        "there is no data 'digit'; did you mean 'digits'? give a folder of class folders, an .npz, 'digits' or "
        "'fashion-mnist'"
    )
    assert refusal("no/such/file.npz").startswith("there is no data 'no/such/file.npz'; check the path; give a folder")


def test_a_path_that_the_system_refuses():
    assert refusal("a" * 5000 + ".npz").endswith("); check the path and its permissions")


def test_too_little_memory_is_said_before_it_is_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10_000_000)
    assert refusal("digits") == (
        "digits: 1797 images of 96x96 needs 49.7 MB but 10.0 MB of memory are free; "
        "use a smaller --input-size, or ?limit=N for fewer images"
    )
    dataset = load_data("digits?limit=100", input_size=(96, 96))
    monkeypatch.setattr(memory, "available_bytes", lambda: 1_000_000)
    with pytest.raises(
        DataError, match=r"split 'train' of digits as float32 needs 8\.3 MB but 1\.0 MB of memory are free"
    ):
        dataset.inputs("train")


def test_available_memory_is_a_number_of_bytes():
    assert 1e6 < memory.available_bytes() < 1e15


# ---- folders


def test_folder_of_class_folders(tmp_path: Path):
    save_class(tmp_path / "pets" / "cat", 10, suffixes=("png", "jpg", "JPEG"))
    save_class(tmp_path / "pets" / "dog", 5, suffixes=("bmp", "webp"))
    (tmp_path / "pets" / ".cache").mkdir()
    (tmp_path / "pets" / "cat" / "._000.png").write_bytes(b"not an image")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    dataset = load_data(str(tmp_path / "pets"))
    assert dataset.name == "pets"
    assert dataset.classes == ("cat", "dog")
    assert dataset.images.shape == (15, 224, 224, 3)
    assert np.bincount(dataset.labels).tolist() == [10, 5]
    assert [np.bincount(dataset.subset(s)[1]).tolist() for s in SPLITS] == [[6, 3], [2, 1], [2, 1]]
    assert_partition(dataset)
    small = load_data(str(tmp_path / "pets"), input_size=(10, 12))
    assert np.array_equal(small.images[0], pixels(10, 12, 3, seed=0))


def test_folder_with_splits_of_its_own(tmp_path: Path):
    for split, count in (("train", 4), ("val", 3), ("test", 2)):
        for label in ("a", "b"):
            save_class(tmp_path / split / label, count)
    dataset = load_data(str(tmp_path), input_size=(8, 8))
    assert {s: len(dataset.splits[s]) for s in SPLITS} == {"train": 8, "validation": 6, "test": 4}
    assert_partition(dataset)
    assert load_data(str(tmp_path), input_size=(8, 8), seed=5).digest == dataset.digest
    few = load_data(f"{tmp_path}?limit=18", input_size=(8, 8))
    assert {s: len(few.splits[s]) for s in SPLITS} == {"train": 8, "validation": 6, "test": 4}


def test_a_missing_validation_split_is_taken_from_train(tmp_path: Path):
    for split, count in (("train", 8), ("test", 2)):
        for label in ("a", "b"):
            save_class(tmp_path / split / label, count)
    dataset = load_data(str(tmp_path), input_size=(8, 8))
    assert [np.bincount(dataset.subset(s)[1]).tolist() for s in SPLITS] == [[6, 6], [2, 2], [2, 2]]
    # The test split is the folder's own, whatever the seed.
    other = load_data(str(tmp_path), input_size=(8, 8), seed=1)
    assert np.array_equal(other.splits["test"], dataset.splits["test"])
    assert not np.array_equal(other.splits["validation"], dataset.splits["validation"])


def test_a_class_named_train_is_a_class(tmp_path: Path):
    save_class(tmp_path / "train", 3)
    save_class(tmp_path / "tram", 3)
    assert load_data(str(tmp_path), input_size=(8, 8)).classes == ("train", "tram")


def test_bad_folders(tmp_path: Path):
    assert refusal(tmp_path) == f"{tmp_path} is empty; expected one folder of images for each class"
    save_class(tmp_path / "flat", 3)
    assert refusal(tmp_path / "flat") == (
        f"{tmp_path / 'flat'} has images but no class folders; put the images of each class in a folder"
    )
    assert refusal(tmp_path) == f"{tmp_path} has one class only ('flat'); a classifier needs at least two"
    save_class(tmp_path / "two", 2)
    assert refusal(tmp_path) == (
        f"{tmp_path}: class 'two' has 2 images, fewer than the 3 that train, validation and test need; "
        "add images or leave the class out"
    )
    save_class(tmp_path / "void", 0)
    assert refusal(tmp_path) == (
        f"class folder {tmp_path / 'void'} has no images (.png, .jpg, .jpeg, .bmp, .webp); add some or remove it"
    )


def test_unreadable_image_names_the_file(tmp_path: Path):
    save_class(tmp_path / "a", 3)
    save_class(tmp_path / "b", 3)
    bad = tmp_path / "b" / "001.png"
    bad.write_bytes(bad.read_bytes()[:60])
    assert f"cannot read image {bad} (" in refusal(tmp_path)
    bad.write_text("hello")
    assert "repair it or take it out" in refusal(tmp_path)


def test_bad_splits_of_a_folder(tmp_path: Path):
    for split, label in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "c"), ("val", "a")):
        save_class(tmp_path / split / label, 3)
    assert refusal(tmp_path) == f"{tmp_path}: class 'c' is not in split 'train'; add images of it there"
    save_class(tmp_path / "validation" / "a", 3)
    assert "has two folders for split 'validation', the second is validation; keep one" in refusal(tmp_path)


# ---- npz


def test_npz(tmp_path: Path):
    x, y = pixels(30, 9, 11), np.repeat([7, 3, 40], 10).astype(np.uint8)
    dataset = load_data(str(save_npz(tmp_path / "grey.npz", x=x, y=y)), normalize="tf")
    assert dataset.name == "grey"
    assert dataset.classes == ("3", "7", "40")
    assert dataset.labels.tolist() == [1] * 10 + [0] * 10 + [2] * 10
    assert np.array_equal(dataset.images, np.repeat(x[..., None], 3, axis=3))
    assert_partition(dataset)


@pytest.mark.parametrize(
    ("y", "given", "classes"),
    [
        (np.repeat([0, 1], 5), None, ("0", "1")),
        (np.repeat([0.0, 2.0], 5), None, ("0", "2")),
        (np.repeat([False, True], 5), None, ("0", "1")),
        (np.repeat(["dog", "cat"], 5), None, ("cat", "dog")),
        (np.repeat([0, 2], 5), np.array(["ant", "bee", "cow"]), ("ant", "cow")),
    ],
)
def test_labels_of_an_npz(tmp_path: Path, y, given, classes):
    dataset = load_data(str(save_npz(tmp_path / "a.npz", x=pixels(10, 4, 4, 3), y=y, classes=given)))
    assert dataset.classes == classes
    assert dataset.class_count == 2


def test_groups_never_straddle_splits(tmp_path: Path):
    random = np.random.default_rng(0)
    group = np.sort(random.integers(0, 40, 400))
    arrays = {"x": pixels(400, 4, 4, 3), "y": random.integers(0, 4, 400), "group": group}
    path = save_npz(tmp_path / "a.npz", **arrays)
    seen: set[bytes] = set()
    for seed in range(4):
        dataset = load_data(str(path), seed=seed)
        homes = [{s for s in SPLITS if (group[dataset.splits[s]] == g).any()} for g in np.unique(group)]
        assert all(len(home) == 1 for home in homes)
        assert_partition(dataset)
        assert [len(dataset.splits[s]) for s in SPLITS] == pytest.approx([240, 80, 80], abs=15)
        assert dataset.digest == load_data(str(path), seed=seed).digest
        seen.add(dataset.splits["test"].tobytes())
    assert len(seen) == 4


def test_names_are_groups_too(tmp_path: Path):
    group = np.repeat(["ann", "bob", "eve"], 6)
    path = save_npz(tmp_path / "a.npz", x=pixels(18, 4, 4), y=np.tile([0, 1], 9), group=group)
    dataset = load_data(str(path))
    assert [len(dataset.splits[s]) for s in SPLITS] == [6, 6, 6]
    assert all(len(set(group[dataset.splits[s]])) == 1 for s in SPLITS)


X, Y = pixels(8, 4, 4, 3), np.repeat([0, 1], 4)
UNLIKE = pixels(8, 3, 4, 4)
NAN_IMAGE = X.astype(np.float32) * np.where(np.arange(8) == 5, np.nan, 1)[:, None, None, None]


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": X}, "has no array 'y'; there is: x"),
        ({"X": X, "y": Y}, "has no array 'x'; did you mean 'X'?"),
        ({"x": X, "y": Y[:-1]}, "x has 8 images but y has 7 labels; give one label per image"),
        ({"x": X, "y": Y - 1}, "label of image 0 in y is -1; labels are integers from 0: take unlabelled images out"),
        ({"x": X, "y": Y + 0.5}, "label of image 0 in y is 0.5; labels are integers from 0"),
        ({"x": X, "y": np.where(Y == 1, np.nan, 0)}, "label of image 4 in y is nan; labels are integers from 0"),
        ({"x": X, "y": Y * 1j}, "y is complex128; labels are integers from 0, or names"),
        (
            {"x": X, "y": np.eye(2)[Y]},
            "y has shape (8, 2); expected one label per image, shape (N,); from one-hot rows",
        ),
        ({"x": X, "y": Y * 0}, "has one class only ('0'); a classifier needs at least two"),
        ({"x": X[:0], "y": Y[:0]}, "has no images; add some"),
        ({"x": X, "y": np.array([0] * 6 + [1] * 2)}, "class '1' has 2 images, fewer than the 3"),
        ({"x": X[0, 0], "y": Y[:4]}, "x has shape (4, 3); expected (N, height, width) or (N, height, width, 1 or 3)"),
        (
            {"x": UNLIKE, "y": Y},
            "x has shape (8, 3, 4, 4); expected (N, height, width) or (N, height, width, 1 or 3); move",
        ),
        ({"x": X / 255, "y": Y}, "x is float64 from 0.0"),
        ({"x": X.astype(int), "y": Y}, "x is int64 from 0 to 25"),
        ({"x": NAN_IMAGE, "y": Y}, "image 5 in x holds NaN or infinite values; take it out"),
        ({"x": X, "y": Y, "group": np.arange(7)}, "group has shape (7,) but x has 8 images; give one per image"),
        ({"x": X, "y": Y, "group": np.arange(8) / 2}, "group is float64; expected integers or names"),
        ({"x": X, "y": Y, "group": Y}, "has 2 groups, fewer than the 3 that train, validation and test need"),
        ({"x": X, "y": Y, "classes": np.array(["a"])}, "y has label 1 but classes has 1 names; name every label"),
        ({"x": X, "y": Y, "classes": np.array(["a", "a"])}, "the name 'a' is twice in classes; names must differ"),
        ({"x": X, "y": Y, "classes": np.eye(2)}, "classes is float64 of shape (2, 2); expected a vector of names"),
        ({"x": X, "y": np.array([object()] * 8)}, "array 'y' holds Python objects, which are not read"),
    ],
)
def test_bad_npz(tmp_path: Path, arrays, text):
    path = save_npz(tmp_path / "a.npz", **arrays)
    assert refusal(path).startswith(str(path))
    assert text in refusal(path)


def test_files_that_are_no_npz(tmp_path: Path):
    path = tmp_path / "a.npz"
    path.write_text("hello")
    assert refusal(path).startswith(f"{path} is no npz file (BadZipFile: File is not a zip file); write it with")
    save_npz(path, x=X, y=Y)
    data = bytearray(path.read_bytes())
    data[120] ^= 0xFF
    path.write_bytes(data)
    assert f"{path}: array 'x' is damaged (" in refusal(path)


def test_an_npz_larger_than_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save_npz(tmp_path / "a.npz", x=np.zeros((1000, 50, 50), np.uint8), y=np.arange(1000) % 2)
    monkeypatch.setattr(memory, "available_bytes", lambda: 2_000_000)
    assert refusal(path) == (
        f"{path}: array 'x' (1000, 50, 50) needs 2.5 MB but 2.0 MB of memory are free; "
        "use a smaller file or more memory"
    )


def test_a_path_may_hold_a_question_mark(tmp_path: Path):
    path = save_npz(tmp_path / "what?.npz", x=X, y=Y)
    assert load_data(str(path)).name == "what?"


# ---- IDX files


def save_idx(folder: Path, part: str, count: int, *, packed: bool, separator: str = "-") -> None:
    folder.mkdir(exist_ok=True)
    images, labels = pixels(count, 6, 5, seed=count), (np.arange(count) % 3).astype(np.uint8)
    for kind, ndim, array in (("images", 3, images), ("labels", 1, labels)):
        data = struct.pack(f">4B{ndim}I", 0, 0, 8, ndim, *array.shape) + array.tobytes()
        name = f"{part}-{kind}{separator}idx{ndim}-ubyte"
        (folder / (name + ".gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize(("packed", "separator"), [(True, "-"), (False, "-"), (False, ".")])
def test_idx_files_keep_their_test_split(tmp_path: Path, packed: bool, separator: str):
    save_idx(tmp_path / "idx", "train", 60, packed=packed, separator=separator)
    save_idx(tmp_path / "idx", "t10k", 12, packed=packed, separator=separator)
    dataset = load_data(str(tmp_path / "idx"), input_size=(6, 5))
    assert dataset.classes == ("0", "1", "2")
    assert dataset.splits["test"].tolist() == list(range(60, 72))
    assert [len(dataset.splits[s]) for s in SPLITS] == [45, 15, 12]
    assert np.array_equal(dataset.images[:60, :, :, 0], pixels(60, 6, 5, seed=60))
    assert np.array_equal(dataset.images[60:, :, :, 2], pixels(12, 6, 5, seed=12))
    assert_partition(dataset)
    named = load_data(f"fashion-mnist:{tmp_path / 'idx'}?limit=36")
    assert named.classes == FASHION_CLASSES[:3]
    assert named.name == "fashion-mnist"
    assert named.images.shape == (36, 96, 96, 3)


def test_bad_idx_files(tmp_path: Path):
    folder = tmp_path / "idx"
    save_idx(folder, "train", 30, packed=False)
    assert (
        refusal(folder) == f"{folder} lacks t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz; get the missing file"
    )
    save_idx(folder, "t10k", 9, packed=True)
    labels, images = folder / "train-labels-idx1-ubyte", folder / "t10k-images-idx3-ubyte.gz"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-1])
    assert f"{labels} has 29 bytes of data but announces (30,); get the file again" in refusal(folder)
    labels.write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 29) + whole[8:-1])
    assert "has 30 images but train-labels-idx1-ubyte has 29 labels; the files do not belong together" in refusal(
        folder
    )
    labels.write_bytes(b"hello world")
    assert f"{labels} is no IDX file of unsigned bytes in 1 dimensions; get the file again" in refusal(folder)
    labels.write_bytes(whole)
    images.write_bytes(images.read_bytes()[:-20])
    assert f"cannot read {images} (EOFError" in refusal(folder)
    assert "there is no folder" in refusal(f"fashion-mnist:{tmp_path / 'none'}")
    assert "install Debian's package dataset-fashion-mnist" in refusal(f"fashion-mnist:{tmp_path / 'none'}")


def test_debians_fashion_mnist():
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("/usr/share/datasets/fashion-mnist is missing (Debian's dataset-fashion-mnist)")
    dataset = load_data("fashion-mnist?limit=700")
    assert dataset.classes == FASHION_CLASSES
    assert len(dataset.splits["test"]) == 100


def test_real_photographs_are_split_by_student():
    data = Path(os.environ.get("NETCUT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = data / "signdigits.npz"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    dataset = load_data(str(path), input_size=(32, 32))
    with np.load(path) as arrays:
        group = arrays["group"]
    students = [set(group[dataset.splits[s]]) for s in SPLITS]
    assert sum(map(len, students)) == len(set.union(*students))
    assert [len(dataset.splits[s]) / 2062 for s in SPLITS] == pytest.approx([0.6, 0.2, 0.2], abs=0.02)


# ---- splits


@given(st.lists(st.integers(3, 30), min_size=2, max_size=6), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_random_splits_are_stratified_partitions(counts, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    splits = random_splits(labels, seed)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(labels)))
    for held in ("validation", "test"):
        found = np.bincount(labels[splits[held]], minlength=len(counts))
        assert found.tolist() == [max(1, round(0.2 * n)) for n in counts]


@given(st.lists(st.integers(3, 30), min_size=2, max_size=6), st.integers(0, 100), st.data())
@settings(max_examples=50, deadline=None)
def test_limits_are_nested_and_proportional(counts, seed, data):
    strata = np.repeat(np.arange(len(counts)), counts)
    larger = data.draw(st.integers(3 * len(counts), len(strata)))
    smaller = data.draw(st.integers(1, larger))
    chosen = limited(strata, larger, seed)
    assert len(chosen) == larger
    assert set(limited(strata, smaller, seed)) <= set(chosen)
    found = np.bincount(strata[chosen], minlength=len(counts))
    assert found.min() >= 3


def test_a_class_within_one_group_goes_to_train():
    labels = np.array([0, 1] * 20 + [2] * 4)
    groups = np.concatenate([np.arange(40) // 4, [99] * 4])
    for seed in range(5):
        splits = group_splits(labels, groups, ("a", "b", "c"), seed, "here")
        assert set(labels[splits["train"]]) == {0, 1, 2}


def test_groups_that_are_classes_cannot_be_split():
    labels = np.repeat([0, 1, 2], 5)
    with pytest.raises(DataError) as error:
        group_splits(labels, labels, ("a", "b", "c"), 0, "here")
    assert str(error.value).startswith("here: class '")
    assert str(error.value).endswith(
        "' is in so few groups that train would have none of it; add groups with that class, or leave the array "
        "'group' out to split at random"
    )
