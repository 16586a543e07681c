"""What a model leaves over, carried from measured kernels to others like them.

A roofline has a rate for each kind of kernel; schedules suit some shapes better than others. So the logarithm of
measured over modelled is itself predicted, as the mean of a Gaussian process over the logarithms of the shapes
(Rasmussen and Williams 2006, chapter 2, ISBN 0-262-18253-X). Far from everything measured it is zero, and the model is
left as it is. The three numbers below are about the likeliest (ibid., section 5.4) for the kernels of a calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cost_models.features import LOG_FEATURES, Array, KernelFacts, log_features, remainder_columns

#: Factors of two in a shape over which kernels cease to be alike.
_LENGTH = 3.0
#: How far times are off the model, and how far they are off their neighbours', as logarithms.
_AMPLITUDE, _NOISE = 0.3, 0.3
#: Kernels further off than this say that something went wrong with them rather than what is usual.
_FARTHEST = 1.0
#: A vector half empty counts as much as so many factors of two in a shape.
_EMPTY_LANES = 4.0
#: The shape says how many operations there are.
_COLUMNS = [i for i, name in enumerate(LOG_FEATURES) if name != "flops"]


@dataclass(frozen=True)
class Residual:
    """Factors by which kernels of some kinds and shapes take longer than modelled.

    Parameters
    ----------
    kinds : sequence of str, of length n
        Of the measured kernels.
    places : array, shape (n, features)
        Their shapes.
    weights : array, shape (n,)
        What each of them has to say.
    lanes : int
        float32 numbers in a vector register.
    """

    kinds: Sequence[str]
    places: Array
    weights: Array
    lanes: int

    def factors(self, facts: Sequence[KernelFacts]) -> Array:
        """Times over modelled times."""
        if not facts:
            return np.ones(len(facts))
        alike = _likeness([f.kind for f in facts], _places(facts, self.lanes), self.kinds, self.places)
        return np.exp(alike @ self.weights)


def fit_residual(facts: Sequence[KernelFacts], factors: Array, lanes: int) -> Residual:
    """Learn from kernels that take `factors` times what is modelled."""
    kinds, places = [f.kind for f in facts], _places(facts, lanes)
    left = np.clip(np.log(factors), -_FARTHEST, _FARTHEST)
    noisy = _likeness(kinds, places, kinds, places) + _NOISE**2 * np.eye(len(kinds))
    weights = np.asarray(np.linalg.solve(noisy, left), dtype=np.float64)
    return Residual(kinds, places, weights, lanes)


def _places(facts: Sequence[KernelFacts], lanes: int) -> Array:
    filled = _EMPTY_LANES * np.log2(remainder_columns(facts, lanes))
    return np.concatenate([log_features(facts)[:, _COLUMNS], filled], axis=1) / _LENGTH


def _likeness(kinds: Sequence[str], places: Array, other_kinds: Sequence[str], others: Array) -> Array:
    """Covariance of every kernel with every other; none between kinds."""
    squares = (places**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * places @ others.T
    same = np.asarray(kinds)[:, None] == np.asarray(other_kinds)[None]
    return _AMPLITUDE**2 * np.exp(-0.5 * np.maximum(squares, 0.0)) * same
