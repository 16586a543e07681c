"""The folder of a long job: one run at a time, finished steps kept whatever happens."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from netcut_fx.atomic_files import PARTIAL_PREFIX, atomic_write, report_storage_errors
from netcut_fx.canonical_json import canonical_json
from netcut_fx.errors import Busy, SpecError
from netcut_fx.stage import Stage

__all__ = ["Stage", "Workspace", "atomic_write"]

_LOCK_FILE = ".lock"
_HOLDER_FILE = ".holder.json"
_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,80}")

_logger = logging.getLogger(__name__)


class Workspace:
    """Holds a folder for one run, as a context manager or until `close`.

    The lock is the kernel's (``flock``): it goes with the process however that ends, so a killed run never blocks the
    next one.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    warn : callable, optional
        Is given one line when a stored result is damaged; logs it by default.
    shared : bool
        No lock: several processes of one run work in the folder, and that run holds the lock of another folder.

    Raises
    ------
    Busy
        If another run holds the folder; names the folder and the process.
    NetcutError
        If the folder cannot be made or written.
    """

    def __init__(self, folder: Path | str, *, warn: Callable[[str], None] | None = None, shared: bool = False) -> None:
        self.folder = Path(folder).absolute()
        self._warn = _logger.warning if warn is None else warn
        self._stages = self.folder / "stages"
        #: Checkpoints of retraining.
        self.training = self.folder / "training"
        with report_storage_errors(f"use the folder {self.folder}", safe="what it holds is untouched"):
            self._stages.mkdir(parents=True, exist_ok=True)
            self._lock: FileLock | None = None
            if shared:
                return
            # Not a singleton: a second workspace on the folder in one process must be refused as well.
            lock = FileLock(self.folder / _LOCK_FILE, timeout=0, thread_local=False, is_singleton=False)
            try:
                lock.acquire()
            except Timeout as error:
                raise Busy(_busy_line(self.folder)) from error
            try:
                atomic_write(self.folder / _HOLDER_FILE, canonical_json({"pid": os.getpid()}).encode("ascii"))
                self._sweep()
            except BaseException:
                lock.release()
                raise
            self._lock = lock

    def stage(self, name: str, key: Mapping[str, Any]) -> Stage:
        """The place of one step's result.

        Parameters
        ----------
        name : str
            Of the step: letters, digits, ``_ . + -``.
        key : mapping
            Everything that decides the result, JSON values only.

        Raises
        ------
        SpecError
            If `name` cannot be part of a file name, or `key` holds what JSON does not have.
        """
        if not _STAGE_NAME.fullmatch(name):
            raise SpecError(f"'{name}' is no name for a stage; use up to 80 letters, digits and _ . + -")
        try:
            # A copy through JSON: what the caller changes in `key` later does not change the stage.
            own: dict[str, Any] = json.loads(canonical_json(dict(key)))
        except (TypeError, ValueError) as error:
            raise SpecError(f"the key of stage '{name}' holds no JSON value: {error}; use text and numbers") from error
        return Stage(self._stages, name, own, self._warn)

    def close(self) -> None:
        """Let the next run have the folder; again is harmless."""
        if self._lock is not None and self._lock.is_locked:
            (self.folder / _HOLDER_FILE).unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _sweep(self) -> None:
        """Delete what a killed run left unfinished; with the lock held, nobody is still writing it.

        Every temporary file and folder of a run has a name that begins with `PARTIAL_PREFIX`.
        """
        for folder in (self.folder, self._stages, self.training):
            for path in folder.glob(f"{PARTIAL_PREFIX}*"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _busy_line(folder: Path) -> str:
    cure = "wait for it to end, or choose another folder"
    try:
        pid = int(json.loads((folder / _HOLDER_FILE).read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"another run is using the folder {folder}; {cure}"
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except OSError:
        return (
            f"the folder {folder} is held by processes that process {pid} started before it ended; end them, or {cure}"
        )
    return f"the folder {folder} is in use by process {pid}; {cure}"
