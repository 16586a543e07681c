"""The profiler-based estimator: each kernel's own measured time (NetCut, section IV: "profiler-based estimation")."""

from __future__ import annotations

from collections.abc import Iterable

from cost_models.estimate import LatencyEstimate
from cost_models.kernel import Kernel
from cost_models.sample import KernelSample


class ProfiledModel:
    """Knows exactly the workloads it was given.

    A kernel of a trimmed network has, but for the head and the boundary, the same workload as in the network it was
    trimmed from, so one profile of the uncut network covers nearly all kernels of every cut.
    """

    def __init__(self, samples: Iterable[KernelSample]) -> None:
        self._by_key = {sample.key: sample for sample in samples}

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def predict(self, kernel: Kernel) -> LatencyEstimate:
        """The measured time of this workload, or unknown."""
        sample = self._by_key.get(kernel.key)
        if sample is None:
            return LatencyEstimate.unknown(kernel.key)
        low = min(sample.low_ms, sample.ms)
        high = max(sample.high_ms, sample.ms)
        return LatencyEstimate(sample.ms, low, high, (("measured", sample.ms),))
