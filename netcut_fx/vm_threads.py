"""A pool of exactly n threads for compiled code, for one Python thread alone.

TVM keeps one pool per calling thread, made at that thread's first parallel loop, and decides its size from the
environment (``TVM_NUM_THREADS``, else half of the logical cores). Asking for n threads later only ever takes some of
that pool, and binds the caller and the workers to the first cores of the machine. Naming n cores before the first use
sizes the pool instead (TVM's ``threading::Configure`` sets the limit of the calling thread before it makes the pool);
afterwards every thread is given back the cores that the process may use, so that two programs do not meet on the same.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from pathlib import Path
from typing import Any

from netcut_fx.errors import BackendError

# TVM's mode "these cores, shared by all threads".
_SHARE_CORES = -3

_THREADS = Path("/proc/self/task")

_names = (f"netcut-{number}" for number in itertools.count(1))


def own_thread_pool(threads: int, global_function: Any) -> str:
    """Give the calling Python thread its own pool of `threads` threads, itself being one of them.

    Call it in a thread that has run no compiled code yet: a pool cannot grow.

    Parameters
    ----------
    threads : int
        At least 1.
    global_function : callable
        ``tvm_ffi.get_global_func``.

    Returns
    -------
    str
        Name of the pool's other system threads, as ``top -H`` shows them; ``""`` where threads have none.

    Raises
    ------
    BackendError
        If the calling thread has a smaller pool already.
    """
    if not sys.platform.startswith("linux"):
        _configure(threads, list(range(os.cpu_count() or 1)), global_function)
        return ""
    allowed = sorted(os.sched_getaffinity(0))
    name = next(_names)
    # Threads inherit the name of the thread that makes them: so the workers are found without guessing.
    own_name = _THREADS / str(threading.get_native_id()) / "comm"
    before = own_name.read_text()
    own_name.write_text(name)
    try:
        _configure(threads, allowed, global_function)
        for worker in named_threads(name):
            os.sched_setaffinity(worker, allowed)
    finally:
        own_name.write_text(before)
    return name


def named_threads(name: str) -> list[int]:
    """System ids of this process's threads that have `name`."""
    found: list[int] = []
    for task in _THREADS.iterdir():
        try:
            if (task / "comm").read_text().strip() == name:
                found.append(int(task.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def _configure(threads: int, cores: list[int], global_function: Any) -> None:
    chosen = [str(cores[i % len(cores)]) for i in range(threads)]
    global_function("runtime.config_threadpool")(_SHARE_CORES, threads, chosen)
    found = int(global_function("runtime.NumThreads")())
    if found != threads:
        raise BackendError(
            f"this thread has a pool of {found} threads already and {threads} were asked for; run the network in a "
            "thread of its own"
        )
