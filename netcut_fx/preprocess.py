"""From an image to what a network reads: the one definition that training and the deployed runtime share.

Needs numpy and Pillow only. Every step gives the same bits on every machine: Pillow resizes in integer arithmetic, and
normalising is one float32 subtraction and one float32 division, which IEEE 754 rounds in one way only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from netcut_fx.errors import DataError, SpecError
from netcut_fx.spec_text import did_you_mean, one_line

Images = NDArray[np.uint8]

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """``(pixel - mean) / std`` per channel, in units of 0-255, after swapping to BGR if `bgr`."""

    mean: Triple
    std: Triple
    bgr: bool = False


def _same(number: float) -> Triple:
    return number, number, number


def _times_255(a: float, b: float, c: float) -> Triple:
    return 255 * a, 255 * b, 255 * c


_HALF = Normalisation(_same(127.5), _same(127.5))

#: What ``--normalize`` knows by name.
NORMALISATIONS: Mapping[str, Normalisation] = MappingProxyType(
    {
        "imagenet": Normalisation(_times_255(0.485, 0.456, 0.406), _times_255(0.229, 0.224, 0.225)),
        "half": _HALF,
        "tf": _HALF,
        "efficientnet-lite": Normalisation(_same(127.0), _same(128.0)),
        "zero-one": Normalisation(_same(0.0), _same(255.0)),
        "caffe-bgr": Normalisation((104.0, 117.0, 123.0), _same(1.0), bgr=True),
    }
)


@dataclass(frozen=True)
class Preprocess:
    """Resize, then normalise.

    Parameters
    ----------
    size : tuple of int
        Height and width that the network reads, in pixels.
    mean, std : tuple of float
        Three numbers each, in units of 0-255, in the order of the *output* channels (blue first if `bgr`).
    bgr : bool
        Swap red and blue before normalising.

    Raises
    ------
    SpecError
        If a size is not positive, a number is not finite, or a std is not positive.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        if len(self.size) != 2 or min(self.size) < 1:
            raise SpecError(f"input size {self.size} is no image size; give height and width of at least 1 pixel")
        for label, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != 3 or not all(math.isfinite(n) for n in numbers):
                raise SpecError(f"{label}={numbers} in the normalisation; give three finite numbers in units of 0-255")
        if min(self.std) <= 0:
            raise SpecError(f"std={self.std} in the normalisation; every std must be greater than 0")

    @classmethod
    def named(cls, size: tuple[int, int], normalize: str = "imagenet") -> Self:
        """From what the user writes after ``--normalize``; see `parse_normalisation`."""
        chosen = parse_normalisation(normalize)
        return cls(size, chosen.mean, chosen.std, chosen.bgr)

    def __call__(self, images: Images | Sequence[Images | Image.Image]) -> NDArray[np.float32]:
        """Resize and normalise: float32 (N, 3, H, W), C-contiguous."""
        return self.normalise(self.resize(images))

    def resize(self, images: Images | Sequence[Images | Image.Image]) -> Images:
        """Bring images to `size` with Pillow's bilinear filter; images that have it already are not touched.

        Parameters
        ----------
        images : uint8 array (N, H, W), (N, H, W, 1) or (N, H, W, 3), or a sequence of Pillow images and uint8 arrays
            Members of a sequence are (H, W), (H, W, 1) or (H, W, 3) and may differ in size; grey becomes three channels

        Returns
        -------
        uint8 array (N, H, W, 3)

        Raises
        ------
        DataError
            If an array is not uint8 or has another shape.
        """
        if isinstance(images, np.ndarray):
            _check_batch(images)
            if images.ndim == 4 and images.shape[1:] == (*self.size, 3):
                return np.ascontiguousarray(images)
        result = np.empty((len(images), *self.size, 3), np.uint8)
        for i, image in enumerate(images):
            result[i] = self.resize_one(image)
        return result

    def resize_one(self, image: Images | Image.Image) -> Images:
        """`resize` for one image: uint8 (H, W) or (H, W, C) or Pillow in, uint8 (H, W, 3) out."""
        pixels = pixels_of(image) if isinstance(image, Image.Image) else image
        _check_dtype(pixels)
        if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))) or 0 in pixels.shape:
            raise DataError(f"an image has shape {pixels.shape}; expected (height, width) or (height, width, 1 or 3)")
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        if pixels.shape[:2] != self.size:
            height, width = self.size
            scaled = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(scaled)
        # Grey is widened after resizing: the same numbers for a third of the work.
        return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels

    def normalise(self, images: Images) -> NDArray[np.float32]:
        """uint8 (N, H, W, 3) of any size to float32 (N, 3, H, W), C-contiguous."""
        _check_batch(images)
        if images.ndim != 4 or images.shape[3] != 3:
            raise DataError(f"images have shape {images.shape}; expected (N, height, width, 3): call resize first")
        result = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
        for channel in range(3):
            source = 2 - channel if self.bgr else channel
            result[:, channel] = images[..., source]
        result -= np.array(self.mean, np.float32)[:, None, None]
        result /= np.array(self.std, np.float32)[:, None, None]
        return result

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; `from_json` reads it back to an equal value."""
        return {"size": list(self.size), "mean": list(self.mean), "std": list(self.std), "bgr": self.bgr}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises `SpecError` naming a field that is missing or of the wrong type."""
        try:
            height, width = data["size"]
            return cls(
                (height, width), tuple(data["mean"]), tuple(data["std"]), _boolean("bgr", data.get("bgr", False))
            )
        except KeyError as error:
            raise SpecError(f"preprocess lacks the field {error}; expected size, mean, std and bgr") from error
        except (TypeError, ValueError) as error:
            raise SpecError(
                f"preprocess cannot be read ({one_line(error)}); expected size [height, width], mean and std of three "
                "numbers each, and bgr true or false"
            ) from error


