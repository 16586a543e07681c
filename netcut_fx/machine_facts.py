"""What the analytical cost model has to know of this machine: vector width and caches."""

from __future__ import annotations

from pathlib import Path

from cost_models import Machine
from netcut_fx.host import detect_host
from netcut_fx.target import Target

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
#: Threads of a GPU that do the same at once.
_WARP = 32
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}


def machine_of(target: Target, caches: Path = _CACHES) -> Machine:
    """The processor of `target`; caches of another machine, or that the system does not tell, have usual sizes."""
    if target.kind == "cuda":
        return Machine(_WARP)
    lanes = 16 if "avx512f" in target.features else 8 if "avx" in target.features else 4
    sizes = data_caches(caches) if target.cpu_model == detect_host().cpu_model else ()
    return Machine(lanes, sizes or Machine().cache_bytes, target.threads)


def data_caches(folder: Path) -> tuple[int, ...]:
    """Sizes in bytes, smallest first, as Linux lists them below `folder`; empty where it does not."""
    sizes: set[int] = set()
    for index in folder.glob("index*"):
        try:
            kind = (index / "type").read_text(encoding="ascii").strip()
            size = (index / "size").read_text(encoding="ascii").strip()
            number = int(size.rstrip("KMG")) * _UNITS.get(size[-1], 1)
        except (OSError, ValueError, IndexError):
            continue
        if kind in ("Data", "Unified") and number > 0:
            sizes.add(number)
    return tuple(sorted(sizes))
