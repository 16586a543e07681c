"""Quick heads: what each frontier's frozen features alone can tell, to rank the cuts before any is retrained."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcut_fx.errors import NetcutError
from netcut_fx.evaluate import Accuracy

#: Inverse strength of the L2 penalty in ``C * sum(loss) + |w|^2 / 2`` on standardised features. Fixed, so that
#: validation images choose nothing here: among 0.001, 0.01, 0.1 and 1 on 18 frontiers of EfficientNet-Lite0, 0.1 was
#: the best or within two points of it at every cut that reached 90 %, on digits and on photographs of hand signs.
INVERSE_STRENGTH = 0.1

#: A ranking needs no more training images than this; the time grows with their number.
MOST_TRAINING_IMAGES = 4000

_ITERATIONS = 200
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class QuickResult:
    """A linear classifier on the frozen features of one frontier.

    Parameters
    ----------
    accuracy : Accuracy
        On validation.
    width : int
        Number of pooled features.
    training_images : int
        How many it was fitted to.
    seconds : float
        What fitting took.
    """

    accuracy: Accuracy
    width: int
    training_images: int
    seconds: float


def quick_heads(
    features: Mapping[str, NDArray[np.float32]],
    labels: NDArray[np.int64],
    splits: Mapping[str, NDArray[np.int64]],
    *,
    seed: int = 0,
) -> dict[str, QuickResult]:
    """Fit multinomial logistic regression on the standardised features of each frontier.

    Parameters
    ----------
    features : mapping
        Frontier name to float32 (N, C), as `netcut_fx.features.pooled_features` gives them.
    labels : int64 array (N,)
        Class of each image.
    splits : mapping
        Indices of ``"train"`` and ``"validation"``; ``"test"`` is not touched.
    seed : int
        Which images are taken where there are more than `MOST_TRAINING_IMAGES`.

    Returns
    -------
    dict
        Frontier name to `QuickResult`, in the order of `features`.

    Raises
    ------
    NetcutError
        If features are not finite or do not fit the labels, or training images have one class only.
    """
    train, validation = splits["train"], splits["validation"]
    if len(train) > MOST_TRAINING_IMAGES:
        train = np.sort(np.random.default_rng(seed).choice(train, MOST_TRAINING_IMAGES, replace=False))
    if len(np.unique(labels[train])) < 2:
        raise NetcutError("quick heads need training images of at least two classes; give data with more classes")
    return {name: _quick_head(name, table, labels, train, validation) for name, table in features.items()}


def check_features(name: str, table: NDArray[np.float32], count: int) -> None:
    """Refuse features that cannot be learnt from.

    Raises
    ------
    NetcutError
        If `table` has not `count` rows, or holds NaN or infinity.
    """
    if table.ndim != 2 or len(table) != count:
        raise NetcutError(
            f"features of frontier {name} have shape {table.shape} but there are {count} images; "
            "compute them from the same data"
        )
    wrong = int(np.count_nonzero(~np.isfinite(table).all(axis=1)))
    if wrong:
        raise NetcutError(
            f"features of frontier {name} are not finite for {wrong} of {count} images; "
            "check the network's weights for NaN and the normalisation of its inputs"
        )


def _quick_head(
    name: str,
    table: NDArray[np.float32],
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
) -> QuickResult:
    from sklearn.linear_model import LogisticRegression  # pyright: ignore[reportMissingTypeStubs]

    start = time.perf_counter()
    check_features(name, table, len(labels))
    mean, scale = standardisation(table[train])
    classifier: Any = LogisticRegression(C=INVERSE_STRENGTH, max_iter=_ITERATIONS, tol=_TOLERANCE)
    with warnings.catch_warnings():
        # Where the last iterations change nothing in the ranking they are not worth waiting for.
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        classifier.fit((table[train] - mean) * scale, labels[train])
    predicted: NDArray[np.int64] = classifier.predict((table[validation] - mean) * scale)
    return QuickResult(
        Accuracy.from_predictions(predicted, labels[validation]),
        table.shape[1],
        len(train),
        time.perf_counter() - start,
    )


def standardisation(table: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and inverse standard deviation of each column, float32 (C,); a constant column gets scale 1.

    Columns that hardly vary beside the others are not blown up: what is below 1e-4 of the median deviation counts
    as constant.
    """
    mean = table.mean(axis=0, dtype=np.float64)
    deviation = table.std(axis=0, dtype=np.float64)
    floor = max(1e-4 * float(np.median(deviation)), float(np.finfo(np.float32).tiny))
    varying = deviation > np.maximum(floor, 1e-6 * np.abs(mean))
    scale = np.where(varying, 1.0 / np.where(varying, deviation, 1.0), 1.0)
    return mean.astype(np.float32), scale.astype(np.float32)
