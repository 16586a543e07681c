"""Serve a gated bundle with TVM's runtime alone: decide for each input, call only what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from netcut_fx.errors import BadBundle, SpecError
from netcut_fx.gating.dispatch import CellCalls, Dispatcher
from netcut_fx.gating.gated_bundle import GatedBundle
from netcut_fx.spec_text import one_line
from netcut_fx.vm_loader import ALIGNMENT_BYTES, aligned_copy, load_executable, read_weights
from netcut_fx.vm_profile import KernelRounds

_CPU, _POOLED_ALLOCATOR = 1, 2


class LoadedGated:
    """A gated network with its weights; see `netcut_fx.vm_loader.LoadedNetwork`.

    What one piece yields goes to the next as it is, without a copy.

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
        shapes = _scale_shapes(bundle)
        self._arrays: list[list[NDArray[Any]]] = []
        self._arguments: list[list[Any]] = []
        self._mains: list[Any] = []
        for number in range(bundle.count):
            library, params = bundle.piece(number)
            machine = load_executable(ffi, library, bundle.manifest.files[library.name])
            machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR)
            scales = [aligned_copy(np.ones(shape, np.float32)) for shape in shapes.get(number, ())]
            weights = read_weights(params)
            # tvm_ffi keeps views: the arrays live as long as this object does.
            self._arrays.append([*scales, *weights])
            self._arguments.append([self._tensor(array) for array in (*scales, *weights)])
            self._mains.append(machine["main"])
        self._input: NDArray[np.float32] = aligned_copy(np.zeros(bundle.manifest.input_shape, np.float32))
        self._image = self._tensor(self._input)
        self._classes = bundle.manifest.output_shape[1]
        budget = None if bundle.budget_ms is None else bundle.table.budget(bundle.budget_ms)
        self.dispatcher = Dispatcher(
            bundle.program, bundle.table, self._call, _as_numpy, budget=budget, fill=bundle.fill
        )
        #: Width of each cell for the last input.
        self.widths: tuple[int, ...] = ()
        try:
            found = self.answer().shape
        except Exception as error:
            raise BadBundle(
                f"the pieces of the bundle {bundle.folder} do not run ({one_line(error)}); write the bundle again"
            ) from error
        if found != bundle.manifest.output_shape:
            raise BadBundle(
                f"the bundle {bundle.folder} answers {found}, the manifest says {bundle.manifest.output_shape}; write "
                "the bundle again"
            )

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, classes) of inputs (N, channels, height, width), one image at a time."""
        logits = np.empty((len(inputs), self._classes), np.float32)
        for i, image in enumerate(inputs):
            self._input[0] = image
            logits[i] = self.answer()[0]
        return logits

    def call(self) -> None:
        """Run the network once on whatever was its last input."""
        self.answer()

    def answer(self) -> NDArray[np.float32]:
        """Logits (1, classes) of the last input."""
        logits, self.widths = self.dispatcher(self._image)
        return logits

    def kernel_rounds(self, rounds: int) -> tuple[KernelRounds, ...]:
        """Refuse: which kernels run depends on the input."""
        raise SpecError("kernels of a gated network depend on the input; profile the network without gates")

    def _call(self, index: int, value: Any, scales: Sequence[NDArray[np.float32]]) -> Any:
        for held, given in zip(self._arrays[index], scales, strict=False):
            held[...] = given
        result = self._mains[index](value, *self._arguments[index])
        return result if hasattr(result, "__dlpack__") else result[0]

    def _tensor(self, array: NDArray[Any]) -> Any:
        return self._ffi.from_dlpack(array, require_alignment=ALIGNMENT_BYTES)


def _as_numpy(tensor: Any) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", np.from_dlpack(tensor))


def _scale_shapes(bundle: GatedBundle) -> dict[int, tuple[tuple[int, ...], ...]]:
    """The shapes of the scales that each piece takes."""
    found: dict[int, tuple[tuple[int, ...], ...]] = {}
    for step in bundle.program.steps:
        if isinstance(step, CellCalls):
            found |= {n: step.scale_shapes[w] for w, n in step.variants.items() if n is not None}
    return found
