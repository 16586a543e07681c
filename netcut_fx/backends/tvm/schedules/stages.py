"""Read a kernel: its loop nests, what they read and write, and which loop walks which dimension."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from netcut_fx.backends.tvm.toolchain import import_tvm

_REDUCTION = 2
FLOAT_BYTES = 4


@dataclass(frozen=True, eq=False)
class Axis:
    """A loop of a nest."""

    var: Any
    extent: int
    reduces: bool


@dataclass(frozen=True, eq=False)
class Access:
    """A place where a nest reads or writes a buffer."""

    buffer: Any
    indices: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the buffer."""
        return tuple(int(n) for n in self.buffer.ty.shape)

    @property
    def bytes(self) -> int:
        """Size of the buffer."""
        return math.prod(self.shape) * FLOAT_BYTES


@dataclass(frozen=True, eq=False)
class Stage:
    """One loop nest of a kernel.

    Parameters
    ----------
    name : str
        The block's name, unique in the kernel.
    axes : tuple of Axis
        Loops, outermost first; every one binds one block variable.
    store : Access
        What it writes.
    loads : tuple of Access
        What it reads, its own result left out.
    value : tvm.tirx.Expr
        What is stored.
    """

    name: str
    axes: tuple[Axis, ...]
    store: Access
    loads: tuple[Access, ...]
    value: Any

    @property
    def reduces(self) -> bool:
        """Whether some loop accumulates."""
        return any(axis.reduces for axis in self.axes)

    @property
    def points(self) -> int:
        """How often the body runs."""
        return math.prod(axis.extent for axis in self.axes)

    @property
    def written(self) -> int:
        """How many elements it writes."""
        return math.prod(axis.extent for axis in self.axes if not axis.reduces)

    def axis_of(self, index: Any) -> Axis | None:
        """The one loop that walks `index` in steps of one, from wherever it starts; None if there is no such loop."""
        used = [axis for axis in self.used_by((index,)) if axis.extent > 1]
        if len(used) != 1:
            return None
        return used[0] if step_of(index, used[0].var) == 1 else None

    def used_by(self, indices: Iterable[Any]) -> tuple[Axis, ...]:
        """Loops that occur in `indices`."""
        found = _variables(indices)
        return tuple(axis for axis in self.axes if axis.var in found)


def read_stages(function: Any) -> tuple[Stage, ...]:
    """Loop nests of a kernel that is not scheduled, in order; empty where it is not made of simple nests only."""
    import tvm_ffi

    import_tvm()
    from tvm import tirx
    from tvm.s_tir import SBlockRealize

    found: list[Any] = []

    def see(realize: Any) -> None:
        found.append(realize)

    tvm_ffi.structural_walk(function.body, (SBlockRealize, see), order="pre")
    stages: list[Stage] = []
    for realize in found:
        block = realize.block
        if not len(block.iter_vars):
            continue
        if not isinstance(block.body, tirx.BufferStore) or any(
            not isinstance(v, tirx.Var) for v in realize.iter_values
        ):
            return ()
        axes = tuple(
            Axis(iter_var.var, int(iter_var.dom.extent), int(iter_var.iter_type) == _REDUCTION)
            for iter_var in block.iter_vars
        )
        store = Access(block.body.buffer, tuple(block.body.indices))
        loads = tuple(a for a in _loads(block.body.value) if not a.buffer.same_as(store.buffer))
        stages.append(Stage(str(block.name_hint), axes, store, loads, block.body.value))
    return tuple(stages)


def step_of(index: Any, var: Any) -> int | None:
    """How far `index` moves when `var` grows by one; None where that is no constant."""
    from tvm import tirx

    if var not in _variables((index,)):
        return 0
    if isinstance(index, tirx.Var):
        return 1
    if isinstance(index, (tirx.Add, tirx.Sub)):
        left, right = step_of(index.a, var), step_of(index.b, var)
        if left is None or right is None:
            return None
        return left + right if isinstance(index, tirx.Add) else left - right
    if isinstance(index, tirx.Mul):
        for factor, rest in ((index.a, index.b), (index.b, index.a)):
            step = step_of(rest, var)
            if isinstance(factor, tirx.IntImm) and step is not None:
                return int(factor) * step
    return None


def _loads(value: Any) -> list[Access]:
    import tvm_ffi
    from tvm.ir import TensorLoad

    found: list[Access] = []

    def see(load: Any) -> None:
        found.append(Access(load.source, tuple(load.indices)))

    tvm_ffi.structural_walk(value, (TensorLoad, see), order="pre")
    return found


def _variables(indices: Iterable[Any]) -> set[Any]:
    import tvm_ffi
    from tvm import tirx

    found: set[Any] = set()

    def see(variable: Any) -> None:
        found.add(variable)

    for index in indices:
        tvm_ffi.structural_walk(index, (tirx.Var, see))
    return found
