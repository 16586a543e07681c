"""Serve a gated bundle with TVM's runtime alone: decide for each input, call one path."""

from __future__ import annotations

from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from netcut_fx.errors import BadBundle, SpecError
from netcut_fx.gating.gated_bundle import GatedBundle
from netcut_fx.spec_text import one_line
from netcut_fx.vm_loader import ALIGNMENT_BYTES, aligned_copy, load_executable, read_weights
from netcut_fx.vm_profile import KernelRounds

_CPU, _POOLED_ALLOCATOR = 1, 2


class LoadedGated:
    """A gated network with its weights; see `netcut_fx.vm_loader.LoadedNetwork`.

    Early features go from the entry to a path as they are. Scales are views of one array that the entry's numbers are
    copied into, so that nothing is made or converted for an input.

    Parameters
    ----------
    bundle : GatedBundle
        Checked by `read_gated_bundle` and `check_runs_here`.
    ffi : module
        What `load_runtime` returned for this bundle.

    Raises
    ------
    BadBundle
        If a library does not load or run.
    """

    def __init__(self, bundle: GatedBundle, ffi: ModuleType) -> None:
        self._ffi: Any = ffi
        self.program = bundle.program
        machines = [self._machine(bundle, number) for number in range(bundle.count)]
        self._mains = [machine["main"] for machine in machines]
        # tvm_ffi keeps views: the arrays live as long as this object does.
        self._weights = [read_weights(bundle.piece(number)[1]) for number in range(bundle.count)]
        self._input: NDArray[np.float32] = aligned_copy(np.zeros(bundle.manifest.input_shape, np.float32))
        self._entry = [self._tensor(array) for array in (self._input, *self._weights[0])]
        self._classes = bundle.manifest.output_shape[1]
        paths = bundle.program.paths
        self._budget = None if bundle.budget_ms is None else paths.budget(bundle.budget_ms)
        self._fill = bundle.fill
        try:
            numbers = _as_numpy(self._mains[0](*self._entry)[0])
            self._numbers = aligned_copy(np.zeros(numbers.shape[1], np.float32))
            self._arguments = [
                [self._tensor(array) for array in (*bundle.program.given(i, self._numbers), *self._weights[1 + i])]
                for i in range(len(paths.widths))
            ]
            found = {self.answer(path).shape for path in range(len(paths.widths))}
        except Exception as error:
            raise BadBundle(
                f"the pieces of the bundle {bundle.folder} do not run ({one_line(error)}); write the bundle again"
            ) from error
        if found != {bundle.manifest.output_shape}:
            raise BadBundle(
                f"the bundle {bundle.folder} answers {sorted(found)}, the manifest says "
                f"{bundle.manifest.output_shape}; write the bundle again"
            )

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, classes) of inputs (N, channels, height, width), one image at a time."""
        logits = np.empty((len(inputs), self._classes), np.float32)
        for i, image in enumerate(inputs):
            self._input[0] = image
            logits[i] = self.answer()[0]
        return logits

    def paths(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """The path (N,) that each input takes; the entry alone is run."""
        found = np.empty(len(inputs), np.int64)
        for i, image in enumerate(inputs):
            self._input[0] = image
            found[i] = self._choose(self._mains[0](*self._entry)[0])
        return found

    def call(self, path: int | None = None) -> None:
        """Run the network once on whatever was its last input, on the path that it takes or on a given one."""
        self.answer(path)

    def answer(self, path: int | None = None) -> NDArray[np.float32]:
        """Logits (1, classes) of the last input; a path that is given is taken after the choice was made."""
        numbers, early = self._mains[0](*self._entry)
        chosen = self._choose(numbers)
        if path is not None:
            chosen = path
        result = self._mains[1 + chosen](early, *self._arguments[chosen])
        return _as_numpy(result if hasattr(result, "__dlpack__") else result[0])

    def kernel_rounds(self, rounds: int) -> tuple[KernelRounds, ...]:
        """Refuse: which kernels run depends on the input."""
        raise SpecError("kernels of a gated network depend on the input; profile the network without gates")

    def _choose(self, numbers: Any) -> int:
        self._numbers[...] = _as_numpy(numbers)[0]
        return self.program.paths.choose(self._numbers[: self.program.total], self._budget, fill=self._fill)

    def _machine(self, bundle: GatedBundle, number: int) -> Any:
        library, _ = bundle.piece(number)
        machine = load_executable(self._ffi, library, bundle.manifest.files[library.name])
        machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR)
        return machine

    def _tensor(self, array: NDArray[Any]) -> Any:
        return self._ffi.from_dlpack(array, require_alignment=ALIGNMENT_BYTES)


def _as_numpy(tensor: Any) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", np.from_dlpack(tensor))
