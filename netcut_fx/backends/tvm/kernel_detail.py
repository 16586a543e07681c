"""What decides a kernel's time and is neither in its name nor in its shapes, read off its loop nest."""

from __future__ import annotations

from typing import Any

from netcut_fx.backends.tvm.schedules.stages import Access, Axis, Stage, read_stages, step_of
from netcut_fx.lowering.arithmetic import dilation_detail, window_detail

_POOLS = tuple(f"{kind}_pool{rank}d" for kind in ("max", "avg") for rank in (1, 2, 3))
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def kernel_detail(ops: tuple[str, ...], function: Any) -> str:
    """`cost_models.Kernel.detail` of a kernel that is not scheduled.

    Parameters
    ----------
    ops : tuple of str
        Its primitive operations.
    function : tvm.tirx.PrimFunc
        Its loops, in logical shapes.
    """
    pools = any(op in _POOLS for op in ops)
    if not pools and not any(op in _CONVOLUTIONS for op in ops):
        return ""
    for stage in read_stages(function):
        loops = tuple(axis for axis in stage.axes if axis.reduces)
        if loops and pools:
            return window_detail([axis.extent for axis in loops])
        if loops:
            return dilation_detail([_step(stage, axis) for axis in _window(stage, loops)])
    return ""


def _window(stage: Stage, loops: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Reducing loops of a convolution that walk its window: all but the first, which walks the channels."""
    spatial = len(stage.store.shape) - 2
    return loops[-spatial:]


def _step(stage: Stage, loop: Axis) -> int:
    """How far the input moves when the window moves by one."""
    return max((abs(_step_of(load, loop)) for load in stage.loads), default=1)


def _step_of(load: Access, loop: Axis) -> int:
    return max((abs(step_of(index, loop.var) or 0) for index in load.indices), default=0)
