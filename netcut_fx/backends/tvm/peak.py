"""What this machine can do at most: multiply-adds that stay in registers, and a triad over memory.

Both are compiled by the compiler that makes the artefacts, for the same target and thread count, so that a share of
them says how much an artefact leaves, and not how good a library is.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from netcut_fx.backends.tvm.toolchain import import_tvm, limit_threads, tvm_target
from netcut_fx.target import Target

#: Chains of multiply-adds that do not wait for each other: more than latency x units of any CPU, fewer than registers.
_CHAINS = 12
#: Of one array of the triad: several times the last cache of most machines.
_TRIAD_BYTES = 1 << 26


class PeakProbe:
    """Two small kernels for `target`, run by the calling thread and its pool.

    Parameters
    ----------
    target : Target
        Its vector width and thread count are used.
    """

    def __init__(self, target: Target) -> None:
        tvm = import_tvm()
        limit_threads(target.threads)
        self._threads = target.threads
        self._lanes = _lanes(target)
        library = tvm.compile(_module(self._lanes), target=tvm_target(target))
        self._multiply_add, self._triad = library["multiply_add"], library["triad"]
        self._numbers = tvm.runtime.tensor(np.full(_CHAINS + 2, 0.5, np.float32))
        self._sums = tvm.runtime.tensor(np.zeros((target.threads, _CHAINS * self._lanes), np.float32))
        each = _TRIAD_BYTES // 4 // self._lanes // target.threads
        shape = (target.threads, each, self._lanes)
        self._arrays = [tvm.runtime.tensor(np.ones(shape, np.float32)) for _ in range(3)]
        self._steps = 1000
        # The first call makes the pool of threads and maps the memory.
        self.flops_per_s(1)
        self.bytes_per_s(1)
        while (seconds := self._seconds(self._multiply_add, self._numbers, self._sums, self._steps)) < 5e-3:
            self._steps = int(self._steps * min(100.0, 6e-3 / max(seconds, 1e-5))) + 1

    def flops_per_s(self, repeat: int = 3) -> float:
        """Float32 operations a second, a multiply-add being two; the best of `repeat`."""
        operations = 2 * self._threads * self._steps * _CHAINS * self._lanes
        return max(
            operations / self._seconds(self._multiply_add, self._numbers, self._sums, self._steps)
            for _ in range(repeat)
        )

    def bytes_per_s(self, repeat: int = 3) -> float:
        """Bytes a second of ``a + s * b -> c``, counted as STREAM does: two read, one written; the best of `repeat`."""
        size = sum(int(np.prod(array.shape)) * 4 for array in self._arrays)
        return max(size / self._seconds(self._triad, *self._arrays) for _ in range(repeat))

    @staticmethod
    def _seconds(function: Any, *arguments: Any) -> float:
        start = time.perf_counter()
        function(*arguments)
        return time.perf_counter() - start


def _lanes(target: Target) -> int:
    """Float32 numbers in one vector register."""
    if "avx512f" in target.features:
        return 16
    return 8 if "avx" in target.features else 4


def _module(lanes: int) -> Any:
    # TVM's script reads the enclosing function's names as constants.
    from tvm.script import ir as I
    from tvm.script import tirx as T

    chains, width = _CHAINS, _CHAINS * lanes

    @I.ir_module
    class Kernels:
        @T.prim_func
        def multiply_add(numbers: T.handle, sums: T.handle, steps: T.int32):  # noqa: N805
            T.func_attr({"tirx.noalias": True})
            threads = T.int32()
            x = T.match_buffer(numbers, (chains + 2,), "float32")
            out = T.match_buffer(sums, (threads, width), "float32")
            for thread in T.parallel(threads):
                held = T.alloc_buffer((width,), "float32", scope="local")
                for chain in T.unroll(chains):
                    for lane in T.vectorized(lanes):
                        held[chain * lanes + lane] = x[chain]
                for _ in range(steps):
                    for chain in T.unroll(chains):
                        for lane in T.vectorized(lanes):
                            held[chain * lanes + lane] = held[chain * lanes + lane] * x[chains] + x[chains + 1]
                for chain in T.unroll(chains):
                    for lane in T.vectorized(lanes):
                        out[thread, chain * lanes + lane] = held[chain * lanes + lane]

        @T.prim_func
        def triad(first: T.handle, second: T.handle, sums: T.handle):  # noqa: N805
            T.func_attr({"tirx.noalias": True})
            threads, each = T.int32(), T.int32()
            a = T.match_buffer(first, (threads, each, lanes), "float32")
            b = T.match_buffer(second, (threads, each, lanes), "float32")
            c = T.match_buffer(sums, (threads, each, lanes), "float32")
            for thread in T.parallel(threads):
                for i in range(each):
                    for lane in T.vectorized(lanes):
                        c[thread, i, lane] = a[thread, i, lane] + T.float32(3) * b[thread, i, lane]

    return Kernels
