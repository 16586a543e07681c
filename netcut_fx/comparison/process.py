"""The other end of `netcut_fx.comparison.worker`: a pinned process that is stopped while it is not asked anything."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

from netcut_fx import errors
from netcut_fx.errors import BackendError, NetcutError


class PinnedProcess:
    """An artefact that is served in a process of its own.

    Between requests the process is stopped (``SIGSTOP``): the threads of some runtimes wait for work in a loop, and
    would take the cores from whoever is timed next. It ends with the process that made it, however that ends.

    Parameters
    ----------
    name : str
        For error messages.
    job : mapping
        What to serve, see `netcut_fx.comparison.worker`.
    cores : sequence of int
        The process runs on these only.
    threads : int
        For runtimes that read the environment.

    Raises
    ------
    NetcutError
        Whatever kept it from being loaded.
    """

    def __init__(self, name: str, job: Mapping[str, Any], cores: Sequence[int], threads: int) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        count = str(threads)
        # -P: a random.py in the current folder is none of the worker's modules.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "netcut_fx.comparison.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count},
        )
        self._stopped = False
        try:
            self.ask({**job, "cores": list(cores), "threads": threads})
        except BaseException:
            self.close()
            raise

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request and wait for the answer.

        Raises
        ------
        NetcutError
            What the process says, or that it died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._signal(stop=False)
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BackendError(f"the process of {self.name} ended ({self._last_words()}); leave it out and try again")
        self._signal(stop=True)
        reply = cast("dict[str, Any]", json.loads(line))
        if "failure" in reply:
            raise BackendError(
                f"{self.name} fails ({reply['failure']}); leave it out, or give the network that the bundle was "
                "compiled from with --network"
            )
        if "error" in reply:
            kind = getattr(errors, str(reply["error"]), NetcutError)
            raise kind(reply["text"])
        return reply

    def close(self) -> None:
        """End the process; again is harmless."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _signal(self, *, stop: bool) -> None:
        if self._stopped != stop and hasattr(signal, "SIGSTOP"):
            self._process.send_signal(signal.SIGSTOP if stop else signal.SIGCONT)
            self._stopped = stop

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return " ".join((*(lines[-1:] or []), f"exit status {status}"))