def parse_normalisation(text: str) -> Normalisation:
    """Read a name of `NORMALISATIONS`, or ``mean=127;std=128``, ``mean=a,b,c;std=d,e,f;bgr=true`` (units of 0-255).

    Raises
    ------
    SpecError
        If the name does not exist (with the nearest ones), or a number cannot be read.
    """
    wanted = text.strip()
    if "=" not in wanted:
        found = NORMALISATIONS.get(wanted.lower())
        if found is None:
            raise SpecError(
                f"there is no normalisation '{text}'; {did_you_mean(wanted.lower(), NORMALISATIONS)} "
                "Or write mean=127;std=128 (units of 0-255)"
            )
        return found
    fields: dict[str, str] = {}
    for part in wanted.split(";"):
        key, _, value = part.partition("=")
        if key.strip() not in ("mean", "std", "bgr") or key.strip() in fields:
            raise SpecError(
                f"cannot read '{part}' in normalisation '{text}'; write mean=127;std=128, in units of 0-255"
            )
        fields[key.strip()] = value.strip()
    if "mean" not in fields or "std" not in fields:
        raise SpecError(f"normalisation '{text}' needs both mean and std; write mean=127;std=128, in units of 0-255")
    bgr = {"true": True, "false": False}.get(fields.get("bgr", "false").lower())
    if bgr is None:
        raise SpecError(f"bgr={fields['bgr']} in normalisation '{text}'; write bgr=true or bgr=false")
    return Normalisation(_three(fields["mean"], text), _three(fields["std"], text), bgr)


def _three(numbers: str, text: str) -> Triple:
    try:
        values = [float(n) for n in numbers.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values = values * 3
    if len(values) != 3 or not all(math.isfinite(v) for v in values):
        raise SpecError(f"cannot read '{numbers}' in normalisation '{text}'; give one number, or three joined by ','")
    return values[0], values[1], values[2]


def _boolean(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{field} is {value!r}")
    return value


def read_image(path: Path) -> Images:
    """Read an image file: uint8 (H, W, 3), turned upright as its EXIF data says.

    Raises
    ------
    DataError
        Naming the file, if it cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            return pixels_of(ImageOps.exif_transpose(image))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    # Pillow's decoders raise many types for damaged files, SyntaxError and struct.error among them.
    except Exception as error:
        raise DataError(f"cannot read image {path} ({one_line(error)}); repair it or take it out") from error


def pixels_of(image: Image.Image) -> Images:
    """uint8 (H, W, 3) of a Pillow image. 16-bit grey is scaled to 8 bit (Pillow itself would clip it)."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise DataError(f"an image of mode '{image.mode}' has no fixed range of values; save it with 8 bits a channel")
    return np.asarray(image.convert("RGB"))


def _check_dtype(array: NDArray[Any]) -> None:
    if array.dtype != np.uint8:
        raise DataError(f"images are {array.dtype}, expected uint8 with values 0 to 255{_cure(array)}")


def _cure(array: NDArray[Any]) -> str:
    if array.dtype.kind == "f":
        return (
            "; images scaled to 0..1 become so with (255 * x).round().astype('uint8'); normalised ones must be undone"
        )
    return "; convert them with .astype('uint8') if their values are 0 to 255"


def _check_batch(array: NDArray[Any]) -> None:
    _check_dtype(array)
    shape = array.shape
    if 0 in shape[1:] or array.ndim not in (3, 4) or (array.ndim == 4 and shape[3] not in (1, 3)):
        channels_first = array.ndim == 4 and shape[1] in (1, 3)
        cure = "; move the channels last with x.transpose(0, 2, 3, 1)" if channels_first else ""
        raise DataError(f"images have shape {shape}; expected (N, height, width) or (N, height, width, 1 or 3){cure}")
    if array.ndim == 3 and shape[2] == 3:
        raise DataError(f"images have shape {shape}, which reads as one colour image; add the batch dimension: x[None]")
