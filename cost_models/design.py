"""Which kernels to measure next: those least like any that was measured, most of all where the fit is worst."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cost_models.features import KernelFacts, log_features
from cost_models.kernel import Kernel
from cost_models.machine import Machine
from cost_models.modelled import FAMILIES, held_out_errors
from cost_models.sample import VIEW_MS, KernelSample

#: From this distance (in factors of two, over all features) on, a kernel is new altogether.
_FAR = 4.0
#: With fewer kernels than this there is nothing to learn errors from.
_ENOUGH = 20


def novelty(kernels: Sequence[Kernel], samples: Sequence[KernelSample], errors: Mapping[str, float]) -> float:
    """How much measuring `kernels` would teach.

    Parameters
    ----------
    kernels : sequence of Kernel
        Of one probe.
    samples : sequence of KernelSample
        What was measured already.
    errors : mapping of str to float
        Mean error of each kind so far, see `errors_by_kind`; kinds that are missing count as the worst.

    Returns
    -------
    float
        Sum over distinct workloads of the distance to the nearest measured one of its kind, at most 1, weighted by the
        error of the kind.
    """
    worst = max(errors.values(), default=1.0)
    new = {k.key: KernelFacts.of(k) for k in kernels if k.modelled}
    total = 0.0
    for kind in {facts.kind for facts in new.values()}:
        asked = log_features([f for f in new.values() if f.kind == kind])
        known = [KernelFacts.of(s.kernel) for s in samples if s.kind == kind]
        near = np.full(len(asked), _FAR)
        if known:
            rows = log_features(known)
            near = np.sqrt(((asked[:, None] - rows[None]) ** 2).mean(axis=2)).min(axis=1)
        total += float(np.minimum(near / _FAR, 1.0).sum()) * errors.get(kind, worst)
    return total


def errors_by_kind(samples: Sequence[KernelSample], machine: Machine) -> dict[str, float]:
    """Mean absolute logarithm of measured over predicted, by kind, on kernels the analytical model did not see."""
    known = [s for s in samples if s.kernel.modelled and s.ms > VIEW_MS]
    if len(known) < _ENOUGH:
        return {}
    facts, ms = [KernelFacts.of(s.kernel) for s in known], np.asarray([s.ms for s in known])
    errors = held_out_errors(FAMILIES["analytical"].fit, facts, ms, [s.group for s in known], machine)
    found: dict[str, list[float]] = {}
    for sample, error in zip(known, errors.tolist(), strict=True):
        if math.isfinite(error):
            found.setdefault(sample.kind, []).append(abs(error))
    return {kind: float(np.mean(values)) for kind, values in found.items()}
