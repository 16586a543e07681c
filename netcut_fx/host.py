"""What machine this is: architecture, CPU, the instruction sets it offers, the cores this process may use."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from netcut_fx.errors import SpecError

#: Instruction sets that decide whether compiled code runs, as Linux spells them. LLVM's spellings are understood too.
ISA_FEATURES: tuple[str, ...] = (
    *("sse3", "ssse3", "sse4_1", "sse4_2", "popcnt", "bmi1", "bmi2", "f16c", "fma", "avx", "avx2"),
    *("avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl", "avx512ifma", "avx512vbmi", "avx512_vbmi2"),
    *("avx512_vnni", "avx512_bitalg", "avx512_vpopcntdq", "avx512_bf16", "avx512_fp16", "avx512_vp2intersect"),
    *("avx_vnni", "avx_ifma", "avx_vnni_int8", "avx_ne_convert", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2", "sme", "rvv"),
)

_OTHER_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {"pni": "sse3", "bmi": "bmi1", "neon": "asimd", "dotprod": "asimddp", "fullfp16": "asimdhp", "v": "rvv"}
)

_MACHINES: Mapping[str, str] = MappingProxyType({"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"})


def _squashed(name: str) -> str:
    return name.lower().lstrip("+").replace("_", "").replace("-", "").replace(".", "")


_BY_SQUASHED: Mapping[str, str] = MappingProxyType({_squashed(name): name for name in ISA_FEATURES})


def isa_features(names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that are in `ISA_FEATURES`, in Linux's spelling, sorted, each once.

    Parameters
    ----------
    names : iterable of str
        Flags as ``/proc/cpuinfo`` or LLVM writes them: ``sse4_2`` and ``sse4.2``, ``avx512_vnni`` and ``avx512vnni``.
    """
    found = {_BY_SQUASHED.get(_squashed(_OTHER_SPELLINGS.get(name.lower().lstrip("+"), name))) for name in names}
    return tuple(sorted(name for name in found if name is not None))


@dataclass(frozen=True)
class Host:
    """A machine.

    Parameters
    ----------
    arch : str
        ``"x86_64"``, ``"aarch64"``, ...
    cpu_model : str
        Name with family, model and stepping (or implementer, part and variant) where the system tells them.
    features : tuple of str
        Of `ISA_FEATURES`, sorted; empty where the system does not tell.
    cores : int
        Logical cores that this process may use.
    system : str
        ``"Linux"``, ``"Darwin"``, ``"Windows"``.
    """

    arch: str
    cpu_model: str
    features: tuple[str, ...]
    cores: int
    system: str = "Linux"


def detect_host() -> Host:
    """The machine this process runs on."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    arch = _MACHINES.get(platform.machine().lower(), platform.machine().lower())
    return read_cpuinfo(cpuinfo, arch=arch, cores=usable_cores(), system=platform.system())


def usable_cores() -> int:
    """Logical cores that this process may use, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def pinned_cores(threads: int) -> list[int]:
    """The cores to pin a measurement with so many threads to: the last ones that this process may use.

    The system's own work tends to run on the first.

    Raises
    ------
    SpecError
        If there are fewer cores than threads.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = sorted(affinity(0)) if affinity is not None else list(range(os.cpu_count() or 1))
    if not 1 <= threads <= len(cores):
        raise SpecError(f"threads must be between 1 and the {len(cores)} cores of this machine, got {threads}")
    return cores[-threads:]


def read_cpuinfo(text: str, *, arch: str, cores: int, system: str = "Linux") -> Host:
    """A `Host` from the text of ``/proc/cpuinfo`` (its first processor), x86 and ARM; empty text gives no features."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            # ARM boards put the name of the board after all processors; the first occurrence is the first processor's.
            fields.setdefault(key.strip().lower(), value.strip())
    flags = f"{fields.get('flags', '')} {fields.get('features', '')}".split()
    name = fields.get("model name") or platform.processor() or arch
    numbers = [
        f"{label} {fields[key]}"
        for label, key in (
            *(("family", "cpu family"), ("model", "model"), ("stepping", "stepping")),
            *(("implementer", "cpu implementer"), ("part", "cpu part"), ("variant", "cpu variant")),
        )
        if fields.get(key)
    ]
    model = f"{name} ({', '.join(numbers)})" if numbers else name
    return Host(arch, model, isa_features(flags), cores, system)
