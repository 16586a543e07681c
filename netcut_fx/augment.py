"""Small random changes to training images that keep what they show."""

from __future__ import annotations

import numpy as np

from netcut_fx.preprocess import Images


def augmented(images: Images, shift_fraction: float, flip: bool, generator: np.random.Generator) -> Images:
    """Shift each image by up to a fraction of its side, repeating its border; optionally mirror half of them.

    Parameters
    ----------
    images : uint8 array (N, H, W, 3)
        Left as it is.
    shift_fraction : float
        Largest shift in each direction, as a fraction of height and width; 0 for none.
    flip : bool
        Mirror each image left to right with probability one half.
    generator : numpy.random.Generator
        Where the randomness comes from. It is asked the same questions whatever the options are.

    Returns
    -------
    uint8 array (N, H, W, 3)
        A copy.
    """
    count, height, width = images.shape[:3]
    reach = (round(shift_fraction * height), round(shift_fraction * width))
    down = generator.integers(-reach[0], reach[0] + 1, count)
    right = generator.integers(-reach[1], reach[1] + 1, count)
    mirrored = generator.random(count) < 0.5
    rows = np.clip(np.arange(height) - down[:, None], 0, height - 1)
    columns = np.clip(np.arange(width) - right[:, None], 0, width - 1)
    if flip:
        columns[mirrored] = width - 1 - columns[mirrored]
    return images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
