"""Torch eager behind the backend protocol: the reference, and what tests of everything above run on."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from cost_models import Kernel
from netcut_fx.backends.base import CompiledKernel, KernelTiming, Profile, Progress, TuneReport
from netcut_fx.errors import BackendError
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.measure import Stopwatch, Timer, python_timer
from netcut_fx.passes import prepare_pipeline
from netcut_fx.target import Target, detect


class EagerBackend:
    """Runs networks as torch does, kernel by kernel in the order of our own kernel list."""

    name = "eager"

    def __init__(self, threads: int = 1) -> None:
        self._target = detect("native", threads)

    @property
    def target(self) -> Target:
        """The machine it runs on."""
        return self._target

    def kernels(self, traced: TracedModule) -> Sequence[CompiledKernel]:
        """Our own kernel list."""
        return _listed(kernels(traced))

    def tune(
        self,
        traced: TracedModule,
        *,
        trials: int,
        database: Path,
        seed: int = 0,
        progress: Progress | None = None,
        minutes: float | None = None,
        seeds: bool = True,
    ) -> TuneReport:
        """Nothing to search for."""
        return TuneReport(len({k.key for k in kernels(traced)}), 0, 0, 0, 0.0)

    def compile(self, traced: TracedModule, *, database: Path | None = None) -> EagerModule:
        """Prepare the graph."""
        return EagerModule(traced)


class EagerModule:
    """A prepared graph that runs in torch; see `netcut_fx.backends.base.CompiledModule`."""

    def __init__(self, traced: TracedModule) -> None:
        self._network = kernels(traced)
        self.kernels = _listed(self._network)
        self._prepared = prepare_pipeline()(traced)
        self._shapes = [spec.shape for spec in traced.input_specs]
        self._examples = [torch.zeros(shape) for shape in self._shapes]

    def run(self, inputs: np.ndarray, *more: np.ndarray) -> np.ndarray:
        """Logits of one batch."""
        return self.run_all(inputs, *more)[0]

    @torch.inference_mode()
    def run_all(self, inputs: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        """All that it returns."""
        for given, shape in zip((inputs, *more), self._shapes, strict=True):
            if tuple(given.shape) != shape:
                raise BackendError(f"prepared for inputs {shape}, got {tuple(given.shape)}; prepare for that shape")
        tensors = [torch.from_numpy(np.ascontiguousarray(given)) for given in (inputs, *more)]
        result = self._prepared.graph_module(*tensors)
        return tuple(t.numpy() for t in ((result,) if isinstance(result, torch.Tensor) else result))

    def timer(self) -> Timer:
        """Runs the network n times."""

        @torch.inference_mode()
        def call() -> None:
            self._prepared.graph_module(*self._examples)

        return python_timer(call)

    def profile(self, rounds: int = 20) -> Profile:
        """Time each node, and give each kernel the time of the nodes it computes."""
        owner = {origin: i for i, kernel in enumerate(self._network) for origin in kernel.origin}
        samples: list[list[float]] = [[] for _ in self._network]
        whole = Stopwatch(repeat=5).measure_timer(self.timer()).ms
        with torch.inference_mode():
            for _ in range(rounds):
                clock = _NodeClock(self._prepared.graph_module)
                clock.run(*self._examples)
                shares: defaultdict[int, float] = defaultdict(float)
                for name, ms in clock.ms.items():
                    if name in owner:
                        shares[owner[name]] += ms
                for i, values in enumerate(samples):
                    values.append(max(shares[i], 1e-6))
        timings = tuple(
            KernelTiming(k.name, k.key, tuple(values)) for k, values in zip(self.kernels, samples, strict=True)
        )
        return Profile(timings, max(0.0, whole - sum(float(np.median(values)) for values in samples)))

    def save(self, folder: Path) -> Mapping[str, Path]:
        """Refuse: there is no library."""
        raise BackendError("torch eager makes no library to bundle; compile with the tvm backend")


class _NodeClock(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.ms: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        start = time.perf_counter()
        value = super().run_node(n)
        self.ms[n.meta["qualname"]] = (time.perf_counter() - start) * 1e3
        return value


def _listed(network: Sequence[Kernel]) -> tuple[CompiledKernel, ...]:
    return tuple(CompiledKernel(k.origin[-1] if k.origin else k.key, k.key, True) for k in network)
