"""Compile a lowered network with the best records, run it, time its kernels, save it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netcut_fx.backends.base import CompiledKernel, KernelTiming, Profile
from netcut_fx.backends.tvm.gpu import device_of
from netcut_fx.backends.tvm.lower import LoweredModule, kernel_calls, run_weight_function
from netcut_fx.backends.tvm.neighbours import warm_order
from netcut_fx.backends.tvm.records import open_records
from netcut_fx.backends.tvm.schedules.candidates import candidates, scheduled
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.toolchain import import_tvm, limit_threads, require_linker, tvm_target
from netcut_fx.backends.tvm.trial_log import Trial, TrialLog
from netcut_fx.backends.tvm.workload_kinds import workload_of
from netcut_fx.errors import BackendError
from netcut_fx.measure import Timer
from netcut_fx.ops import normalise_op_name
from netcut_fx.spec_text import one_line
from netcut_fx.target import Target

_WARM_UP_ROUNDS = 3
#: What is written down for a kernel that the compiler turned into a view: nothing runs, but no time is ever zero.
VIEW_MS = 1e-6


class TvmModule:
    """A network compiled by TVM; see `netcut_fx.backends.base.CompiledModule`."""

    def __init__(
        self,
        executable: Any,
        weights: list[Any],
        kernels: tuple[CompiledKernel, ...],
        input_shape: tuple[int, ...],
        target: Target,
        more_shapes: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        tvm = import_tvm()
        from tvm import relax

        self._executable = executable
        self._device = device_of(target)
        self._weights = weights if target.kind == "llvm" else [tvm.runtime.tensor(w, self._device) for w in weights]
        self.kernels = kernels
        self.input_shape = input_shape
        self.target = target
        limit_threads(target.threads)
        self._machine = relax.VirtualMachine(executable, self._device)
        self._input = tvm.runtime.tensor(np.zeros(input_shape, np.float32), self._device)
        self._more = [tvm.runtime.tensor(np.ones(shape, np.float32), self._device) for shape in more_shapes]
        # A saved call spares the conversion of a hundred weight arguments in every call.
        self._machine.save_function("main", "run", self._input, *self._more, *self._weights)

    def run(self, inputs: np.ndarray, *more: np.ndarray) -> np.ndarray:
        """Logits of one batch of the compiled shape, float32."""
        return self.run_all(inputs, *more)[0]

    def run_all(self, inputs: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        """All that the network returns."""
        if tuple(inputs.shape) != self.input_shape:
            raise BackendError(
                f"compiled for inputs {self.input_shape}, got {tuple(inputs.shape)}; compile for that shape"
            )
        self._input.copyfrom(np.ascontiguousarray(inputs, np.float32))
        for tensor, given in zip(self._more, more, strict=True):
            tensor.copyfrom(np.ascontiguousarray(given, np.float32))
        result = self._machine["run"]()
        return tuple(tensor.numpy() for tensor in ((result,) if hasattr(result, "numpy") else result))

    def timer(self) -> Timer:
        """Runs the network n times, for `Stopwatch`."""
        function, device = self._machine["run"], self._device

        def timed(number: int) -> float:
            start = time.perf_counter()
            for _ in range(number):
                function()
            device.sync()  # a GPU is still at work when the call returns
            return time.perf_counter() - start

        return timed

    def profile(self, rounds: int = 50) -> Profile:
        """Time every kernel while the network runs, caches as they really are.

        A second interpreter calls back before and after each kernel. What a call back costs is the same for each kernel
        (its arguments are converted within the time stamps), so it is found from the whole: rounds of the plain and of
        the observed network alternate, and what the kernels seem to take longer than the plain network is subtracted
        from each of them in equal parts. Where they take less, the rest is overhead between them.
        """
        from tvm import relax

        started, device = [0.0], self._device
        samples: list[tuple[str, float]] = []

        def instrument(_function: Any, name: Any, before: bool, _result: Any, *_arguments: Any) -> int:
            device.sync()
            if before:
                started[0] = time.perf_counter()
            else:
                samples.append((str(name), (time.perf_counter() - started[0]) * 1e3))
            return 0

        observed = relax.VirtualMachine(self._executable, device)
        observed.save_function("main", "run", self._input, *self._more, *self._weights)
        observed.set_instrument(instrument)
        function, plain = observed["run"], self.timer()
        names: list[str] = []
        table: list[list[float]] = []
        wholes: list[float] = []
        for round_index in range(rounds + _WARM_UP_ROUNDS):
            seconds = min(plain(1), plain(1))
            samples.clear()
            function()
            if round_index < _WARM_UP_ROUNDS:
                continue
            kernels = [(name, ms) for name, ms in samples if not name.startswith("vm.builtin.")]
            names = [name for name, _ in kernels]
            table.append([ms for _, ms in kernels])
            wholes.append(seconds * 1e3)
        called = places_of_kernels(self.kernels, names)
        whole = statistics.median(wholes)
        excess = sum(statistics.median(column) for column in zip(*table, strict=True)) - whole
        cost = max(0.0, excess) / max(1, len(names))
        timings = tuple(
            KernelTiming(kernel.name, kernel.key, (VIEW_MS,) * len(table))
            if i is None
            # No kernel is left with less than half of what was seen: the cost is an average.
            else KernelTiming(kernel.name, kernel.key, tuple(max(row[i] - cost, row[i] / 2) for row in table))
            for kernel, i in zip(self.kernels, called, strict=True)
        )
        return Profile(timings, max(0.0, -excess), tuple(wholes))

    def save(self, folder: Path) -> Mapping[str, Path]:
        """Write the library, the runtime it needs, and the prepared weights; say where they are."""
        from safetensors.numpy import save_file

        tvm = import_tvm()
        if self.target.kind != "llvm":
            raise BackendError(f"a network compiled for {self.target.kind} cannot be saved: the runtime drives CPUs")
        require_linker()
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
                f"cannot link {files['library']} ({one_line(error)}); see that g++ can link a shared library here"
            ) from error
        save_file({f"p{i:04d}": w.numpy() for i, w in enumerate(self._weights)}, str(files["params"]))
        return files


def places_of_kernels(kernels: tuple[CompiledKernel, ...], names: list[str]) -> list[int | None]:
    """Place of each kernel among the calls that were seen; None for one that the chosen layout made a view."""
    places: list[int | None] = []
    done = 0
    for kernel in kernels:
        seen = done < len(names) and _operations(names[done]) == _operations(kernel.name)
        places.append(done if seen else None)
        done += seen
    if done != len(names):
        raise BackendError(
            f"the compiled program called {names[done]}, which is not among its kernels; report this with the model"
        )
    return places


def _operations(name: str) -> tuple[str, ...]:
    """Operations of a function; packing weights renames and renumbers it."""
    return normalise_op_name(name.partition("_prepacked")[0])


@dataclass(frozen=True)
class Built:
    """A network as machine code, not loaded yet.

    Parameters
    ----------
    executable : tvm.relax.VMExecutable
        Code.
    module : tvm.IRModule
        What it was generated from.
    weights : list of tvm.runtime.Tensor
        In the layouts that its kernels read.
    kernels : tuple of CompiledKernel
        Calls in execution order.
    """

    executable: Any
    module: Any
    weights: list[Any]
    kernels: tuple[CompiledKernel, ...]


def compile_lowered(
    lowered: LoweredModule,
    target: Target,
    records: Path | None,
    input_shape: tuple[int, ...],
    *more_shapes: tuple[int, ...],
) -> TvmModule:
    """Build, and load it in this process."""
    built = build_lowered(lowered, target, records)
    return TvmModule(built.executable, built.weights, built.kernels, input_shape, target, more_shapes)


def build_lowered(lowered: LoweredModule, target: Target, records: Path | None) -> Built:
    """Apply the best records, pack the weights into the layouts they chose, generate code."""
    tvm = import_tvm()
    from tvm import relax
    from tvm.relax import transform

    with tvm_target(target):
        module = transform.AttachAttrLayoutFreeBuffers()(lowered.module)
        if records is not None and records.exists():
            with open_records(records, [f for f in module.functions.values() if not isinstance(f, relax.Function)]):
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
        machine = Machine.for_schedules(target)
        if machine is not None:
            known = {} if records is None else TrialLog(records).by_workload()
            module = apply_first_candidates(module, machine, known)
        # On a GPU, `tvm.compile` gives TVM's own default schedules to what has no record.
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
    return Built(executable, module, weights, kernels)


def apply_first_candidates(module: Any, machine: Machine, known: Mapping[str, Sequence[Trial]] | None = None) -> Any:
    """Schedule every kernel that no record was applied to as tuning would first try it, given what is `known`."""
    tvm = import_tvm()
    from tvm import relax

    changed = tvm.IRModule(dict(module.functions.items()), attrs=module.attrs)
    for var, function in module.functions.items():
        if isinstance(function, relax.Function) or bool(function.attrs.get("tirx.is_scheduled", False)):
            continue
        schedule = warm_schedule(function, machine, known or {})
        if schedule is not None:
            changed[var] = schedule.mod["main"].with_attr("tirx.is_scheduled", True)
    return changed


def warm_schedule(function: Any, machine: Machine, known: Mapping[str, Sequence[Trial]]) -> Any | None:
    """Our own schedule of a kernel that is best as far as its neighbours tell; None where we have none."""
    tvm = import_tvm()
    own = {candidate.name: candidate for candidate in candidates(function, machine)}
    order = tuple(own)
    if own and known:
        order = warm_order(order, workload_of(tvm.IRModule({"main": function})), known)
    for name in order:
        try:
            return scheduled(function, own[name])
        except (tvm.s_tir.ScheduleError, tvm.error.InternalError):
            continue
    return None
