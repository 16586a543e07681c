"""The analytical model: a roofline whose rates are fitted, with caches, vector tails, ramps and overhead.

A kernel takes ``overhead + (compute^4 + memory^4)^(1/4)``: the longer of two times, with a soft corner (the roofline of
Williams, Waterman, Patterson 2009, DOI 10.1145/1498765.1498785, has a sharp one).

* *compute* is the operations over the rate of its kind. Channels that do not fill whole vectors cost as much as if
  they did, up to a fitted exponent; short reductions and few pixels pay for starting up.
* *memory* is the bytes over the bandwidth of the cache level that the activations fit into, blended where they hardly
  fit; weights have a bandwidth of their own, since a network reads each of them once.

Every number is fitted to measured kernels by robust least squares on logarithms. Kinds differ from the common rate as
far as the evidence asks for and no further: a ridge pulls them back, so a dozen kernels are enough to start with. What
the roofline leaves over is carried from measured kernels to others like them (`cost_models.residual`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cost_models.features import REORDERED, WINOGRAD, Array, KernelFacts, remainder_columns
from cost_models.machine import Machine
from cost_models.residual import Residual, fit_residual

_CORNER = 4.0
#: Relative error of a kernel that counts as one standard deviation in the fit.
_NOISE = 0.15
#: Kinds that compute and kinds that mostly move; one never measured borrows from its own family only.
_FAMILIES = (
    frozenset({"conv2d", WINOGRAD, "pointwise_conv2d", "depthwise_conv2d", "grouped_conv2d", "matmul"}),
    frozenset({"pool", "reduce", "elementwise", REORDERED, "data_movement"}),
)
# Common parameters, then a bandwidth for each level, then three deviations for each kind.
_PEAK, _REDUCTION, _PIXELS, _TAIL, _OVERHEAD, _WEIGHTS, _LEVELS = range(7)


@dataclass(frozen=True)
class Analytical:
    """A fitted roofline.

    Parameters
    ----------
    machine : Machine
    kinds : tuple of str
        Those that were measured.
    parameters : array
        Logarithms of the fitted numbers.
    residual : Residual
        What measured kernels of like shapes took beside that.
    """

    machine: Machine
    kinds: tuple[str, ...]
    parameters: Array
    residual: Residual

    def times_ms(self, facts: Sequence[KernelFacts]) -> Array:
        """Milliseconds of each kernel; NaN where nothing of its family was measured."""
        table = _Table.of(facts, self.machine, self.kinds)
        ms, _ = _parts(self.parameters, table)
        known = [any(f.kind in family and family & set(self.kinds) for family in _FAMILIES) for f in facts]
        return np.where(known, ms * self.residual.factors(facts), np.nan)

    def labels(self, facts: Sequence[KernelFacts]) -> list[str]:
        """Which term binds: ``analytical: compute``, ``analytical: L2``, ``analytical: overhead``, ..."""
        table = _Table.of(facts, self.machine, self.kinds)
        _, terms = _parts(self.parameters, table)
        names = self.machine.level_names
        found: list[str] = []
        for overhead, compute, memory, level in zip(*terms, table.level, strict=True):
            longest = max(overhead, compute, memory)
            term = "overhead" if longest == overhead else "compute" if longest == compute else names[level]
            found.append(f"analytical: {term}")
        return found


def fit_analytical(facts: Sequence[KernelFacts], ms: Array, machine: Machine) -> Analytical:
    """Fit to kernels that took `ms`; at least one."""
    from scipy.optimize import least_squares

    kinds = tuple(sorted({f.kind for f in facts}))
    table = _Table.of(facts, machine, kinds)
    start, spread = _prior(table, ms, machine)
    logs = np.log(ms)

    def residuals(parameters: Array) -> Array:
        predicted, _ = _parts(parameters, table)
        return np.concatenate([(np.log(predicted) - logs) / _NOISE, (parameters - start) / spread])

    found = least_squares(residuals, start, loss="soft_l1", f_scale=1.5, ftol=1e-4, xtol=1e-4, max_nfev=40)
    parameters = np.asarray(found.x, dtype=np.float64)
    predicted, _ = _parts(parameters, table)
    return Analytical(machine, kinds, parameters, fit_residual(facts, ms / predicted, machine.lanes))


@dataclass(frozen=True)
class _Table:
    """Kernels as columns."""

    work: Array
    tail: Array
    pixels: Array
    reduction: Array
    activation_bytes: Array
    weight_bytes: Array
    shares: Array
    level: NDArray[np.intp]
    kind: NDArray[np.intp]
    kinds: int

    @classmethod
    def of(cls, facts: Sequence[KernelFacts], machine: Machine, kinds: tuple[str, ...]) -> _Table:
        columns = np.asarray(
            [(f.work, f.pixels, f.reduction, f.activation_bytes, f.weight_bytes) for f in facts],
            dtype=np.float64,
        ).reshape(len(facts), 5)
        work, pixels, reduction, activations, weights = columns.T
        # An unseen kind has the common rate: the last of the deviations, which is always zero.
        kind = np.asarray([kinds.index(f.kind) if f.kind in kinds else len(kinds) for f in facts], dtype=np.intp)
        shares = _level_shares(activations + weights, machine)
        return cls(
            work,
            remainder_columns(facts, machine.lanes)[:, 0],
            pixels,
            reduction,
            activations,
            weights,
            shares,
            np.argmax(shares, axis=1) if len(facts) else np.zeros(0, np.intp),
            kind,
            len(kinds),
        )


def _level_shares(working_set: Array, machine: Machine) -> Array:
    """Share of the bytes that each level serves: the first that holds the working set, blended over a factor of two."""
    misses = np.stack([1 / (1 + (size / working_set) ** 3) for size in machine.cache_bytes], axis=1)
    reach = np.concatenate([np.ones((len(working_set), 1)), np.cumprod(misses, axis=1)], axis=1)
    hits = np.concatenate([1 - misses, np.ones((len(working_set), 1))], axis=1)
    return reach * hits


def _parts(parameters: Array, table: _Table) -> tuple[Array, tuple[Array, Array, Array]]:
    """Time of each kernel, and its three terms."""
    levels = table.shares.shape[1]
    bandwidth = parameters[_LEVELS : _LEVELS + levels]
    deviations = parameters[_LEVELS + levels :].reshape(3, table.kinds)
    rate, ramp, traffic = np.concatenate([deviations, np.zeros((3, 1))], axis=1)[:, table.kind]
    compute = (
        table.work
        / np.exp(parameters[_PEAK] + rate)
        * (1 + np.exp(parameters[_REDUCTION] + ramp) / table.reduction)
        * (1 + np.exp(parameters[_PIXELS]) / table.pixels)
        * table.tail ** -np.clip(parameters[_TAIL], 0.0, 1.0)
    )
    per_byte = table.shares @ np.exp(-bandwidth)
    memory = table.activation_bytes * per_byte * np.exp(-traffic)
    memory = memory + table.weight_bytes * np.exp(-parameters[_WEIGHTS])
    overhead = np.full(len(table.work), np.exp(parameters[_OVERHEAD]))
    return overhead + (compute**_CORNER + memory**_CORNER) ** (1 / _CORNER), (overhead, compute, memory)


def _prior(table: _Table, ms: Array, machine: Machine) -> tuple[Array, Array]:
    """Where the fit starts and how far each logarithm may go from there: read off the best rates seen."""
    peak = float(np.log(np.quantile(table.work / ms, 0.9)))
    moved = table.activation_bytes + table.weight_bytes
    fastest = float(np.log(np.quantile(moved / ms, 0.9)))
    levels = len(machine.level_names)
    # Each level is about half as fast as the one before.
    bandwidth = fastest + 0.7 * np.arange(levels - 1, -1, -1) / max(1, levels - 1)
    common = np.asarray([peak, np.log(8.0), np.log(2.0), 0.5, float(np.log(ms.min())) - 1.5, fastest])
    common_spread = np.asarray([1.5, 1.0, 1.0, 0.5, 1.5, 1.0])
    deviations = np.zeros(3 * table.kinds)
    deviation_spread = np.repeat([1.0, 0.7, 0.7], table.kinds)
    return (
        np.concatenate([common, bandwidth, deviations]),
        np.concatenate([common_spread, np.full(levels, 0.7), deviation_spread]),
    )
