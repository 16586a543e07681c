"""Every error of this package that a user can cause, under one root.

One comes from elsewhere: `cost_models` knows nothing of this package, so a calibration that is damaged or belongs to
another target is its own `cost_models.CalibrationError`. The CLI prints ``str(error)`` of either on one line and exits
with 2.
"""

from __future__ import annotations


class NetcutError(Exception):
    """Root of all errors of this package: says what is wrong, where, and what to do next."""


class TraceError(NetcutError):
    """A model could not be traced, or its example input does not fit it."""


class InvalidFrontier(NetcutError):
    """A cut was asked for where none is possible."""


class PassError(NetcutError):
    """A pass was misused: unknown name, bad option, precondition or postcondition broken."""


class UncoveredKernel(NetcutError):
    """A kernel is neither measured nor modelled where a number is needed."""


class DeadlineUnmet(NetcutError):
    """No candidate meets the deadline."""


class TargetMismatch(NetcutError):
    """An artefact or record belongs to another device, instruction set or toolchain."""


class BadBundle(NetcutError):
    """A bundle is incomplete or was changed."""


class DataError(NetcutError):
    """Images or labels cannot be used."""


class SpecError(NetcutError):
    """An option or SPEC string cannot be understood."""


class BackendError(NetcutError):
    """The compiler failed, or is not installed."""


class DeviceLost(BackendError):
    """A device that measures for us is gone, and no other one of its kind is there."""


class Busy(NetcutError):
    """Another run holds the folder."""


class NothingToSkip(NetcutError):
    """A network in which no layer and no channel can be left out for some inputs."""


class BudgetError(NetcutError):
    """A budget or target that no choice can keep, or saliences that tell nothing."""
