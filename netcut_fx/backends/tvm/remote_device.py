"""A device that is reached through TVM's RPC tracker; where one disappears, the next of its kind takes over."""

from __future__ import annotations

import gc
import itertools
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from netcut_fx.backends.tvm.measuring import Place
from netcut_fx.backends.tvm.toolchain import import_tvm
from netcut_fx.errors import DeviceLost, SpecError
from netcut_fx.spec_text import one_line

_T = TypeVar("_T")

#: How often one call may lose its device: a kernel that crashes whatever runs it must not take all of them.
_ATTEMPTS = 3
#: A device that says nothing for so long is gone; so long one is waited for.
_SILENCE_S, _WAIT_S = 120.0, 60.0
#: A device or a tracker that is there answers a question so fast, and a new session is there so fast.
_ANSWER_S, _CONNECT_S = 10.0, 30.0
#: TVM's mode "threads bound to the fastest cores".
_BIG_CORES = 1


@dataclass(frozen=True)
class DeviceAddress:
    """Where a device is asked for.

    Parameters
    ----------
    host, port : str and int
        Of the tracker.
    key : str
        Kind of device, as its servers say it; devices of one key are taken to be alike.
    """

    host: str
    port: int
    key: str

    @classmethod
    def parse(cls, tracker: str, key: str) -> DeviceAddress:
        """Read ``HOST:PORT``.

        Raises
        ------
        SpecError
            If it is not that, or the key is empty.
        """
        host, _, port = tracker.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise SpecError(f"a tracker is named HOST:PORT, got '{tracker}'; write for instance 192.168.1.2:9190")
        if not key:
            raise SpecError(f"the tracker {tracker} needs to know which devices are meant; name them with --key")
        return cls(host, int(port), key)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class RemoteDevice:
    """Runs calls on one of the devices behind a tracker.

    Parameters
    ----------
    address : DeviceAddress
        Where.
    threads : int
        Threads that kernels use there.
    wait_s : float
        How long a device is waited for.
    """

    def __init__(self, address: DeviceAddress, threads: int = 1, wait_s: float = _WAIT_S) -> None:
        self.address = address
        self.threads = threads
        self.wait_s = wait_s
        self.lost = 0
        self._session: Any = None
        self._held: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def call(self, what: Callable[[Any], _T]) -> _T:
        """`what` of a session; where the device disappears meanwhile, again on the next one, from the beginning.

        Raises
        ------
        DeviceLost
            If no device is there, or three were lost by this call.
        Exception
            Whatever `what` raises on a device that still answers.
        """
        reason = ""
        for _ in range(_ATTEMPTS):
            session = self._connected()
            try:
                return _within(_SILENCE_S, lambda s=session: what(s))
            except Exception as error:
                if self._answers(session):
                    raise
                reason = one_line(error)
                self.release()
                self.lost += 1
        raise DeviceLost(
            f"{_ATTEMPTS} devices '{self.address.key}' of the tracker {self.address} were lost by the same call "
            f"({reason}); see what their servers say"
        )

    def held(self, owner: Any, make: Callable[[], _T]) -> _T:
        """What `make` puts on the device for `owner`, made once for each device that takes over."""
        if owner not in self._held:
            self._held[owner] = make()
        return self._held[owner]

    def release(self) -> None:
        """Let others have the device; the next call asks for one again."""
        self._held.clear()
        self._session = None
        # The connection ends with the last object that lives behind it.
        gc.collect()

    def _connected(self) -> Any:
        if self._session is None:
            self._session = self._request()
        return self._session

    def _request(self) -> Any:
        end, reason = time.monotonic() + self.wait_s, "none is free"
        while True:
            try:
                session = _within(_CONNECT_S, self._free_session)
                if session is not None:
                    return session
            except Exception as error:  # no tracker, or one that ends in the middle: asked again while there is time
                reason = one_line(error)
            if time.monotonic() >= end:
                raise DeviceLost(
                    f"no device '{self.address.key}' at the tracker {self.address} ({reason}); start one there: "
                    f"python -m tvm.exec.rpc_server --tracker {self.address} --key {self.address.key}"
                )
            time.sleep(min(1.0, max(0.05, end - time.monotonic())))

    def _free_session(self) -> Any | None:
        """A session on a device that serves nobody; None without one."""
        import_tvm()
        from tvm import rpc

        # TVM itself would try for a minute, and talk about it.
        socket.create_connection((self.address.host, self.address.port), timeout=_ANSWER_S).close()
        with closing(rpc.connect_tracker(self.address.host, self.address.port)) as tracker:
            # A request for a device that is not there would wait for ever.
            if not tracker.summary()["queue_info"].get(self.address.key, {}).get("free", 0):
                return None
            session = tracker.request(self.address.key, max_retry=1)
        # Pools of threads belong to the thread of the server that serves this session.
        session.get_function("runtime.config_threadpool")(_BIG_CORES, self.threads)
        return session

    def _answers(self, session: Any) -> bool:
        try:
            return _within(_ANSWER_S, lambda: int(session.get_function("runtime.NumThreads")())) > 0
        except Exception:
            return False


_numbers = itertools.count()


def sent(session: Any, library: bytes) -> Any:
    """The library, loaded on the device of `session`, where no file of it stays."""
    # A library of the same name would not be loaded again.
    name = f"netcut-{next(_numbers)}.so"
    session.upload(bytearray(library), name)
    loaded = session.load_module(name)
    session.remove(name)
    return loaded


def there(device: RemoteDevice) -> Place:
    """Let kernels be timed on `device`; see `netcut_fx.backends.tvm.measuring.here`."""

    def place(library: Any, work: Callable[[Any, Any], Any]) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "kernel.so"
            library.export_library(str(file))
            code = file.read_bytes()
        return device.call(lambda session: work(sent(session, code), session.cpu(0)))

    return place


def _within(seconds: float, what: Callable[[], _T]) -> _T:
    """`what`, or `TimeoutError`: a connection to a device that lost its power waits for ever.

    The thread that waits for it is left behind.
    """
    answers: queue.Queue[tuple[bool, Any]] = queue.Queue()

    def run() -> None:
        try:
            answers.put((True, what()))
        except BaseException as error:
            answers.put((False, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        done, value = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if not done:
        raise value
    return value
