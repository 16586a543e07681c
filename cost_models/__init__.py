"""What kernels cost on a target. Knows nothing of graphs, torch or compilers."""

from cost_models.accuracy import accuracy_of
from cost_models.between import Between
from cost_models.conformal import Band
from cost_models.estimate import LatencyEstimate
from cost_models.estimators import ESTIMATORS, Estimator, fit_estimator
from cost_models.kernel import Kernel, kernel_key
from cost_models.machine import Machine
from cost_models.model import CostModel, FirstKnown
from cost_models.modelled import ModelledKernels
from cost_models.profiled import ProfiledModel
from cost_models.sample import KernelSample, NetworkSample, merge_rounds
from cost_models.store import Calibration, CalibrationError, hold

__all__ = [
    "ESTIMATORS",
    "Band",
    "Between",
    "Calibration",
    "CalibrationError",
    "CostModel",
    "Estimator",
    "FirstKnown",
    "Kernel",
    "KernelSample",
    "LatencyEstimate",
    "Machine",
    "ModelledKernels",
    "NetworkSample",
    "ProfiledModel",
    "accuracy_of",
    "fit_estimator",
    "hold",
    "kernel_key",
    "merge_rounds",
]
