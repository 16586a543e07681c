"""Estimators of whole networks behind one interface: kernels priced one by one, what lies between them, an interval."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cost_models.anchoring import anchored, profiled_networks
from cost_models.between import Between, NetworkTotals
from cost_models.conformal import Band, difficulty
from cost_models.estimate import LatencyEstimate
from cost_models.features import KernelFacts
from cost_models.footprint import ASSUMED_MS_PER_BYTE, capacities, fetched_bytes, footprint_bytes, missed
from cost_models.kernel import Kernel
from cost_models.model import CostModel, FirstKnown
from cost_models.modelled import FAMILIES, ModelledKernels
from cost_models.profiled import ProfiledModel
from cost_models.sample import KernelSample, NetworkSample
from cost_models.store import Calibration, CalibrationError

#: Names that `fit_estimator` takes.
ESTIMATORS: tuple[str, ...] = ("profiled", *FAMILIES)

_FOLDS = 4
#: So many measured cuts say how far off profiles are.
_ENOUGH_CUTS = 20
#: A part of a network that takes less of it is not worth a word.
_NOTHING = 1e-6
#: At least so much of a kernel's time is its own.
_LEAST_WARM = 0.3
#: From the half width of a 90 % interval to a standard deviation.
_HALF_WIDTH_90 = 1.645


@dataclass(frozen=True)
class _Priced:
    """What is remembered of one kernel."""

    estimate: LatencyEstimate
    spread: float
    facts: KernelFacts
    home_bytes: float | None


@dataclass(frozen=True)
class Estimator:
    """Prices whole networks on one target.

    Parameters
    ----------
    name : str
        One of `ESTIMATORS`.
    model : CostModel
        Prices one kernel.
    between : Between
        What a network takes beyond its kernels.
    band : Band
        How wide its intervals are.
    sizes : tuple of float
        See `cost_models.footprint.capacities`.
    homes : mapping of str to float
        For each kernel that the model knows from a network, the footprint of that network in bytes.
    elsewhere : float or None
        The footprint that all others have their times for; None if that of the very network that is asked for.
    """

    name: str
    model: CostModel
    between: Between = field(default_factory=Between)
    band: Band = field(default_factory=lambda: Band.of_scores(()))
    sizes: tuple[float, ...] = ()
    homes: Mapping[str, float] = field(default_factory=dict[str, float])
    elsewhere: float | None = None
    _known: dict[str, _Priced] = field(default_factory=dict[str, _Priced], repr=False, compare=False)

    def estimate(self, network: Sequence[Kernel]) -> LatencyEstimate:
        """Latency of kernels that run one after the other; unknown as soon as one of them is."""
        if not network:
            return LatencyEstimate.zero()
        priced = self._priced(network)
        missing = [p.estimate for p in priced if not p.estimate.is_known]
        if missing:
            return LatencyEstimate.unknown(*dict.fromkeys(key for e in missing for key in e.missing))
        totals = self._totals(priced)
        beside = {"overhead": self.between.overhead_ms(totals), "caches": self.between.caches_ms(totals)}
        shares: dict[str, float] = {}
        for p in priced:
            for source, ms in p.estimate.provenance:
                shares[source] = shares.get(source, 0.0) + ms * self.between.scale
        shares |= {source: ms for source, ms in beside.items() if abs(ms) > _NOTHING * totals.kernels_ms}
        kernels_ms = self.between.scale * totals.kernels_ms
        # Caches never save more than half: what was measured is not thrown away for what is fitted.
        ms = max(kernels_ms + sum(beside.values()), kernels_ms / 2)
        low, high = self.band.interval(ms, self._difficulty(network, priced))
        notes = dict.fromkeys(note for p in priced for note in p.estimate.notes)
        return LatencyEstimate(
            ms, low, high, tuple(shares.items()), coverage=self.band.coverage, notes=(str(self.band), *notes)
        )

    def score(self, sample: NetworkSample) -> float | None:
        """How far off the estimate of a measured network is, see `conformal`; None if it is unknown."""
        found = self.estimate(sample.kernels)
        if not found.is_known:
            return None
        return abs(math.log(sample.ms / found.ms)) / self._difficulty(sample.kernels, self._priced(sample.kernels))

    def totals(self, network: Sequence[Kernel]) -> NetworkTotals | None:
        """What `Between` is fitted to; None if some kernel is unknown."""
        priced = self._priced(network)
        if not all(p.estimate.is_known for p in priced):
            return None
        return self._totals(priced)

    def _totals(self, priced: Sequence[_Priced]) -> NetworkTotals:
        total = sum(p.estimate.ms for p in priced)
        facts = [p.facts for p in priced]
        footprint = footprint_bytes(facts)
        # What was not measured in a network is taken to be at home in this one.
        homes: dict[float, float] = {}
        for p, fetched in zip(priced, fetched_bytes(facts), strict=True):
            home = footprint if p.home_bytes is None else p.home_bytes
            homes[home] = homes.get(home, 0.0) + fetched
        reload = tuple(
            sum(fetched * (missed(footprint, size) - missed(home, size)) for home, fetched in homes.items())
            for size in self.sizes
        )
        # Where caches are accounted for, weights are, too.
        weights = sum(p.facts.weight_bytes for p in priced if p.home_bytes is None)
        return NetworkTotals(total, len(priced), weights, reload)

    @staticmethod
    def _difficulty(network: Sequence[Kernel], priced: Sequence[_Priced]) -> float:
        return difficulty([(k.kind, p.estimate.ms, p.spread) for k, p in zip(network, priced, strict=True)])

    def _priced(self, network: Sequence[Kernel]) -> list[_Priced]:
        """Kernels recur from cut to cut, so each workload is priced once."""
        new = {kernel.key: kernel for kernel in network if kernel.key not in self._known}
        if new:
            for kernel, estimate in zip(new.values(), _estimates(self.model, list(new.values())), strict=True):
                home = self.homes.get(kernel.key, self.elsewhere)
                self._known[kernel.key] = _Priced(estimate, _spread(estimate), KernelFacts.of(kernel), home)
        return [self._known[kernel.key] for kernel in network]


def _estimates(model: CostModel, kernels: list[Kernel]) -> list[LatencyEstimate]:
    if isinstance(model, FirstKnown):
        found = [LatencyEstimate.unknown(k.key) for k in kernels]
        for part in model.models:
            open_ = [i for i, estimate in enumerate(found) if not estimate.is_known]
            for i, estimate in zip(open_, _estimates(part, [kernels[i] for i in open_]), strict=True):
                found[i] = estimate
        return found
    if isinstance(model, ModelledKernels):
        return model.predict_all(kernels)
    return [model.predict(kernel) for kernel in kernels]


def _spread(estimate: LatencyEstimate) -> float:
    """Standard deviation of the logarithm, read off a 90 % interval."""
    if not estimate.is_known or estimate.ms == 0 or estimate.low_ms == 0:
        return 0.0
    return math.log(estimate.high_ms / estimate.low_ms) / 2 / _HALF_WIDTH_90


def fit_estimator(name: str, calibration: Calibration, *, coverage: float = 0.9) -> Estimator:
    """Fit one estimator to all evidence of a calibration.

    Parameters
    ----------
    name : str
        One of `ESTIMATORS`. ``profiled`` takes the measured time of a kernel where there is one and the analytical
        model elsewhere; the others model every kernel.
    calibration : Calibration
        Its networks say what lies between kernels, and how wide intervals have to be: each is predicted by a model that
        saw nothing of its group, but for ``profiled``, which is meant for networks that were profiled.
    coverage : float
        Of the intervals.

    Raises
    ------
    CalibrationError
        For an unknown name.
    """
    if name not in ESTIMATORS:
        raise CalibrationError(f"there is no estimator '{name}'; choose one of {', '.join(ESTIMATORS)}")
    return _Fit(name, calibration).estimator(coverage)


class _Fit:
    """What the parts of one fit share."""

    def __init__(self, name: str, calibration: Calibration) -> None:
        self.name = name
        self.known = replace(calibration, samples=anchored(calibration.samples, calibration.networks))
        self.sizes = capacities(calibration.machine)
        homes = profiled_networks(calibration.samples, calibration.networks)
        self.anchors = {group: network for group, (network, _) in homes.items()}
        of_profiles = {id(network) for network in self.anchors.values()}
        self.cuts = [n for n in calibration.networks if id(n) not in of_profiles and n.group in self.anchors]
        #: What is fetched again costs; None where too few cuts were measured to take it out of the times of kernels.
        self.prices: tuple[float, ...] | None = None
        if len(self.cuts) >= _ENOUGH_CUTS:
            rough = ModelledKernels.fit("analytical", self.known.samples, calibration.machine, rough=True)
            self.prices = self._between(self._estimator("profiled", self.known.samples, rough), ()).ms_per_reload_byte

    def estimator(self, coverage: float) -> Estimator:
        """Fitted to everything, its intervals to how far off it is for what it did not see."""
        modelled = self._modelled(self.known.samples)
        whole = self._estimator(self.name, self.known.samples, modelled)
        # The kernels of a profiled network add up to it by construction. Where enough cuts were measured, they say how
        # well others are known; where not, networks of which nothing was seen do.
        of_cuts = self.name == "profiled" and len(self.cuts) >= _ENOUGH_CUTS
        asked = self.cuts if of_cuts else self.known.networks
        # Nothing but what lies between kernels is fitted again for cuts, so each group can be left out alone.
        groups = sorted({n.group for n in asked})
        folds = len(groups) if of_cuts else _FOLDS
        scores: list[float] = []
        for fold in range(folds) if len(groups) > 1 else ():
            held = set(groups[fold::folds])
            if not held:
                continue
            inner = whole
            if not of_cuts:
                rest = [s for s in self.known.samples if s.group not in held]
                inner = self._estimator(self.name, rest, self._modelled(rest, like=modelled))
            inner = replace(inner, between=self._between(inner, held))
            found = (inner.score(n) for n in asked if n.group in held)
            scores.extend(score for score in found if score is not None)
        return replace(whole, between=self._between(whole, ()), band=Band.of_scores(scores, coverage))

    def _estimator(self, name: str, samples: Sequence[KernelSample], modelled: ModelledKernels | None) -> Estimator:
        parts: list[CostModel] = [ProfiledModel(samples)] if name == "profiled" else []
        homes: dict[str, float] = {}
        if name == "profiled":
            of_group = {group: footprint_bytes(_facts(network)) for group, network in self.anchors.items()}
            homes = {s.key: of_group[s.group] for s in samples if s.group in of_group}
        if modelled is not None:
            parts.append(modelled)
        elsewhere = None if self.prices is None else 0.0
        return Estimator(name, FirstKnown(tuple(parts)), sizes=self.sizes, homes=homes, elsewhere=elsewhere)

    def _modelled(self, samples: Sequence[KernelSample], like: ModelledKernels | None = None) -> ModelledKernels | None:
        family = "analytical" if self.name == "profiled" else self.name
        if self.prices is not None:
            samples = self._warm(samples, self.prices)
        return ModelledKernels.fit(family, samples, self.known.machine, like=like)

    def _warm(self, samples: Sequence[KernelSample], prices: Sequence[float]) -> list[KernelSample]:
        """Times as they would be if all that a network touches stayed in the caches from run to run."""
        cold: dict[tuple[str, str], float] = {}
        for group, network in self.anchors.items():
            facts = _facts(network)
            footprint = footprint_bytes(facts)
            per_byte = sum(ms * missed(footprint, size) for ms, size in zip(prices, self.sizes, strict=True))
            for kernel, fetched in zip(network.kernels, fetched_bytes(facts), strict=True):
                # A workload that comes again has mostly found its buffers.
                cold.setdefault((group, kernel.key), per_byte * fetched)
        found: list[KernelSample] = []
        for sample in samples:
            ms = max(sample.ms - cold.get((sample.group, sample.kernel.key), 0.0), _LEAST_WARM * sample.ms)
            found.append(replace(sample, ms=ms, low_ms=min(sample.low_ms, ms), high_ms=max(sample.high_ms, ms)))
        return found

    def _between(self, estimator: Estimator, held: Collection[str]) -> Between:
        networks = [n for n in self.known.networks if n.group not in held]
        known = [(estimator.totals(n.kernels), n.ms) for n in networks]
        assumed = ASSUMED_MS_PER_BYTE if self.prices is None else self.prices
        return Between.fit([(t, ms) for t, ms in known if t is not None], self.known.overhead_ms_per_kernel, assumed)


def _facts(network: NetworkSample) -> list[KernelFacts]:
    return [KernelFacts.of(kernel) for kernel in network.kernels]
