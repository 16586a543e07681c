"""Models that learn from measured kernels without knowing what a processor is: baselines, and one correction.

* `fit_flops`: time grows with the operations.
* `fit_linear`: non-negative rates for operations of each kind and for bytes, and a cost of each call.
* `fit_svr`: epsilon-SVR with a Gaussian kernel, NetCut's "analytical estimator" (DOI
  10.23919/DATE51398.2021.9474052), here on kernels instead of whole networks.
* `fit_gbdt`: boosted trees on what the analytical model gets wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cost_models.analytical import fit_analytical
from cost_models.features import Array, KernelFacts, kind_columns, log_features, remainder_columns
from cost_models.machine import Machine


@dataclass(frozen=True)
class Learned:
    """A fitted function from kernels to milliseconds."""

    name: str
    function: Callable[[Sequence[KernelFacts]], Array]

    def times_ms(self, facts: Sequence[KernelFacts]) -> Array:
        """Milliseconds of each kernel."""
        return self.function(facts)

    def labels(self, facts: Sequence[KernelFacts]) -> list[str]:
        """What the estimate rests on, for each kernel."""
        return [self.name] * len(facts)


def fit_flops(facts: Sequence[KernelFacts], ms: Array, machine: Machine) -> Learned:
    """One rate for everything: the median of all."""
    per_flop = float(np.median(ms / np.asarray([f.flops for f in facts])))
    return Learned("flops", lambda given: per_flop * np.asarray([f.flops for f in given], dtype=np.float64))


def fit_linear(facts: Sequence[KernelFacts], ms: Array, machine: Machine) -> Learned:
    """Least squares on relative errors, no coefficient below zero."""
    from scipy.optimize import nnls

    def columns(given: Sequence[KernelFacts]) -> Array:
        flops = np.asarray([[f.flops] for f in given], dtype=np.float64)
        moved = np.asarray([[f.activation_bytes, f.weight_bytes] for f in given], dtype=np.float64)
        return np.concatenate([flops * kind_columns(given), moved, np.ones((len(given), 1))], axis=1)

    table = columns(facts)
    scale = np.maximum(table.max(axis=0), 1e-30)
    weights, _ = nnls(table / scale / ms[:, None], np.ones(len(facts)))
    coefficients = np.asarray(weights, dtype=np.float64) / scale
    smallest = float(ms.min()) / 10
    return Learned("linear", lambda given: np.maximum(columns(given) @ coefficients, smallest))


def fit_svr(facts: Sequence[KernelFacts], ms: Array, machine: Machine) -> Learned:
    """Regression of the logarithm of the time."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    model = make_pipeline(StandardScaler(), SVR(kernel="rbf", C=10.0, epsilon=0.02))
    model.fit(_columns(facts, machine), np.log(ms))
    return Learned("svr", lambda given: np.exp(np.asarray(model.predict(_columns(given, machine)))))


def fit_gbdt(facts: Sequence[KernelFacts], ms: Array, machine: Machine) -> Learned:
    """Shallow trees, boosted, on the analytical model's relative error."""
    from sklearn.ensemble import GradientBoostingRegressor

    base = fit_analytical(facts, ms, machine)
    trees = GradientBoostingRegressor(
        n_estimators=150, max_depth=3, learning_rate=0.05, subsample=0.8, min_samples_leaf=3, random_state=0
    )
    trees.fit(_columns(facts, machine), np.log(ms / base.times_ms(facts)))

    def predict(given: Sequence[KernelFacts]) -> Array:
        return base.times_ms(given) * np.exp(np.asarray(trees.predict(_columns(given, machine))))

    return Learned("gbdt", predict)


def _columns(facts: Sequence[KernelFacts], machine: Machine) -> Array:
    return np.concatenate([log_features(facts), kind_columns(facts), remainder_columns(facts, machine.lanes)], axis=1)
