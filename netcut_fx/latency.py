"""Estimates of trimmed networks: which kernels a cut with its head would run, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cost_models import (
    Calibration,
    CostModel,
    FirstKnown,
    Kernel,
    KernelSample,
    LatencyEstimate,
    ProfiledModel,
    RooflineModel,
    estimate_kernels,
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
    """Prices whole networks on one target: a model for kernels, and the dispatch between them.

    Parameters
    ----------
    kernels : CostModel
        Prices one kernel.
    overhead_ms_per_kernel : float
        What a network takes beyond its kernels, per call.
    """

    kernels: CostModel
    overhead_ms_per_kernel: float = 0.0

    @classmethod
    def of_calibration(cls, calibration: Calibration) -> LatencyModel:
        """Measured kernels at their measured time, others of a known kind by a roofline fitted to the measured ones."""
        models: list[CostModel] = [ProfiledModel(calibration.samples)]
        roofline = RooflineModel.fit(calibration.samples)
        if roofline is not None:
            models.append(roofline)
        return cls(FirstKnown(tuple(models)), calibration.overhead_ms_per_kernel)

    def price(self, network: Sequence[Kernel]) -> LatencyEstimate:
        """Latency of `network`; unknown as soon as one kernel is."""
        return estimate_kernels(network, self.kernels, overhead_ms_per_kernel=self.overhead_ms_per_kernel)


def kernels_of_cuts(
    traced: TracedModule, frontiers: Sequence[Frontier], head: HeadPass
) -> dict[str, tuple[Kernel, ...]]:
    """Kernels of every trimmed network, by frontier name; no weight is copied."""
    bare = weightless(traced)
    return {f.name: kernels(head(cut_nodes(bare, f.nodes))) for f in frontiers}


def samples_of_profile(network: Sequence[Kernel], profile: Profile) -> tuple[KernelSample, ...]:
    """Match a profile with our own kernel list.

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
    return merge_rounds((by_key[timing.key], timing.samples_ms) for timing in profile.kernels)
