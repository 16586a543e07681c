"""Accuracy with its interval."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from netcut_fx.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netcut_fx.data import Dataset

#: 97.5 % quantile of the normal distribution.
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy on a sample, with the 95 % interval of Wilson's score.

    Parameters
    ----------
    correct, total : int
        ``0 <= correct <= total``, ``total >= 1``.

    Raises
    ------
    DataError
        If the counts are impossible, or there is nothing to count.

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927) 209-212, DOI 10.1080/01621459.1927.10502953.
    """

    correct: int
    total: int

    def __post_init__(self) -> None:
        if self.total < 1 or not 0 <= self.correct <= self.total:
            raise DataError(f"accuracy of {self.correct} correct among {self.total} images is undefined; give images")

    @classmethod
    def from_predictions(cls, predictions: NDArray[Any], labels: NDArray[Any]) -> Self:
        """From predicted classes (n,), or logits (n, classes), and true labels (n,).

        A row of logits with NaN is counted as wrong.
        """
        classes = top1(predictions) if predictions.ndim == 2 else predictions
        if classes.shape != labels.shape:
            raise DataError(f"{len(classes)} predictions but {len(labels)} labels; give one label per prediction")
        return cls(int((classes == labels).sum()), len(labels))

    @property
    def value(self) -> float:
        """Share of correct answers, 0 to 1."""
        return self.correct / self.total

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return max(0.0, self._centre - self._half_width) if self.correct else 0.0

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return min(1.0, self._centre + self._half_width) if self.correct < self.total else 1.0

    @property
    def _centre(self) -> float:
        return (self.correct + _Z95**2 / 2) / (self.total + _Z95**2)

    @property
    def _half_width(self) -> float:
        spread = self.correct * (self.total - self.correct) / self.total + _Z95**2 / 4
        return _Z95 * math.sqrt(spread) / (self.total + _Z95**2)

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"

    def to_json(self) -> dict[str, int]:
        """Return a JSON object; `from_json` reads it back."""
        return {"correct": self.correct, "total": self.total}

    @classmethod
    def from_json(cls, data: Mapping[str, int]) -> Self:
        """Read what `to_json` wrote."""
        return cls(data["correct"], data["total"])


def top1(logits: NDArray[Any]) -> NDArray[np.int64]:
    """Class with the largest logit of each row (n, classes); -1 where a row holds NaN, which equals no label."""
    return np.where(np.isnan(logits).any(axis=1), -1, logits.argmax(axis=1)).astype(np.int64)


def accuracy(module: nn.Module, dataset: Dataset, split: str, batch: int = 64) -> Accuracy:
    """Top-1 accuracy of `module` on one split, `batch` images at a time.

    Raises
    ------
    DataError
        If the network answers another number of classes than the data has.
    """
    correct = total = 0
    for inputs, labels in dataset.batches(split, batch):
        logits = predict_logits(module, inputs, batch)
        if logits.shape[1] != dataset.class_count:
            raise DataError(
                f"the network answers {logits.shape[1]} classes but {dataset.name} has {dataset.class_count}; "
                "put a head for this data on it first"
            )
        correct += int((top1(logits) == labels).sum())
        total += len(labels)
    return Accuracy(correct, total)


def predict_logits(module: nn.Module, inputs: NDArray[np.float32] | Tensor, batch: int = 64) -> NDArray[np.float32]:
    """Logits of `module` in eval mode; afterwards each submodule is in the mode it was in.

    Parameters
    ----------
    module : torch.nn.Module
        From (n, C, H, W) to (n, classes), or to a tuple with that as its only member.
    inputs : float32 array or tensor (N, C, H, W)
        Moved to the module's device a batch at a time.
    batch : int
        Images at a time.

    Returns
    -------
    float32 array (N, classes)

    Raises
    ------
    DataError
        If there are no inputs, or the module answers something else.
    """
    import torch

    if len(inputs) == 0:
        raise DataError("no images to predict; give at least one")
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    rows: list[NDArray[np.float32]] = []
    with evaluation_mode(module), torch.no_grad():
        for start in range(0, len(inputs), batch):
            # torch.tensor copies: slices of read-only arrays would make torch warn.
            part = inputs[start : start + batch]
            part = (part if isinstance(part, torch.Tensor) else torch.tensor(part)).to(device)
            answer: Any = module(part)
            if isinstance(answer, (tuple, list)) and len(answer) == 1:  # pyright: ignore[reportUnknownArgumentType]
                answer = answer[0]  # pyright: ignore[reportUnknownVariableType]
            if not isinstance(answer, torch.Tensor) or answer.ndim != 2 or len(answer) != len(part):
                shape = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__  # pyright: ignore[reportUnknownArgumentType]
                raise DataError(f"the network answers {shape} for {len(part)} images; expected ({len(part)}, classes)")
            rows.append(answer.float().cpu().numpy())
    return np.concatenate(rows)


@contextmanager
def evaluation_mode(module: nn.Module) -> Generator[None]:
    """Eval mode inside; afterwards every submodule has its own mode again, frozen batch-norms included."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training
