"""Time one schedule of a kernel in this process, and compare its result with the kernel as it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from netcut_fx.backends.tvm.toolchain import import_tvm

_T = TypeVar("_T")
#: Hands a built library to a function of it and of the device that it runs on.
Place = Callable[[Any, Callable[[Any, Any], Any]], Any]

#: Largest difference of a scheduled kernel from the unscheduled one, relative to its largest output.
_TOLERANCE = 1e-4


def here(library: Any, work: Callable[[Any, Any], _T]) -> _T:
    """Let `work` use `library` in this process."""
    return work(library, import_tvm().cpu())


class KernelTimer:
    """Builds and times schedules of one kernel.

    Parameters
    ----------
    module : tvm.IRModule
        The kernel, not scheduled.
    target : tvm.target.Target
        What it is built for.
    best_s : float
        Fastest schedule so far; what is four times slower is timed roughly, what is faster is checked.
    place : callable
        Where it runs.
    """

    def __init__(self, module: Any, target: Any, best_s: float = math.inf, place: Place = here) -> None:
        self._module = module
        self._target = target
        self._best_s = best_s
        self._place = place
        self._reference: dict[int, np.ndarray] | None = None

    def seconds(self, candidate: Any) -> float:
        """Seconds of one call of a `tvm.s_tir.meta_schedule.MeasureCandidate`, the best of several rounds."""
        tvm = import_tvm()
        module = tvm.s_tir.transform.RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(candidate.sch.mod)
        library = tvm.tirx.build(module, target=self._target)

        def timed(library: Any, device: Any) -> float:
            arguments = _tensors(random_arguments(candidate.args_info), device)

            def rounds(number: int, repeat: int) -> list[float]:
                evaluator = library.time_evaluator("main", device, number=number, repeat=repeat)
                return [float(s) for s in evaluator(*arguments).results]

            first = min(rounds(1, 2))
            if first > 4 * self._best_s:
                return first
            number = max(1, min(500, int(0.004 / max(first, 1e-7))))
            # The shortest round is the one that nothing disturbed.
            return min(rounds(number, 3))

        fastest: float = self._place(library, timed)
        if fastest < self._best_s:
            self._check(candidate)
            self._best_s = fastest
        return fastest

    def _check(self, candidate: Any) -> None:
        """Compare with the kernel as it was before scheduling: TVM's own rules can produce wrong code.

        Seen with a convolution whose epilogue is a padding: tiling it loses the bounds of the padded region.
        """
        tvm = import_tvm()
        if self._reference is None:
            given = random_arguments(self._infos())
            found = enumerate(self._unscheduled_outputs())
            # Only what the kernel writes is kept: inputs would fill the memory with the weights of all kernels.
            self._reference = {i: a for i, a in found if not np.array_equal(a, given[i], equal_nan=True)}
        outputs = self._outputs(candidate.sch.mod, self._target, self._place)
        for place, expected in self._reference.items():
            # Where the unscheduled kernel yields NaN on random inputs (a root, a logarithm), nothing can be compared.
            known = np.isfinite(expected)
            if not known.any():
                continue
            error = float(abs(outputs[place] - expected)[known].max()) / max(float(abs(expected)[known].max()), 1e-30)
            if not error <= _TOLERANCE:
                raise tvm.error.InternalError(f"the schedule changes the result: relative error {error:.1e}")

    def _unscheduled_outputs(self) -> list[np.ndarray]:
        # Loops as they are name no threads, so no GPU runs them.
        if self._target.host is not None:
            return self._outputs(self._module, self._target.host, here)
        return self._outputs(self._module, self._target, self._place)

    def _outputs(self, module: Any, target: Any, place: Place) -> list[np.ndarray]:
        def run(library: Any, device: Any) -> list[np.ndarray]:
            arguments = _tensors(random_arguments(self._infos()), device)
            library["main"](*arguments)
            return [argument.numpy() for argument in arguments]

        return place(import_tvm().tirx.build(module, target=target), run)

    def _infos(self) -> Any:
        return argument_infos(self._module)


def argument_infos(module: Any) -> Any:
    """Shapes and types of the arguments of a kernel."""
    import_tvm()
    from tvm.s_tir import meta_schedule as ms

    return ms.arg_info.ArgInfo.from_prim_func(module["main"])


def random_arguments(infos: Any) -> list[np.ndarray]:
    """Arrays of the shapes and types that a kernel takes, the same in each call."""
    generator = np.random.default_rng(0)

    def array(info: Any) -> np.ndarray:
        shape = tuple(int(n) for n in info.shape)
        # Integers are indices, and zero is the one that is always valid.
        whole = "int" in str(info.dtype)
        return np.zeros(shape, str(info.dtype)) if whole else generator.standard_normal(shape).astype(str(info.dtype))

    return [array(info) for info in infos]


def _tensors(arrays: list[np.ndarray], device: Any) -> list[Any]:
    tvm = import_tvm()
    return [tvm.runtime.tensor(array, device) for array in arrays]
