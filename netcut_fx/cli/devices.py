"""Which device a command measures on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netcut_fx.errors import SpecError

if TYPE_CHECKING:
    from netcut_fx.backends.base import Backend


def backend_for(target: str, threads: int, rpc: str | None, key: str) -> Backend:
    """TVM for this machine, or for the devices `key` behind the tracker `rpc`.

    Raises
    ------
    SpecError
        If a key is given without a tracker.
    """
    from netcut_fx import verbs

    if rpc is not None:
        return verbs.remote_backend(target, threads, rpc, key)
    if key:
        raise SpecError(f"--key {key} names devices of a tracker; say which with --rpc HOST:PORT")
    return verbs.tvm_backend(target, threads)
