"""Element-wise kernels and rearrangements: one pass over the result, its innermost dimension as vectors."""

from __future__ import annotations

from typing import Any

from netcut_fx.backends.tvm.schedules.kernel import Kernel
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.surroundings import vectorize_inner


def is_injective(kernel: Kernel) -> bool:
    """Whether nothing in `kernel` reduces."""
    return not any(stage.reduces for stage in kernel.stages)


def apply_injective(schedule: Any, kernel: Kernel, machine: Machine) -> None:
    """Inline everything into the last nest and make that one vectors."""
    for stage in kernel.stages[:-1]:
        schedule.compute_inline(schedule.get_sblock(stage.name))
    vectorize_inner(schedule, kernel.last, machine)
