"""Estimates of trimmed networks: which kernels a cut with its head would run, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cost_models import (
    Calibration,
    Estimator,
    Kernel,
    KernelSample,
    LatencyEstimate,
    fit_estimator,
    merge_rounds,
)
from netcut_fx.backends.base import Profile
from netcut_fx.errors import UncoveredKernel
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.passes.copying import weightless
from netcut_fx.passes.cut import cut_nodes
from netcut_fx.passes.head import HeadPass


@dataclass(frozen=True)
class LatencyModel:
    """Prices whole networks on one target.

    Parameters
    ----------
    estimator : Estimator
        Fitted to what was measured there.
    """

    estimator: Estimator

    @classmethod
    def of_calibration(cls, calibration: Calibration, estimator: str = "profiled") -> LatencyModel:
        """Fit one of `cost_models.ESTIMATORS`.

        By default measured kernels at their measured time, others of a known kind by the analytical model.
        """
        return cls(fit_estimator(estimator, calibration))

    def price(self, network: Sequence[Kernel]) -> LatencyEstimate:
        """Latency of `network`; unknown as soon as one kernel is."""
        return self.estimator.estimate(network)


def kernels_of_cuts(
    traced: TracedModule, frontiers: Sequence[Frontier], head: HeadPass
) -> dict[str, tuple[Kernel, ...]]:
    """Kernels of every trimmed network, by frontier name; no weight is copied."""
    bare = weightless(traced)
    return {f.name: kernels(head(cut_nodes(bare, f.nodes))) for f in frontiers}


def samples_of_profile(network: Sequence[Kernel], profile: Profile, group: str = "") -> tuple[KernelSample, ...]:
    """Match a profile with our own kernel list.

    Parameters
    ----------
    network : sequence of Kernel
        What the profiled network runs.
    profile : Profile
        Its kernels' times.
    group : str
        Name of the network, see `KernelSample.group`.

    Raises
    ------
    UncoveredKernel
        If the compiled program ran a workload that is not in `network`: the kernel list would be wrong, and a sum over
        it would silently leave that time out.
    """
    by_key = {kernel.key: kernel for kernel in network}
    strangers = [timing for timing in profile.kernels if timing.key not in by_key]
    if strangers:
        raise UncoveredKernel(
            f"the compiler runs {strangers[0].name} ({strangers[0].key}), which the kernel list of this network does "
            "not contain; report the operation it comes from"
        )
    rounds = ((by_key[timing.key], timing.samples_ms) for timing in profile.kernels)
    return merge_rounds(rounds, group)
