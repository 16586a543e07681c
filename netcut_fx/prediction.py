"""What a runtime answers to images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Prediction:
    """Answers for N images.

    Parameters
    ----------
    labels : tuple of str
        Name of the most probable class, one per image.
    indices : int64 array (N,)
        Its index.
    probabilities : float32 array (N, classes)
        Softmax of `logits`; each row sums to 1.
    logits : float32 array (N, classes)
        What the network answered.
    """

    labels: tuple[str, ...]
    indices: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits (N, classes), each row summing to 1."""
    wide = logits.astype(np.float64)  # the difference of two float32 may overflow in float32
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
