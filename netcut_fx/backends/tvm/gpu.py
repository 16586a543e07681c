"""NVIDIA GPUs: which one there is, and where networks compiled for it run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from netcut_fx.backends.tvm.measuring import Place, here
from netcut_fx.backends.tvm.toolchain import import_tvm, toolchain_versions
from netcut_fx.errors import TargetMismatch
from netcut_fx.host import detect_host
from netcut_fx.target import Target

_T = TypeVar("_T")


def gpu_target(arch: str = "") -> Target:
    """The `Target` of this machine's first GPU.

    Parameters
    ----------
    arch : str
        What code is generated for, ``"sm_80"``; the GPU's own by default.

    Raises
    ------
    TargetMismatch
        If there is no GPU, so that nothing could be measured, or it is older than `arch`.
    """
    gpu = import_tvm().cuda(0)
    if not gpu.exist:
        raise TargetMismatch(
            "target cuda needs an NVIDIA GPU with its driver, and TVM finds none on this machine; use --target native, "
            "or run on the machine that has it"
        )
    own = "sm_" + str(gpu.compute_version).replace(".", "")
    if arch and _generation(arch) > _generation(own):
        raise TargetMismatch(f"this GPU ({gpu.device_name}, {own}) cannot run code for {arch}; use --target cuda")
    host = detect_host()
    return Target("cuda", arch or own, host.arch, str(gpu.device_name), (), 1, toolchain_versions(), host.system)


def _generation(arch: str) -> int:
    return int("".join(c for c in arch if c.isdigit()) or 0)


def device_of(target: Target) -> Any:
    """The `tvm.runtime.Device` that code for `target` runs on, here."""
    tvm = import_tvm()
    return tvm.cuda(0) if target.kind == "cuda" else tvm.cpu()


def place_of(target: Target) -> Place:
    """Where kernels for `target` are timed, here."""
    return on_gpu if target.kind == "cuda" else here


def on_gpu(library: Any, work: Callable[[Any, Any], _T]) -> _T:
    """Let `work` use `library` on this machine's GPU."""
    return work(library, import_tvm().cuda(0))
