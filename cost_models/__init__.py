"""What kernels cost on a target. Knows nothing of graphs, torch or compilers."""

from cost_models.estimate import LatencyEstimate
from cost_models.kernel import Kernel, kernel_key
from cost_models.model import CostModel, FirstKnown, estimate_kernels
from cost_models.profiled import ProfiledModel
from cost_models.roofline import RooflineModel
from cost_models.sample import KernelSample, merge_rounds
from cost_models.store import Calibration, CalibrationError

__all__ = [
    "Calibration",
    "CalibrationError",
    "CostModel",
    "FirstKnown",
    "Kernel",
    "KernelSample",
    "LatencyEstimate",
    "ProfiledModel",
    "RooflineModel",
    "estimate_kernels",
    "kernel_key",
    "merge_rounds",
]
