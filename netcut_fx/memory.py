"""How much memory may still be used, and the refusal to use more."""

from __future__ import annotations

from pathlib import Path

import psutil

from netcut_fx.errors import DataError

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Memory that is free to use, a container's limit included."""
    available = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            available = min(available, int(limit) - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no control group of version 2: the machine's memory is the limit
        pass
    return max(available, 0)


def check_memory(needed_bytes: int, what: str, cure: str) -> None:
    """Refuse what does not fit, before it is allocated.

    Raises
    ------
    DataError
        ``<what> needs N GB but M GB of memory are free; <cure>``.
    """
    available = available_bytes()
    if needed_bytes > available:
        raise DataError(f"{what} needs {_size(needed_bytes)} but {_size(available)} of memory are free; {cure}")


def _size(count_bytes: int) -> str:
    return f"{count_bytes / 1e9:.1f} GB" if count_bytes >= 1e9 else f"{count_bytes / 1e6:.1f} MB"
