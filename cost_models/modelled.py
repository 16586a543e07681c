"""Kernels that were not measured: a fitted model, how far it is usually off, and where it stops to know anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from cost_models.analytical import fit_analytical
from cost_models.estimate import LatencyEstimate
from cost_models.features import Array, KernelFacts, model_kind
from cost_models.hull import Hull
from cost_models.kernel import Kernel
from cost_models.learned import fit_flops, fit_gbdt, fit_linear, fit_svr
from cost_models.machine import Machine
from cost_models.sample import VIEW_MS, KernelSample

#: With fewer held-out kernels of a kind than this, its spread is taken from all kinds together.
_ENOUGH = 10
_FOLDS = 4
#: Spread where too little was held out to know: a factor of two.
_UNKNOWN_SPREAD = math.log(2)


class PointModel(Protocol):
    """Gives one number for each kernel."""

    def times_ms(self, facts: Sequence[KernelFacts]) -> Array:
        """Milliseconds of each kernel; NaN where it knows nothing."""
        ...

    def labels(self, facts: Sequence[KernelFacts]) -> list[str]:
        """What the estimate rests on, for each kernel."""
        ...


Fit = Callable[[Sequence[KernelFacts], Array, Machine], PointModel]


@dataclass(frozen=True)
class Family:
    """How a model is fitted, and how far (in factors of two) outside the measured shapes it still answers."""

    fit: Fit
    reach: float
    needs_kind: bool = True


#: Models of single kernels. What is not a law of physics refuses beyond a factor of four.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "analytical": Family(fit_analytical, math.inf, needs_kind=False),
        "svr": Family(fit_svr, 2.0),
        "gbdt": Family(fit_gbdt, 2.0),
        "linear": Family(fit_linear, math.inf),
        "flops": Family(fit_flops, math.inf),
    }
)


@dataclass(frozen=True)
class ModelledKernels:
    """A model of single kernels with an interval for each.

    Parameters
    ----------
    family : Family
    point : PointModel
    hull : Hull
        Of the measured kernels; outside, intervals widen by a further spread with each factor of two.
    spread : mapping of str to float
        90 % quantile of the absolute logarithm of measured over predicted, for each kind, on kernels left out.
    pooled : float
        The same over all kinds.
    """

    family: Family
    point: PointModel
    hull: Hull
    spread: Mapping[str, float]
    pooled: float

    @classmethod
    def fit(
        cls,
        name: str,
        samples: Sequence[KernelSample],
        machine: Machine,
        *,
        like: ModelledKernels | None = None,
        rough: bool = False,
    ) -> ModelledKernels | None:
        """Fit the family `name` to `samples` of modelled kinds; None without any.

        `like` lends its spreads, which take several fits to find; a `rough` model has none of its own.
        """
        family = FAMILIES[name]
        known = [s for s in samples if s.kernel.modelled and s.ms > VIEW_MS]
        if not known:
            return None
        facts, ms = [KernelFacts.of(s.kernel) for s in known], np.asarray([s.ms for s in known])
        if like is not None:
            return cls(family, family.fit(facts, ms, machine), Hull.of(facts), like.spread, like.pooled)
        if rough:
            return cls(family, family.fit(facts, ms, machine), Hull.of(facts), {}, _UNKNOWN_SPREAD)
        errors = held_out_errors(family.fit, facts, ms, [s.group for s in known], machine)
        spread, pooled = _spreads([f.kind for f in facts], errors)
        return cls(family, family.fit(facts, ms, machine), Hull.of(facts), spread, pooled)

    def predict(self, kernel: Kernel) -> LatencyEstimate:
        """Estimate of one kernel."""
        return self.predict_all([kernel])[0]

    def predict_all(self, kernels: Sequence[Kernel]) -> list[LatencyEstimate]:
        """Estimates of many kernels, which is much faster than one after the other."""
        modelled = [k for k in kernels if k.modelled]
        if not modelled:
            return [LatencyEstimate.unknown(k.key) for k in kernels]
        facts = [KernelFacts.of(k) for k in modelled]
        rows = zip(
            modelled, self.point.times_ms(facts), self.hull.distances(facts), self.point.labels(facts), strict=True
        )
        found = {kernel.key: self._estimate(kernel, float(ms), float(far), label) for kernel, ms, far, label in rows}
        return [found.get(k.key) or LatencyEstimate.unknown(k.key) for k in kernels]

    def _estimate(self, kernel: Kernel, ms: float, far: float, label: str) -> LatencyEstimate:
        unseen = math.isinf(far)
        if not math.isfinite(ms) or (unseen and self.family.needs_kind) or (not unseen and far > self.family.reach):
            return LatencyEstimate.unknown(kernel.key)
        kind = model_kind(kernel)
        spread, notes = self.spread.get(kind, self.pooled), ()
        if unseen:
            spread, notes = 2 * max(self.pooled, _UNKNOWN_SPREAD), (f"no {kind} was measured",)
        elif far > 0:
            spread, notes = spread * (1 + far), (f"{kind} beyond what was measured by a factor of {2**far:.2g}",)
        wide = math.exp(min(spread, 5.0))
        return LatencyEstimate(ms, ms / wide, ms * wide, ((label, ms),), notes=notes)


def held_out_errors(
    fit: Fit, facts: Sequence[KernelFacts], ms: Array, groups: Sequence[str], machine: Machine
) -> Array:
    """Logarithms of measured over predicted, each kernel predicted by a model that saw nothing of its group.

    With fewer groups than folds, kernels are left out one by one in turn instead. NaN where too few are left to fit.
    """
    names = sorted(set(groups))
    by_group = len(names) >= _FOLDS
    fold = np.asarray([names.index(g) if by_group else i for i, g in enumerate(groups)]) % _FOLDS
    errors = np.full(len(facts), np.nan)
    for i in range(_FOLDS):
        held = [j for j in range(len(facts)) if fold[j] == i]
        rest = [j for j in range(len(facts)) if fold[j] != i]
        if held and rest:
            model = fit([facts[j] for j in rest], ms[rest], machine)
            errors[held] = np.log(ms[held] / model.times_ms([facts[j] for j in held]))
    return errors


def _spreads(kinds: Sequence[str], errors: Array) -> tuple[dict[str, float], float]:
    known = np.abs(errors[np.isfinite(errors)])
    pooled = float(np.quantile(known, 0.9)) if len(known) >= _ENOUGH else _UNKNOWN_SPREAD
    found: dict[str, float] = {}
    for kind in set(kinds):
        own = np.abs([e for k, e in zip(kinds, errors, strict=True) if k == kind and math.isfinite(e)])
        found[kind] = float(np.quantile(own, 0.9)) if len(own) >= _ENOUGH else pooled
    return found, pooled
