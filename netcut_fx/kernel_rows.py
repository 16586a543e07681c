"""The kernels of an artefact as its manifest lists them: what each has to compute and to move."""

from __future__ import annotations

from typing import Any

from netcut_fx.backends.base import CompiledModule
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels


def kernel_rows(network: TracedModule, compiled: CompiledModule) -> list[dict[str, Any]]:
    """One JSON object for each kernel call of `compiled`, in execution order.

    Returns
    -------
    list of dict
        ``name``, ``key``, ``tuned``, ``flops`` and ``bytes``; the last two are None for a kernel that the compiler
        added, such as a change of layout.
    """
    known = {kernel.key: kernel for kernel in kernels(network)}
    return [
        {
            "name": call.name,
            "key": call.key,
            "tuned": call.tuned,
            "flops": known[call.key].flops if call.key in known else None,
            "bytes": known[call.key].bytes if call.key in known else None,
        }
        for call in compiled.kernels
    ]
