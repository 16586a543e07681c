"""Load TVM's runtime library and a compiled network with it, without tvm's Python and without torch."""

from __future__ import annotations

import ctypes
import importlib
import sys
import tempfile
import threading
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from netcut_fx.bundle import RUNTIME_FILE, Bundle, parameter_order, sha256_of
from netcut_fx.errors import BackendError, BadBundle, TargetMismatch
from netcut_fx.spec_text import one_line
from netcut_fx.vm_profile import KernelRounds, kernel_rounds

#: Compiled code uses aligned vector loads: an array that starts elsewhere ends the process with a segmentation fault.
ALIGNMENT_BYTES = 64

_CPU, _POOLED_ALLOCATOR = 1, 2

_loading = threading.RLock()
_loaded_libraries: dict[Path, str] = {}


def aligned_copy(array: NDArray[Any]) -> NDArray[Any]:
    """A C-contiguous, writable copy whose data starts at a multiple of `ALIGNMENT_BYTES`."""
    buffer = np.empty(array.nbytes + ALIGNMENT_BYTES, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT_BYTES
    copy = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class LoadedNetwork:
    """A compiled network with its weights, run once. To be made and called by one thread at a time.

    Parameters
    ----------
    bundle : Bundle
        Checked by `read_bundle` and `check_runs_here`.
    ffi : module
        What `load_runtime` returned for this bundle.

    Raises
    ------
    BadBundle
        If library and weights do not fit each other or the manifest.
    """

    def __init__(self, bundle: Bundle, ffi: ModuleType) -> None:
        manifest = bundle.manifest
        self._ffi: Any = ffi
        self._bundle = bundle
        machine = self._load_library(bundle)
        self._input: NDArray[np.float32] = aligned_copy(np.zeros(manifest.input_shape, np.float32))
        # tvm_ffi keeps views: the arrays live as long as this object does.
        self._weights = read_weights(bundle.params)
        self._arguments = [self._tensor(array) for array in (self._input, *self._weights)]
        self._classes = manifest.output_shape[1]
        try:
            machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR)
            self._main: Any = machine["main"]
            found = self._answer().shape
        except Exception as error:
            raise BadBundle(
                f"the network in {bundle.library} does not run with its weights ({one_line(error)}); write the bundle "
                "again"
            ) from error
        if found != manifest.output_shape:
            raise BadBundle(
                f"the network in {bundle.library} answers {found}, the manifest says {manifest.output_shape}; write "
                "the bundle again"
            )

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, classes) of inputs (N, channels, height, width), as many at a time as the library computes."""
        logits = np.empty((len(inputs), self._classes), np.float32)
        batch = len(self._input)
        for start in range(0, len(inputs), batch):
            images = inputs[start : start + batch]
            # What is left over from earlier images beside too few is computed again, and nobody looks at it.
            self._input[: len(images)] = images
            logits[start : start + batch] = self._answer()[: len(images)]
        return logits

    def call(self) -> None:
        """Run the network once on whatever was its last input."""
        self._main(*self._arguments)

    def kernel_rounds(self, rounds: int) -> tuple[KernelRounds, ...]:
        """Milliseconds of every kernel call, see `netcut_fx.vm_profile.kernel_rounds`."""
        machine = self._load_library(self._bundle)
        machine["vm_initialization"](_CPU, 0, _POOLED_ALLOCATOR)
        main = machine["main"]
        return kernel_rounds(machine, self._ffi.convert, lambda: main(*self._arguments), self.call, rounds)

    def _answer(self) -> NDArray[np.float32]:
        result = self._main(*self._arguments)
        tensor = result if hasattr(result, "__dlpack__") else result[0]
        return cast("NDArray[np.float32]", np.from_dlpack(tensor))

    def _tensor(self, array: NDArray[Any]) -> Any:
        return self._ffi.from_dlpack(array, require_alignment=ALIGNMENT_BYTES)

    def _load_library(self, bundle: Bundle) -> Any:
        return load_executable(self._ffi, bundle.library, bundle.manifest.files[bundle.library.name])


def load_executable(ffi: Any, library: Path, digest: str) -> Any:
    """Load a compiled library, whose SHA-256 is `digest`.

    The system loads a path once: other bytes under a path used before come through a copy.

    Raises
    ------
    BadBundle
        If it does not load.
    """
    path = library.resolve()
    with _loading:
        try:
            if _loaded_libraries.setdefault(path, digest) == digest:
                return ffi.load_module(str(path))["vm_load_executable"]()
            with tempfile.TemporaryDirectory(prefix="netcut-") as folder:
                copy = Path(folder) / f"{digest}.so"
                copy.write_bytes(path.read_bytes())
                return ffi.load_module(str(copy))["vm_load_executable"]()
        except Exception as error:
            raise BadBundle(
                f"cannot load {path} ({one_line(error)}); write the bundle again on this machine"
            ) from error


def load_runtime(bundle: Bundle) -> ModuleType:
    """Load the bundle's runtime library, once per process, and return `tvm_ffi`.

    Raises
    ------
    BackendError
        If apache-tvm-ffi is missing or the runtime library does not load.
    TargetMismatch
        If this process runs another TVM runtime already.
    """
    with _loading:
        ffi = import_ffi(dict(bundle.manifest.target.toolchain).get("apache-tvm-ffi", ""))
        expected = bundle.manifest.files[RUNTIME_FILE]
        if ffi.get_global_func("runtime.config_threadpool", allow_missing=True) is None:
            path = _installed_twin(expected) or bundle.runtime_library
            try:
                ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
            except OSError as error:
                raise BackendError(f"cannot load {path} ({one_line(error)}); {_install(bundle)}") from error
            return ffi
        loaded = _loaded_runtime()
        if loaded is not None and loaded.is_file() and sha256_of(loaded) != expected:
            raise TargetMismatch(
                f"this process runs the TVM runtime {loaded} already, the bundle {bundle.folder} brings another one; "
                "load it in a process of its own"
            )
        return ffi


def import_ffi(version: str = "") -> ModuleType:
    """Import `tvm_ffi` without the torch that it imports where it finds one (a second, and half a gigabyte).

    While it is imported, ``import torch`` fails in every thread of this process; afterwards it works as before.
    """
    with _loading:
        loaded = sys.modules.get("tvm_ffi")
        if loaded is not None:
            return loaded
        hide = "torch" not in sys.modules
        if hide:
            cast("dict[str, ModuleType | None]", sys.modules)["torch"] = None
        try:
            return importlib.import_module("tvm_ffi")
        except ImportError as error:
            wanted = f"apache-tvm-ffi=={version}" if version else "apache-tvm-ffi"
            raise BackendError(
                f"running a bundle needs tvm_ffi ({error}); install it with: pip install {wanted}"
            ) from error
        finally:
            if hide and sys.modules.get("torch") is None:
                sys.modules.pop("torch", None)


def _installed_twin(expected: str) -> Path | None:
    """The runtime library of an installed tvm if it is byte for byte the bundle's.

    The system then knows both under one path, and the process may ``import tvm`` later; a second copy would end it.
    """
    found = PathFinder.find_spec("tvm")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = Path(folder) / "lib" / RUNTIME_FILE
        if path.is_file() and sha256_of(path) == expected:
            return path
    return None


def _loaded_runtime() -> Path | None:
    """Path of the runtime library that this process has mapped, where the system tells."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.endswith(f"/{RUNTIME_FILE}"):
            return Path(line.split(maxsplit=5)[5])
    return None


def _install(bundle: Bundle) -> str:
    version = dict(bundle.manifest.target.toolchain).get("apache-tvm-ffi")
    return f"install apache-tvm-ffi=={version}, which it was built with" if version else "compile the network again"


def read_weights(path: Path) -> list[NDArray[Any]]:
    """Weights in the order of the library's arguments. Raises `BadBundle` if they cannot be read."""
    try:
        with safe_open(path, framework="np") as file:
            return [aligned_copy(file.get_tensor(name)) for name in parameter_order(file.keys())]
    except (SafetensorError, OSError) as error:
        raise BadBundle(f"cannot read the weights {path} ({one_line(error)}); copy the bundle again") from error
