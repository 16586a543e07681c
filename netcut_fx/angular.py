"""Angular similarity: how near an answer lies to the distribution that was asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def angular_similarity(answers: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    """Mean over images of ``1 - 2 angle / pi`` between answer and target, 0 to 1.

    Parameters
    ----------
    answers : float array (N, classes)
        Probabilities.
    targets : float array (N, classes)
        Probabilities, or 1 at the label and 0 elsewhere.

    References
    ----------
    M. Zandigohar, D. Erdogmus, G. Schirner, "NetCut: Real-Time DNN Inference Using Layer Removal", DATE 2021,
    DOI 10.23919/DATE51398.2021.9474052: accuracy of grasps whose labels are distributions.
    """
    first, second = answers.astype(np.float64), targets.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosine = np.clip((first * second).sum(axis=1) / lengths, 0.0, 1.0)
    return float(np.mean(1 - 2 * np.arccos(cosine) / np.pi))
