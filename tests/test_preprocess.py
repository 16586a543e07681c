"""Preprocessing: the numbers, the shapes, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netcut_fx.errors import DataError, NetcutError, SpecError
from netcut_fx.preprocess import NORMALISATIONS, Preprocess, parse_normalisation, pixels_of, read_image


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def message(error: pytest.ExceptionInfo[NetcutError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("imagenet", lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("tf", lambda x: (x - 127.5) / 127.5),
        ("half", lambda x: (x - 127.5) / 127.5),
        ("efficientnet-lite", lambda x: (x - 127) / 128),
        ("zero-one", lambda x: x / 255),
        ("caffe-bgr", lambda x: x[..., ::-1] - [104.0, 117.0, 123.0]),
        ("mean=127;std=128", lambda x: (x - 127) / 128),
        ("mean=1,2,3; std=4,5,6.5; bgr=true", lambda x: (x[..., ::-1] - [1, 2, 3]) / [4, 5, 6.5]),
    ],
)
def test_normalisation_follows_its_formula(name, formula):
    images = random_images(2, 5, 7, 3)
    result = Preprocess.named((5, 7), name)(images)
    assert result.dtype == np.float32
    assert result.shape == (2, 3, 5, 7)
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, formula(images.astype(np.float64)).transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_resize_is_pillows_bilinear():
    images = random_images(2, 20, 31, 3)
    result = Preprocess.named((8, 12)).resize(images)
    wanted = [np.asarray(Image.fromarray(i).resize((12, 8), Image.Resampling.BILINEAR)) for i in images]
    assert result.dtype == np.uint8
    assert np.array_equal(result, np.stack(wanted))


def test_images_of_the_right_size_are_not_touched():
    images = random_images(3, 8, 12, 3)
    assert np.array_equal(Preprocess.named((8, 12)).resize(images), images)


@pytest.mark.parametrize("size", [(9, 6), (16, 16), (40, 33)])
def test_grey_gives_three_equal_channels_the_same_as_colour_would(size):
    grey = random_images(2, 16, 16)
    preprocess = Preprocess.named(size, "zero-one")
    colour = preprocess(np.repeat(grey[..., None], 3, axis=3))
    assert np.array_equal(preprocess(grey), colour)
    assert np.array_equal(preprocess(grey[..., None]), colour)
    assert np.array_equal(colour[:, 0], colour[:, 2])


def test_a_batch_gives_the_same_bits_as_its_images_one_by_one():
    images = random_images(5, 30, 20, 3)
    preprocess = Preprocess.named((16, 16))
    together = preprocess(images)
    assert np.array_equal(together, np.concatenate([preprocess(images[i : i + 1]) for i in range(5)]))
    assert np.array_equal(together, preprocess(list(images)))
    assert np.array_equal(together, preprocess([Image.fromarray(i) for i in images]))


def test_images_of_a_sequence_may_differ_in_size():
    preprocess = Preprocess.named((4, 4))
    result = preprocess([random_images(9, 9, 3), random_images(5, 7), Image.new("L", (3, 3), 7)])
    assert result.shape == (3, 3, 4, 4)


def test_an_empty_batch_stays_empty():
    assert Preprocess.named((4, 4))(random_images(0, 9, 9, 3)).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (
            np.zeros((1, 4, 4, 3), np.float32),
            "images are float32, expected uint8 with values 0 to 255; images scaled to",
        ),
        (np.zeros((1, 4, 4, 3), np.int64), "images are int64, expected uint8 with values 0 to 255; convert them"),
        (
            np.zeros((1, 3, 8, 8), np.uint8),
            "(1, 3, 8, 8); expected (N, height, width) or (N, height, width, 1 or 3); move",
        ),
        (np.zeros((8, 8, 3), np.uint8), "reads as one colour image; add the batch dimension: x[None]"),
        (np.zeros((8, 8), np.uint8), "images have shape (8, 8); expected (N, height, width)"),
        (np.zeros((2, 0, 8), np.uint8), "images have shape (2, 0, 8)"),
        ([np.zeros((8, 8, 4), np.uint8)], "an image has shape (8, 8, 4); expected (height, width) or"),
        ([np.zeros((8, 8), np.float64)], "images are float64, expected uint8"),
        ([Image.new("F", (8, 8))], "an image of mode 'F' has no fixed range of values; save it with 8 bits a channel"),
    ],
)
def test_other_images_are_refused(images, text):
    with pytest.raises(DataError) as error:
        Preprocess.named((4, 4))(images)
    assert text in message(error)


def test_normalise_wants_three_channels():
    with pytest.raises(DataError) as error:
        Preprocess.named((4, 4)).normalise(np.zeros((1, 4, 4), np.uint8))
    assert "(1, 4, 4); expected (N, height, width, 3): call resize first" in message(error)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("imagnet", "there is no normalisation 'imagnet'; did you mean 'imagenet'?"),
        ("foo", "there is: caffe-bgr, efficientnet-lite, half, imagenet, tf, zero-one"),
        ("mean=1", "needs both mean and std; write mean=127;std=128, in units of 0-255"),
        ("mean=1,2;std=1", "cannot read '1,2' in normalisation 'mean=1,2;std=1'; give one number, or three"),
        ("mean=nan;std=1", "cannot read 'nan'"),
        ("mean=x;std=1", "cannot read 'x'"),
        ("mean=1;std=1;mean=2", "cannot read 'mean=2'"),
        ("mean=1;std=1;scale=2", "cannot read 'scale=2'"),
        ("mean=1;std=1;bgr=maybe", "bgr=maybe in normalisation"),
    ],
)
def test_unknown_normalisation_says_what_exists(text, part):
    with pytest.raises(SpecError) as error:
        parse_normalisation(text)
    assert part in message(error)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (((0, 4), (1, 1, 1), (1, 1, 1)), "input size (0, 4) is no image size"),
        (((4, 4), (1, 1), (1, 1, 1)), "mean=(1.0, 1.0) in the normalisation; give three finite numbers"),
        (((4, 4), (1, 1, 1), (1, float("inf"), 1)), "std=(1.0, inf, 1.0) in the normalisation"),
        (((4, 4), (1, 1, 1), (1, 0, 1)), "every std must be greater than 0"),
    ],
)
def test_impossible_preprocessing_is_refused(arguments, text):
    with pytest.raises(SpecError) as error:
        Preprocess(*arguments)
    assert text in message(error)


@pytest.mark.parametrize("name", sorted(NORMALISATIONS))
def test_json_round_trip(name):
    preprocess = Preprocess.named((224, 192), name)
    again = Preprocess.from_json(json.loads(json.dumps(preprocess.to_json())))
    assert again == preprocess
    assert hash(again) == hash(preprocess)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"mean": None}, "preprocess cannot be read (TypeError"),
        ({"size": 5}, "preprocess cannot be read (TypeError"),
        ({"bgr": "yes"}, "preprocess cannot be read (TypeError: bgr is 'yes')"),
        ({"std": ["a", "b", "c"]}, "preprocess cannot be read (ValueError"),
    ],
)
def test_damaged_json_is_refused(change, text):
    with pytest.raises(SpecError) as error:
        Preprocess.from_json(Preprocess.named((4, 4)).to_json() | change)
    assert text in message(error)
    with pytest.raises(SpecError, match="preprocess lacks the field 'size'"):
        Preprocess.from_json({})


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_read_image_is_lossless_where_the_format_is(tmp_path: Path, suffix: str):
    pixels = random_images(6, 9, 3)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), pixels)


def test_read_image_turns_photographs_upright(tmp_path: Path):
    upright = Image.fromarray(random_images(6, 9, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    upright.save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").shape == (9, 6, 3)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path):
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 255]


def test_palette_and_alpha_become_colour():
    assert pixels_of(Image.new("RGBA", (2, 2), (1, 2, 3, 4))).tolist() == [[[1, 2, 3]] * 2] * 2
    assert pixels_of(Image.new("RGB", (2, 2), (255, 0, 0)).convert("P")).shape == (2, 2, 3)


def test_unreadable_image_is_named(tmp_path: Path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff no jpeg")
    with pytest.raises(DataError) as error:
        read_image(path)
    assert f"cannot read image {path} (UnidentifiedImageError" in message(error)
    whole = tmp_path / "whole.png"
    Image.fromarray(random_images(40, 40, 3)).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(DataError) as error:
        read_image(tmp_path / "half.png")
    assert f"cannot read image {tmp_path / 'half.png'} (OSError" in message(error)
    Image.new("F", (2, 2)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError) as error:
        read_image(tmp_path / "float.tiff")
    assert message(error).startswith(f"{tmp_path / 'float.tiff'}: an image of mode 'F'")


def test_importing_needs_neither_torch_nor_sklearn():
    code = "import sys, netcut_fx.preprocess; print(sorted({'torch', 'sklearn', 'scipy', 'tvm'} & set(sys.modules)))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
