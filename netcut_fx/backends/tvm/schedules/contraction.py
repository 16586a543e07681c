"""Recognise sums of products: convolutions, matrix products, depthwise convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from netcut_fx.backends.tvm.schedules.stages import Access, Axis, Stage
from netcut_fx.backends.tvm.toolchain import import_tvm


@dataclass(frozen=True, eq=False)
class Contraction:
    """A nest that computes ``out += data * weight``.

    Parameters
    ----------
    kind : str
        ``"dense"``: every output channel sums over channels of the data; ``"depthwise"``: each channel has its own
        window.
    stage : Stage
        The nest.
    data, weight : Access
        The factors.
    channel : Axis
        The loop over output channels.
    rows : tuple of Axis
        Loops over what is left of the output, outermost first.
    sums : tuple of Axis
        Loops that accumulate, the channels of the data last.
    group : int
        Neighbouring output channels that read the same data: all of them but in a grouped convolution.
    """

    kind: Literal["dense", "depthwise"]
    stage: Stage
    data: Access
    weight: Access
    channel: Axis
    rows: tuple[Axis, ...]
    sums: tuple[Axis, ...]
    group: int

    @property
    def is_grouped(self) -> bool:
        """Whether it is dense within groups of channels."""
        return self.kind == "dense" and self.group < self.channel.extent

    @property
    def depth(self) -> int:
        """Products per output element."""
        return math.prod(axis.extent for axis in self.sums)


def recognise(stage: Stage, weights: frozenset[Any]) -> Contraction | None:
    """Read `stage` as a contraction with one of the buffers `weights`; None if it is none that we schedule."""
    if not sums_products(stage):
        return None
    constant = [access for access in stage.loads if access.buffer in weights]
    if len(constant) != 1:
        return None
    (weight,) = constant
    (data,) = (access for access in stage.loads if access is not weight)
    in_weight, in_data = stage.used_by(weight.indices), stage.used_by(data.indices)
    sums = tuple(axis for axis in stage.axes if axis.reduces)
    rows = tuple(a for a in stage.axes if not a.reduces and a not in in_weight)
    of_weight = [a for a in stage.axes if not a.reduces and a in in_weight and a.extent > 1]
    if len(of_weight) != 1:
        return None
    (channel,) = of_weight
    if [stage.axis_of(index) for index in stage.store.indices].count(channel) != 1:
        return None
    kind, group = "dense", channel.extent
    if channel in in_data:
        if any(stage.axis_of(index) is channel for index in data.indices):
            kind, group = "depthwise", 1
        else:
            group = _group_width(stage, data, channel)
    # Channels of the data are neighbours in memory, the window is not.
    inner = [a for a in sums if any(stage.axis_of(i) is a for i in data.indices)]
    outer = [a for a in sums if a not in inner]
    found = Contraction(kind, stage, data, weight, channel, rows, (*outer, *inner), group)  # pyright: ignore
    return found if _covers(found) else None


def sums_products(stage: Stage) -> bool:
    """Whether `stage` adds products of elements of two buffers."""
    import_tvm()
    from tvm import tirx
    from tvm.ir import TensorLoad

    if not stage.reduces or len(stage.loads) != 2 or not isinstance(stage.value, tirx.Add):
        return False
    product = stage.value.b
    return isinstance(product, tirx.Mul) and all(isinstance(f, TensorLoad) for f in (product.a, product.b))


def _group_width(stage: Stage, data: Access, channel: Axis) -> int:
    """Divisor in the floor division by which a grouped convolution finds its group; 0 if there is none."""
    import tvm_ffi
    from tvm import tirx

    widths: list[int] = []

    def see(node: Any) -> None:
        if node.a.same_as(channel.var) and isinstance(node.b, tirx.IntImm):
            widths.append(int(node.b))

    for index in data.indices:
        tvm_ffi.structural_walk(index, (tirx.FloorDiv, see))
    return widths[0] if len(set(widths)) == 1 else 0


def _covers(found: Contraction) -> bool:
    """Whether all loops of any extent have a part, and the groups fit."""
    known = {found.channel, *found.rows, *found.sums}
    return found.group > 0 and all(axis in known or axis.extent == 1 for axis in found.stage.axes)
