"""Import TVM so that it works, and say which TVM it is."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import sys
import types
from typing import Any

from netcut_fx.backends.tvm.functions import use_vector_functions
from netcut_fx.errors import BackendError, SpecError, TargetMismatch
from netcut_fx.host import detect_host, isa_features
from netcut_fx.spec_text import did_you_mean
from netcut_fx.target import Target, detect, installed_versions, parse_target_spec

#: apache-tvm-ffi releases whose MetaSchedule mutators crash when they are initialised.
_BROKEN_FFI = ("0.1.15",)
#: What a block of threads may use on every CUDA GPU without asking for more.
_CUDA_LIMITS = {"max_threads_per_block": 1024, "max_shared_memory_per_block": 48 * 1024}


def import_tvm() -> Any:
    """The `tvm` module, with only the tensor intrinsics that the host needs.

    ``tvm.s_tir.tensor_intrin`` parses the intrinsics of every architecture, which takes about a minute in each process.
    MetaSchedule imports it unasked, so an empty package of that name is put in place first and only the host's own
    submodule is loaded into it.
    """
    try:
        import tvm
        import tvm.s_tir
    except ImportError as error:
        raise BackendError(
            f"TVM is not installed ({error}); install it with: pip install 'netcut-fx[build]'"
        ) from error
    name = "tvm.s_tir.tensor_intrin"
    if name not in sys.modules:
        ffi = importlib.metadata.version("apache-tvm-ffi")
        if ffi.startswith(_BROKEN_FFI):
            raise BackendError(
                f"apache-tvm-ffi {ffi} crashes while tuning; install apache-tvm-ffi==0.1.14.post1 beside "
                f"apache-tvm {tvm.__version__}"
            )
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(os.path.dirname(tvm.__file__), "s_tir", "tensor_intrin")]
        sys.modules[name] = package
        tvm.s_tir.tensor_intrin = package
        machine = detect_host().arch
        if machine in ("x86_64", "AMD64"):
            importlib.import_module(f"{name}.x86")
        elif machine in ("aarch64", "arm64"):
            importlib.import_module(f"{name}.arm_cpu")
        use_vector_functions()
    return tvm


def toolchain_versions() -> tuple[tuple[str, str], ...]:
    """Versions that decide which code comes out, as (name, version) pairs."""
    from tvm.target.codegen import llvm_version_major

    import_tvm()
    return installed_versions(llvm=str(llvm_version_major()))


def resolve_target(spec: str = "native", threads: int = 1) -> Target:
    """The `Target` of a SPEC of a CPU such as ``native``, ``llvm`` or ``llvm -mcpu=znver4``.

    Raises
    ------
    SpecError
        If the kind or the CPU name does not exist.
    TargetMismatch
        If this machine cannot run code for it, so that nothing could be measured.
    """
    import_tvm()
    from tvm.target.codegen import (
        llvm_get_cpu_archlist,
        llvm_get_cpu_features,
        llvm_get_system_cpu,
    )

    host = detect_host()
    kind, options = parse_target_spec(spec)
    if kind != "llvm":
        raise SpecError(f"target {kind} is no CPU; use native or 'llvm -mcpu=NAME'")
    if not 1 <= threads <= host.cores:
        raise SpecError(f"threads must be between 1 and the {host.cores} cores of this machine, got {threads}")
    native = str(llvm_get_system_cpu())
    mcpu = options.get("mcpu", native)
    known = [str(name) for name in llvm_get_cpu_archlist(_llvm_target(native, threads))]
    if mcpu not in known:
        raise SpecError(
            f"the compiler knows no {host.arch} CPU '{mcpu}', as target '{spec}' asks for; {did_you_mean(mcpu, known)}"
        )

    def offered_by(name: str) -> list[str]:
        return list(isa_features(str(f) for f in llvm_get_cpu_features(_llvm_target(name, threads))))

    missing = sorted(set(offered_by(mcpu)) - set(offered_by(native)))
    if missing:
        raise TargetMismatch(
            f"this machine ({host.cpu_model}, {native}) cannot run code for {mcpu}: it lacks {', '.join(missing)}; use "
            "--target native, or run on the device itself"
        )
    features = None if mcpu == native else offered_by(mcpu)
    return detect(spec, threads, mcpu=native, features=features, toolchain=toolchain_versions())


def resolve_remote_target(spec: str, threads: int, key: str) -> Target:
    """The `Target` of a SPEC on devices that a tracker calls `key`, of this machine's architecture.

    Raises
    ------
    SpecError
        If the kind or the CPU name does not exist, or `spec` names none: this machine's is not the device's.
    """
    import_tvm()
    from tvm.target.codegen import llvm_get_cpu_archlist, llvm_get_cpu_features, llvm_get_system_cpu

    kind, options = parse_target_spec(spec)
    host = detect_host()
    if kind != "llvm" or threads < 1:
        raise SpecError(
            f"a remote device needs a target 'llvm -mcpu=NAME' and 1 thread or more, got '{spec}' and {threads}"
        )
    mcpu = options.get("mcpu", str(llvm_get_system_cpu()) if spec == "native" else "")
    known = [str(name) for name in llvm_get_cpu_archlist(_llvm_target(str(llvm_get_system_cpu()), threads))]
    if mcpu not in known:
        raise SpecError(f"the compiler knows no {host.arch} CPU '{mcpu}' for '{key}'; {did_you_mean(mcpu, known)}")
    features = isa_features(str(f) for f in llvm_get_cpu_features(_llvm_target(mcpu, threads)))
    return Target(kind, mcpu, host.arch, f"remote: {key}", features, threads, toolchain_versions(), host.system)


def require_linker() -> None:
    """Raise `BackendError` if there is no C++ compiler, which TVM links libraries with."""
    import_tvm()
    from tvm.support.cc import get_cc

    found = get_cc()
    if found is None or shutil.which(found) is None:
        named = f"{found}, which CXX or CC names, is not there" if found else "there is none on PATH"
        raise BackendError(f"a bundle is linked by a C++ compiler, and {named}; install g++, or name a compiler in CXX")


def host_target(target: Target) -> Any:
    """What code is made for that runs here, on the way to code for `target`."""
    here = detect_host()
    return tvm_target(target) if target.cpu_model == here.cpu_model else _llvm_target("", target.threads)


def tvm_target(target: Target) -> Any:
    """`target` in TVM's own words."""
    if target.kind == "cuda":
        options = {"kind": "cuda", "arch": target.mcpu, "host": {"kind": "llvm"}, **_CUDA_LIMITS}
        return import_tvm().target.Target(options)
    return _llvm_target(target.mcpu, target.threads)


def _llvm_target(mcpu: str, threads: int) -> Any:
    named = {"mcpu": mcpu} if mcpu else {}
    return import_tvm().target.Target({"kind": "llvm", **named, "num-cores": threads})


def limit_threads(threads: int) -> None:
    """Fix how many threads TVM's pool uses when this thread calls a kernel."""
    from tvm_ffi import get_global_func

    from netcut_fx.vm_threads import own_thread_pool

    import_tvm()
    own_thread_pool(threads, get_global_func)
