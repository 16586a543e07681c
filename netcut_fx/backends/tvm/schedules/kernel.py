"""A fused kernel as its schedules see it: the nest that matters, what comes before and what comes after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.schedules.contraction import Contraction, recognise
from netcut_fx.backends.tvm.schedules.stages import Stage, read_stages
from netcut_fx.backends.tvm.toolchain import import_tvm

#: Attribute in which TVM notes which arguments of a kernel are constant.
CONSTANT_ARGUMENTS = "layout_free_buffers"


@dataclass(frozen=True, eq=False)
class Kernel:
    """The nests of a fused kernel.

    Parameters
    ----------
    stages : tuple of Stage
        All of them, in order.
    anchor : Stage
        The last one that reduces; the last of all where none does.
    contraction : Contraction or None
        The anchor as a sum of products.
    before, after : tuple of Stage
        What is computed for the anchor, and with its result. None of it reduces.
    """

    stages: tuple[Stage, ...]
    anchor: Stage
    contraction: Contraction | None
    before: tuple[Stage, ...]
    after: tuple[Stage, ...]

    @property
    def last(self) -> Stage:
        """The nest that writes the result."""
        return self.stages[-1]


def read_kernel(function: Any) -> Kernel | None:
    """Read a fused kernel; None if it has several results, or more than one nest that reduces."""
    stages = read_stages(function)
    if not stages:
        return None
    written = [s for s in stages if any(s.store.buffer.same_as(p) for p in function.params)]
    reducing = [s for s in stages if s.reduces]
    if len(written) != 1 or written[0] is not stages[-1] or len(reducing) > 1:
        return None
    anchor = reducing[0] if reducing else stages[-1]
    place = stages.index(anchor)
    attributes = function.attrs if function.attrs is not None else {}
    constant = frozenset(function.params[int(i)] for i in attributes.get(CONSTANT_ARGUMENTS, ()))
    return Kernel(stages, anchor, recognise(anchor, constant), stages[:place], stages[place + 1 :])


def channel_place(stage: Stage) -> int | None:
    """Which loop of `stage` walks the innermost dimension of what it writes, in steps of one."""
    axis = stage.axis_of(stage.store.indices[-1]) if stage.store.indices else None
    return None if axis is None else stage.axes.index(axis)


def is_copy(stage: Stage) -> bool:
    """Whether `stage` only hands on what it reads, element by element."""
    from tvm.ir import TensorLoad

    import_tvm()
    return isinstance(stage.value, TensorLoad)
