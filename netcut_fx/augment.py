"""Small random changes to training images that keep what they show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netcut_fx.preprocess import Images


@dataclass(frozen=True)
class Augmentation:
    """How much a training image may change; nothing by default.

    Parameters
    ----------
    shift_fraction : float
        Largest shift in each direction, as a fraction of height and width.
    turn_degrees : float
        Largest turn about the middle, either way.
    zoom_fraction : float
        Largest change of size, either way: 0.1 is from 0.9 to 1.1.
    contrast_fraction : float
        Largest change of contrast about mid-grey and of brightness (as a fraction of the range), either way.
    flip : bool
        Mirror each image left to right with probability one half.
    """

    shift_fraction: float = 0.0
    turn_degrees: float = 0.0
    zoom_fraction: float = 0.0
    contrast_fraction: float = 0.0
    flip: bool = False

    @property
    def bends(self) -> bool:
        """Whether pixels move by other than whole rows and columns."""
        return self.turn_degrees > 0 or self.zoom_fraction > 0


def augmented(images: Images, options: Augmentation, generator: np.random.Generator) -> Images:
    """Change each image at random: moved, mirrored, turned, resized, its border repeated; lighter or darker.

    Parameters
    ----------
    images : uint8 array (N, H, W, 3)
        Left as it is.
    options : Augmentation
        What may change.
    generator : numpy.random.Generator
        Where the randomness comes from. It is asked the same questions whatever the options are.

    Returns
    -------
    uint8 array (N, H, W, 3)
        A copy. Turned and resized images take the nearest pixel.
    """
    count, height, width = images.shape[:3]
    reach = (round(options.shift_fraction * height), round(options.shift_fraction * width))
    down = generator.integers(-reach[0], reach[0] + 1, count)
    right = generator.integers(-reach[1], reach[1] + 1, count)
    mirrored = (generator.random(count) < 0.5) & options.flip
    turn, zoom, contrast, brightness = generator.uniform(-1, 1, (4, count))
    if options.bends:
        rows, columns = _bent(height, width, np.deg2rad(options.turn_degrees * turn), 1 + options.zoom_fraction * zoom)
        rows = np.clip(np.rint(rows - down[:, None, None]).astype(np.int64), 0, height - 1)
        columns = np.clip(np.rint(columns - right[:, None, None]).astype(np.int64), 0, width - 1)
    else:
        rows = np.clip(np.arange(height) - down[:, None], 0, height - 1)[:, :, None]
        columns = np.clip(np.arange(width) - right[:, None], 0, width - 1)[:, None, :]
    columns[mirrored] = width - 1 - columns[mirrored]
    moved = images[np.arange(count)[:, None, None], rows, columns]
    if options.contrast_fraction == 0:
        return moved
    return _relit(moved, 1 + options.contrast_fraction * contrast, 255 * options.contrast_fraction * brightness)


def _bent(
    height: int, width: int, angle: NDArray[np.float64], zoom: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each pixel of each image comes from: row and column, (N, H, W) each."""
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    row = np.arange(height)[None, :, None] - middle_row
    column = np.arange(width)[None, None, :] - middle_column
    cosine, sine = (np.cos(angle) / zoom)[:, None, None], (np.sin(angle) / zoom)[:, None, None]
    return middle_row + cosine * row - sine * column, middle_column + sine * row + cosine * column


def _relit(images: Images, contrast: NDArray[np.float64], brightness: NDArray[np.float64]) -> Images:
    """Each image through a table of its own from old to new values."""
    value = np.arange(256)[None, :]
    tables = np.clip(np.rint((value - 127.5) * contrast[:, None] + 127.5 + brightness[:, None]), 0, 255)
    return tables.astype(np.uint8)[np.arange(len(images))[:, None, None, None], images]
