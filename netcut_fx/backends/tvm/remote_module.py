"""A compiled network on a remote device, run and timed through TVM's RPC."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from netcut_fx.backends.base import CompiledKernel, KernelTiming, Profile
from netcut_fx.backends.tvm.module import VIEW_MS, Built, places_of_kernels
from netcut_fx.backends.tvm.remote_device import RemoteDevice, sent
from netcut_fx.backends.tvm.toolchain import import_tvm, require_linker
from netcut_fx.errors import BackendError
from netcut_fx.measure import Stopwatch, Timer
from netcut_fx.target import Target

#: Before each round all arguments of a kernel leave the caches but the first: what the kernel before has written.
_AS_IN_A_NETWORK = "cache_flush_cpu_non_first_arg"

#: Shape and type of a tensor.
Spec = tuple[tuple[int, ...], str]


class RemoteModule:
    """A network compiled by TVM that runs on `device`; see `netcut_fx.backends.base.CompiledModule`.

    The library and the weights are sent to each device that takes over.
    """

    def __init__(self, built: Built, input_shape: tuple[int, ...], target: Target, device: RemoteDevice) -> None:
        require_linker()
        self.kernels: tuple[CompiledKernel, ...] = built.kernels
        self.input_shape = input_shape
        self.target = target
        self._device = device
        self._weights = built.weights
        self._calls = called_with(built.module)
        # Inside the program kernels have no address of their own: they are sent once more, to be timed alone.
        self._program = _library(built.executable)
        self._alone = _library(built.executable.mod.imports[0])

    def run(self, inputs: np.ndarray, *more: np.ndarray) -> np.ndarray:
        """Logits of one batch of the compiled shape, float32."""
        return self.run_all(inputs, *more)[0]

    def run_all(self, inputs: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        """All that the network returns."""
        if more:
            raise BackendError(
                f"a network on a remote device takes one input, got {1 + len(more)}; run it on this machine"
            )
        if tuple(inputs.shape) != self.input_shape:
            raise BackendError(
                f"compiled for inputs {self.input_shape}, got {tuple(inputs.shape)}; compile for that shape"
            )

        def answer(session: Any) -> tuple[np.ndarray, ...]:
            loaded = self._on(session)
            loaded.set_input(np.ascontiguousarray(inputs, np.float32))
            loaded.machine.invoke_stateful("main")
            result = loaded.machine.get_outputs("main")
            return tuple(tensor.numpy() for tensor in ((result,) if hasattr(result, "numpy") else result))

        return self._device.call(answer)

    def timer(self) -> Timer:
        """Runs the network n times on the device, timed there."""

        def timed(number: int) -> float:
            def seconds(session: Any) -> float:
                loaded = self._on(session)
                evaluator = loaded.machine.time_evaluator("invoke_stateful", loaded.device, number=number, repeat=1)
                return float(evaluator("main").results[0]) * number

            return self._device.call(seconds)

        return timed

    def profile(self, rounds: int = 50) -> Profile:
        """Time every kernel alone, weights out of the caches, and compare the sum with the network.

        Nothing of ours runs on the device that could look into the running network.
        """
        places = places_of_kernels(self.kernels, [name for name, _ in self._calls])
        known: dict[str, tuple[float, ...]] = {}
        for name, specs in self._calls:
            if name not in known:
                known[name] = self._device.call(lambda s, n=name, given=specs: self._on(s).kernel_ms(n, given, rounds))
        timings = tuple(
            KernelTiming(k.name, k.key, (VIEW_MS,) * rounds if i is None else known[self._calls[i][0]])
            for k, i in zip(self.kernels, places, strict=True)
        )
        whole = Stopwatch(repeat=9).measure_timer(self.timer()).ms
        return Profile(timings, max(0.0, whole - sum(float(np.median(t.samples_ms)) for t in timings)))

    def save(self, folder: Path) -> Mapping[str, Path]:
        """Refuse: a bundle is checked where it is written."""
        raise BackendError(
            f"a network measured on a remote device is not saved to {folder}; compile it on the device itself"
        )

    def _on(self, session: Any) -> _Loaded:
        """The network on the device of `session`, sent there if it is not there yet."""
        return self._device.held(
            self, lambda: _Loaded(session, self._program, self._alone, self._weights, self.input_shape)
        )


def _library(code: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "code.so"
        code.export_library(str(file))
        return file.read_bytes()


class _Loaded:
    """Library and weights on one device."""

    def __init__(
        self, session: Any, program: bytes, alone: bytes, weights: list[Any], input_shape: tuple[int, ...]
    ) -> None:
        tvm = import_tvm()
        from tvm import relax

        self.session, self.device = session, session.cpu(0)
        self._tensor = lambda array: tvm.runtime.tensor(array, self.device)
        self.machine = relax.VirtualMachine(sent(session, program), self.device)
        self._kernels = sent(session, alone)
        self._weights = [self._tensor(weight.numpy()) for weight in weights]
        self.set_input(np.zeros(input_shape, np.float32))

    def set_input(self, values: np.ndarray) -> None:
        """What the next runs answer to."""
        self.machine.set_input("main", self._tensor(values), *self._weights)

    def kernel_ms(self, name: str, specs: tuple[Spec, ...], rounds: int) -> tuple[float, ...]:
        """Milliseconds of each of `rounds` calls of a kernel."""
        generator = np.random.default_rng(0)
        arrays = [generator.standard_normal(shape).astype(dtype) for shape, dtype in specs]
        arguments = [self._tensor(array) for array in arrays]
        evaluator = self._kernels.time_evaluator(name, self.device, number=1, repeat=rounds, f_preproc=_AS_IN_A_NETWORK)
        return tuple(float(seconds) * 1e3 for seconds in evaluator(*arguments).results)


def called_with(module: Any) -> list[tuple[str, tuple[Spec, ...]]]:
    """Each kernel call of ``main`` with the tensors that it takes and writes, in execution order."""
    import_tvm()
    from tvm import relax

    found: list[tuple[str, tuple[Spec, ...]]] = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if not isinstance(value, relax.Call) or getattr(value.op, "name", "") != "relax.call_tir":
                continue
            out = value.ty_args[0]
            tensors = [*(arg.ty for arg in value.args[1].fields), *(out.fields if hasattr(out, "fields") else [out])]
            found.append((str(value.args[0].name_hint), tuple(_spec(tensor) for tensor in tensors)))
    return found


def _spec(tensor: Any) -> Spec:
    return tuple(int(n) for n in tensor.shape), str(tensor.dtype)
