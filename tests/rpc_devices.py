"""TVM's own RPC tracker and servers, as processes on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import psutil

from netcut_fx.backends.tvm.remote_device import DeviceAddress
from netcut_fx.backends.tvm.toolchain import import_tvm

KEY = "board"
_PATIENCE_S = 120.0


@dataclass
class Devices:
    """A tracker and the servers that it knows."""

    port: int
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    @property
    def address(self) -> DeviceAddress:
        """Where they are asked for."""
        return DeviceAddress("127.0.0.1", self.port, KEY)

    def free(self) -> int:
        """How many servers are there and serve nobody."""
        import_tvm()
        from tvm import rpc

        # TVM would wait for a tracker that is not there yet.
        socket.create_connection(("127.0.0.1", self.port)).close()
        with closing(rpc.connect_tracker("127.0.0.1", self.port)) as tracker:
            return int(tracker.summary()["queue_info"].get(KEY, {}).get("free", 0))

    def kill_busy(self) -> int:
        """Kill the servers that serve somebody, as a power cut does; how many."""
        busy = [server for server in self.servers if server.poll() is None and _sessions(server.pid)]
        for server in busy:
            kill(server)
        return len(busy)


def _sessions(pid: int) -> int:
    """How many sessions a server has: it starts one process that listens, and that one a process for each session."""
    server = psutil.Process(pid)
    return len(server.children(recursive=True)) - len(server.children())


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


@contextmanager
def devices(count: int) -> Generator[Devices]:
    """A tracker with `count` servers."""
    found = Devices(_free_port())
    module, here = "tvm.exec.rpc_", ("--host", "127.0.0.1", "--silent")
    tracker = _start(f"{module}tracker", *here, "--port", str(found.port), "--port-end", str(found.port + 1))
    try:
        for _ in range(count):
            port = _free_port()
            words = ("--port", str(port), "--port-end", str(port + 1), "--tracker", f"127.0.0.1:{found.port}")
            found.servers.append(_start(f"{module}server", *here, *words, "--key", KEY))
        end = time.monotonic() + _PATIENCE_S
        while _free_or_none(found) < count:
            assert time.monotonic() < end, "the servers did not come up"
            time.sleep(0.2)
        yield found
    finally:
        for process in (*found.servers, tracker):
            kill(process)


def _free_or_none(found: Devices) -> int:
    try:
        return found.free()
    except (OSError, RuntimeError):
        return -1


def _start(module: str, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
