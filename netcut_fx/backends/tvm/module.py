"""Compile a lowered network with the best records, run it, time its kernels, save it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from netcut_fx.backends.base import CompiledKernel, KernelTiming, Profile
from netcut_fx.backends.tvm.lower import LoweredModule, kernel_calls, run_weight_function
from netcut_fx.backends.tvm.records import open_records
from netcut_fx.backends.tvm.toolchain import import_tvm, limit_threads, tvm_target
from netcut_fx.errors import BackendError
from netcut_fx.measure import Stopwatch, Timer
from netcut_fx.target import Target


class TvmModule:
    """A network compiled by TVM; see `netcut_fx.backends.base.CompiledModule`."""

    def __init__(
        self,
        executable: Any,
        weights: list[Any],
        kernels: tuple[CompiledKernel, ...],
        input_shape: tuple[int, ...],
        target: Target,
    ) -> None:
        tvm = import_tvm()
        from tvm import relax

        self._executable = executable
        self._weights = weights
        self.kernels = kernels
        self.input_shape = input_shape
        self.target = target
        limit_threads(target.threads)
        self._machine = relax.VirtualMachine(executable, tvm.cpu())
        self._input = tvm.runtime.tensor(np.zeros(input_shape, np.float32))
        # A saved call spares the conversion of a hundred weight arguments in every call.
        self._machine.save_function("main", "run", self._input, *weights)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Logits of one batch of the compiled shape, float32."""
        if tuple(inputs.shape) != self.input_shape:
            raise BackendError(
                f"compiled for inputs {self.input_shape}, got {tuple(inputs.shape)}; compile for that shape"
            )
        self._input.copyfrom(np.ascontiguousarray(inputs, np.float32))
        result = self._machine["run"]()
        return (result if hasattr(result, "numpy") else result[0]).numpy()

    def timer(self) -> Timer:
        """Runs the network n times, for `Stopwatch`."""
        function = self._machine["run"]

        def timed(number: int) -> float:
            start = time.perf_counter()
            for _ in range(number):
                function()
            return time.perf_counter() - start

        return timed

    def profile(self, rounds: int = 50) -> Profile:
        """Time every kernel while the network runs, caches as they really are.

        The interpreter calls back before and after each kernel; what the callback itself costs falls outside the two
        time stamps but for about a microsecond, which is measured on the interpreter's own trivial calls and
        subtracted.
        """
        started = [0.0]
        samples: list[tuple[str, float]] = []

        def instrument(_function: Any, name: Any, before: bool, _result: Any, *_arguments: Any) -> int:
            if before:
                started[0] = time.perf_counter()
            else:
                samples.append((str(name), (time.perf_counter() - started[0]) * 1e3))
            return 0

        function = self._machine["run"]
        timer = self.timer()
        whole = Stopwatch(repeat=7).measure_timer(timer).ms
        table: list[list[float]] = []
        names: list[str] = []
        trivial: list[float] = []
        self._machine.set_instrument(instrument)
        try:
            for round_index in range(rounds + 3):
                samples.clear()
                function()
                if round_index < 3:
                    continue
                trivial.extend(ms for name, ms in samples if name == "vm.builtin.null_value")
                kernels = [(name, ms) for name, ms in samples if not name.startswith("vm.builtin.")]
                names = [name for name, _ in kernels]
                table.append([ms for _, ms in kernels])
        finally:
            self._machine.set_instrument(lambda *_: 0)
        floor = statistics.median(trivial) if trivial else 0.0
        keys = [kernel.key for kernel in self.kernels]
        if len(names) != len(keys):
            raise BackendError(
                f"the compiled program called {len(names)} kernels, {len(keys)} were expected; report this with "
                "the model"
            )
        timings = tuple(
            KernelTiming(name, key, tuple(max(row[i] - floor, 1e-6) for row in table))
            for i, (name, key) in enumerate(zip(names, keys, strict=True))
        )
        total = sum(statistics.median(t.samples_ms) for t in timings)
        if total > whole:
            # The callbacks disturb the caches: what the kernels take together with them, they do not take without.
            share = whole / total
            timings = tuple(KernelTiming(t.name, t.key, tuple(ms * share for ms in t.samples_ms)) for t in timings)
            total = whole
        return Profile(timings, whole - total)

    def save(self, folder: Path) -> Mapping[str, Path]:
        """Write the library, the runtime it needs, and the prepared weights; say where they are."""
        from safetensors.numpy import save_file

        tvm = import_tvm()
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            "library": folder / "lib.so",
            "runtime_library": Path(tvm.__file__).parent / "lib" / "libtvm_runtime.so",
            "params": folder / "params.safetensors",
        }
        try:
            self._executable.export_library(str(files["library"]))
        except OSError:
            raise
        except Exception as error:
            raise BackendError(
                f"cannot link {files['library']}: {' '.join(str(error).split())[:200]}; is g++ installed?"
            ) from error
        save_file({f"p{i:04d}": w.numpy() for i, w in enumerate(self._weights)}, str(files["params"]))
        return files


def compile_lowered(
    lowered: LoweredModule, target: Target, records: Path | None, input_shape: tuple[int, ...]
) -> TvmModule:
    """Apply the best records, pack the weights into the layouts they chose, generate code."""
    tvm = import_tvm()
    from tvm import relax
    from tvm.relax import transform

    with tvm_target(target):
        module = transform.AttachAttrLayoutFreeBuffers()(lowered.module)
        if records is not None and records.exists():
            with open_records(records):
                module = transform.MetaScheduleApplyDatabase()(module)
        scheduled = {
            str(var.name_hint)
            for var, function in module.functions.items()
            if not isinstance(function, relax.Function)
            and function.attrs is not None
            and bool(function.attrs.get("tirx.is_scheduled", False))
        }
        # Passes rename functions, so the calls are read again.
        kernels = tuple(
            CompiledKernel(call.function, lowered_call.key, call.function in scheduled)
            for call, lowered_call in zip(kernel_calls(module), lowered.calls, strict=True)
        )
        module = tvm.transform.Sequential(
            [transform.SplitLayoutRewritePreproc(), transform.LiftTransformParams(), transform.FoldConstant()]
        )(module)
    weights = lowered.weights
    if any(str(var.name_hint) == "main_transform_params" for var in module.functions):
        weights = run_weight_function(module, weights, target)
        del module["main_transform_params"]
        module = transform.DeadCodeElimination(["main"])(module)
    try:
        executable = tvm.compile(module, target=tvm_target(target))
    except Exception as error:
        raise BackendError(f"TVM failed to generate code: {' '.join(str(error).split())[-300:]}") from error
    return TvmModule(executable, weights, kernels, input_shape, target)
