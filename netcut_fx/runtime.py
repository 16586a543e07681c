"""Run a bundle: `load(folder).predict(images)`, with numpy, Pillow, safetensors and tvm_ffi, never torch or tvm."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netcut_fx.bundle import Bundle, read_bundle
from netcut_fx.errors import DataError, NetcutError, SpecError, TargetMismatch
from netcut_fx.gating.gated_bundle import GatedBundle, is_gated, read_gated_bundle
from netcut_fx.gating.serving import LoadedGated
from netcut_fx.host import usable_cores
from netcut_fx.manifest import Manifest
from netcut_fx.prediction import Prediction, softmax
from netcut_fx.preprocess import Preprocess, read_image
from netcut_fx.target import check_runs_here
from netcut_fx.vm_loader import LoadedNetwork, load_runtime
from netcut_fx.vm_profile import KernelRounds
from netcut_fx.vm_threads import own_thread_pool

#: One image: an array (H, W, 3), (H, W, 1) or (H, W) of uint8, a Pillow image, or the path of an image file.
ImageLike = NDArray[np.uint8] | Image.Image | Path | str

# About so many images are resized and normalised at a time: memory stays bounded, and Ctrl-C is heard in between.
_CHUNK = 32

_T = TypeVar("_T")


def load(folder: Path | str, *, any_cpu: bool = False) -> Runtime:
    """Load a bundle after checking every file's hash and that it was made for this machine.

    Parameters
    ----------
    folder : path
        Of the bundle.
    any_cpu : bool
        Accept a machine with another CPU model or fewer cores than the bundle was measured on; it must still have every
        instruction set that the code may use. As many threads are used as there are cores, at most.

    Raises
    ------
    BadBundle
        If a file is missing or was changed.
    TargetMismatch
        If it was made for another machine.
    BackendError
        If apache-tvm-ffi is missing or does not fit.
    """
    bundle = read_gated_bundle(folder) if is_gated(folder) else read_bundle(folder)
    return Runtime(bundle, any_cpu=any_cpu)


class Runtime:
    """A network ready to run; get it from `load`.

    The network runs in a thread of its own that owns a pool of exactly `threads` threads (itself included). So
    several runtimes with different thread counts work side by side, any number of threads may call one runtime (calls
    queue up), and the caller's own thread keeps its cores. After ``os.fork`` a child starts a thread of its own.
    """

    def __init__(self, bundle: Bundle, *, any_cpu: bool = False) -> None:
        target = bundle.manifest.target
        try:
            if target.kind != "llvm":
                raise TargetMismatch(
                    f"it was compiled for {target.kind}, this runtime drives CPUs; compile it for llvm"
                )
            check_runs_here(target, strict=not any_cpu)
        except TargetMismatch as error:
            raise TargetMismatch(f"cannot load the bundle {bundle.folder}: {error}") from error
        self._bundle = bundle
        self._threads = min(target.threads, usable_cores())
        # Whole batches: only the last one is computed with images missing.
        self._chunk = bundle.manifest.batch * max(1, _CHUNK // bundle.manifest.batch)
        self._ffi: Any = load_runtime(bundle)
        self._closed = False
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        _alive.add(self)
        self._network: LoadedNetwork | LoadedGated
        if isinstance(bundle, GatedBundle):
            self._network = self._submit(LoadedGated, bundle, self._ffi)
        else:
            self._network = self._submit(LoadedNetwork, bundle, self._ffi)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self._bundle.manifest

    @property
    def folder(self) -> Path:
        """Of the bundle."""
        return self._bundle.folder

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self._threads

    def predict(self, images: NDArray[np.uint8] | ImageLike | Sequence[ImageLike]) -> Prediction:
        """Classify images; resizing and normalising are the bundle's own.

        Parameters
        ----------
        images : array, Pillow image, path, or a sequence of these
            uint8 (N, H, W, 3), (N, H, W, 1) or (N, H, W), one image (H, W, 3), (H, W, 1) or (H, W), or a sequence of
            images that may differ in size. None at all (N = 0) gives an empty prediction. N may be any number: they
            are computed in batches of `manifest.batch`, the last one filled up where there are too few.

        Raises
        ------
        DataError
            If an array has another type or shape, or a file is no image.
        NetcutError
            If the network answers NaN or infinity.
        """
        if not isinstance(images, (np.ndarray, Sequence)) or isinstance(images, str):
            images = [images]
        if isinstance(images, np.ndarray) and (images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (1, 3))):
            images = images[None]
        logits = np.empty((len(images), self.manifest.output_shape[1]), np.float32)
        preprocess = self.manifest.preprocess
        if isinstance(images, np.ndarray) and len(images) == 0:
            preprocess.resize(images)  # says what is wrong with type or shape, also where there is no image
        for start in range(0, len(images), self._chunk):
            chunk = images[start : start + self._chunk]
            if not isinstance(chunk, np.ndarray):
                chunk = np.stack([_resized(preprocess, image, start + i) for i, image in enumerate(chunk)])
            logits[start : start + self._chunk] = self._run(preprocess(chunk))
        bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if bad.size:
            raise NetcutError(
                f"the network in {self.folder} answers NaN or infinity for image {bad[0]} ({bad.size} of "
                f"{len(logits)}): its weights are damaged: train and compile it again"
            )
        indices = logits.argmax(axis=1).astype(np.int64)
        labels = tuple(self.manifest.labels[i] for i in indices)
        return Prediction(labels, indices, softmax(logits), logits)

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the network answers to preprocessed inputs, as it is.

        Parameters
        ----------
        inputs : float32 array (N, channels, height, width)
            N may be 0.

        Returns
        -------
        float32 array (N, classes)

        Raises
        ------
        DataError
            If type or shape is another.
        """
        wanted = self.manifest.input_shape[1:]
        if not isinstance(cast(object, inputs), np.ndarray) or inputs.dtype != np.float32:
            found = getattr(inputs, "dtype", type(inputs).__name__)
            raise DataError(f"inputs are {found}, expected a float32 array; convert them with .astype('float32')")
        if inputs.ndim != 4 or inputs.shape[1:] != wanted:
            raise DataError(f"inputs have shape {inputs.shape}, the network reads (N, {', '.join(map(str, wanted))})")
        parts = [self._run(inputs[i : i + self._chunk]) for i in range(0, max(len(inputs), 1), self._chunk)]
        return np.concatenate(parts)

    def paths(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """The path (N,) that each input takes through a gated network; `SpecError` for one without gates."""
        if not isinstance(self._network, LoadedGated):
            raise SpecError(f"{self.folder} holds a network without gates; every input takes the same path")
        return self._submit(self._network.paths, inputs)

    def warm_up(self, runs: int = 3) -> None:
        """Run the network so often that caches are filled and the clock has risen."""
        self.timer()(runs)

    def measure(self, runs: int = 100) -> tuple[float, ...]:
        """Milliseconds of `runs` single runs of the network alone, a batch each, after a warm-up; no preprocessing.

        Raises
        ------
        SpecError
            If `runs` is below 1.
        """
        if runs < 1:
            raise SpecError(f"measuring needs at least 1 run, got {runs}")
        self.warm_up(min(runs, 10))
        return tuple(self._submit(_time_each, self._network, runs))

    def profile(self, rounds: int = 50) -> tuple[KernelRounds, ...]:
        """Name and milliseconds in each round of every kernel that the network calls, in execution order.

        Raises
        ------
        SpecError
            If `rounds` is below 1.
        """
        if rounds < 1:
            raise SpecError(f"profiling needs at least 1 round, got {rounds}")
        return self._submit(self._network.kernel_rounds, rounds)

    def timer(self, path: int | None = None) -> Callable[[int], float]:
        """For `netcut_fx.measure.Stopwatch`: runs the network n times, on `path` if it is gated; gives the seconds."""

        def timed(number: int) -> float:
            return self._submit(_time, self._network, number, path)

        return timed

    def close(self) -> None:
        """Free the threads; again is harmless, and so is leaving it to the garbage collector."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Runtime({self.manifest.name!r}, {len(self.manifest.labels)} classes, {self.threads} threads)"

    def _run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._submit(self._network.run, inputs)

    def _submit(self, call: Callable[..., _T], *arguments: object) -> _T:
        """Do `call` in the thread of its own."""
        with self._lock:
            if self._closed:
                raise NetcutError(f"the runtime of {self.folder} was closed; load the bundle again")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="netcut")
                self._pool.submit(own_thread_pool, self._threads, self._ffi.get_global_func).result()
            job = self._pool.submit(call, *arguments)
        return job.result()

    def _after_fork(self) -> None:
        """A child process has the memory but not the threads, and perhaps a lock that nobody will ever release."""
        self._lock = threading.Lock()
        self._pool = None


_alive: weakref.WeakSet[Runtime] = weakref.WeakSet()


def _renew_all() -> None:
    for runtime in list(_alive):
        runtime._after_fork()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


def _time(network: LoadedNetwork | LoadedGated, number: int, path: int | None = None) -> float:
    call = network.call if path is None or isinstance(network, LoadedNetwork) else partial(network.call, path)
    start = time.perf_counter()
    for _ in range(number):
        call()
    return time.perf_counter() - start


def _time_each(network: LoadedNetwork | LoadedGated, runs: int) -> list[float]:
    """Milliseconds of single runs, one straight after the other."""
    return [_time(network, 1) * 1e3 for _ in range(runs)]


def _resized(preprocess: Preprocess, image: object, index: int) -> NDArray[np.uint8]:
    if isinstance(image, (str, Path)):
        image = read_image(Path(image))
    if not isinstance(image, (np.ndarray, Image.Image)):
        raise DataError(f"image {index} is a {type(image).__name__}, expected a uint8 array, a Pillow image or a path")
    try:
        return preprocess.resize_one(cast("NDArray[np.uint8] | Image.Image", image))
    except DataError as error:
        raise DataError(f"image {index}: {error}") from error
