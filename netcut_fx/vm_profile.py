"""Time the kernels of a loaded network while it runs, through the hook of TVM's virtual machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from netcut_fx.errors import BackendError

_WARM_UP_ROUNDS = 3
# What the machine does between kernels: allocation, checks of shapes.
_BUILTIN = "vm.builtin."

#: A compiler's name of a kernel, and its milliseconds in each round.
KernelRounds = tuple[str, tuple[float, ...]]


def kernel_rounds(
    machine: Any, convert: Callable[[Any], Any], call: Callable[[], object], plain: Callable[[], object], rounds: int
) -> tuple[KernelRounds, ...]:
    """Time every kernel call of a network, in execution order.

    Rounds with and without the hook alternate. What all kernels together seem to take longer than the network without
    the hook is the hook's own cost, and is taken from each in equal parts.

    Parameters
    ----------
    machine : module
        A virtual machine of its own, which keeps the hook.
    convert : callable
        ``tvm_ffi.convert``.
    call, plain : callable
        Run the network once on `machine`, and on another machine without the hook.
    rounds : int
        At least 1.

    Raises
    ------
    BackendError
        If two rounds call different kernels.
    """
    started, seen = [0.0], list[tuple[str, float]]()

    def hook(_function: Any, name: Any, before: bool, _result: Any, *_arguments: Any) -> int:
        if before:
            started[0] = time.perf_counter()
        else:
            seen.append((str(name), (time.perf_counter() - started[0]) * 1e3))
        return 0

    machine["set_instrument"](convert(hook))
    names: list[str] = []
    table: list[list[float]] = []
    wholes: list[float] = []
    for i in range(rounds + _WARM_UP_ROUNDS):
        start = time.perf_counter()
        plain()
        whole = (time.perf_counter() - start) * 1e3
        seen.clear()
        call()
        found = [(name, ms) for name, ms in seen if not name.startswith(_BUILTIN)]
        if names and names != [name for name, _ in found]:
            raise BackendError("two runs of the network called different kernels; compile it again")
        names = [name for name, _ in found]
        if i >= _WARM_UP_ROUNDS:
            table.append([ms for _, ms in found])
            wholes.append(whole)
    excess = sum(statistics.median(column) for column in zip(*table, strict=True)) - statistics.median(wholes)
    cost = max(0.0, excess) / max(1, len(names))
    # No kernel is left with less than half of what was seen: the cost is an average.
    return tuple((name, tuple(max(row[i] - cost, row[i] / 2) for row in table)) for i, name in enumerate(names))
