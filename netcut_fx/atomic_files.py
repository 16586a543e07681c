"""Files and folders that appear whole or not at all, and one clear error when the disk does not take them."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from netcut_fx.errors import NetcutError

# EFBIG is what a process meets at its file size limit (ulimit -f): for the user the same event as a full disk.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# AT_FDCWD and RENAME_EXCHANGE of Linux's renameat2.
_HERE, _EXCHANGE = -100, 2

#: How names of unfinished files and folders begin, those of a run's scratch folders too; whoever holds a folder's
#: lock may delete them.
PARTIAL_PREFIX = ".part-"


def partial_path(path: Path) -> Path:
    """A fresh name beside `path`, on the same file system, so that renaming it to `path` is atomic."""
    return path.with_name(f"{PARTIAL_PREFIX}{secrets.token_hex(6)}-{path.name}")


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`: whatever happens, the old file, the new one or none is there, never a part.

    Raises
    ------
    OSError
        As the system reports it; see `storage_error`.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path) -> Generator[BinaryIO, None, None]:
    """A file to write, which becomes `path` when the block ends and vanishes when the block fails."""
    partial = partial_path(path)
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def put_folder_in_place(partial: Path, folder: Path) -> None:
    """Rename `partial` to `folder`. A folder that is there already ends up under the name `partial`.

    On Linux the two change places in one step. Elsewhere, or on file systems that cannot do that, the old folder steps
    aside first, and a process killed between both renames leaves it under a third name beside `folder`.
    """
    if not folder.exists():
        partial.rename(folder)
    elif not _exchange(partial, folder):
        old = partial_path(folder)
        folder.rename(old)
        try:
            partial.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        old.rename(partial)
    sync_folder(folder.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders with Linux's renameat2; False where that does not exist."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return renameat2(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0


def sync_file(path: Path) -> None:
    """Force the bytes of a file that is already written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Force a rename in `folder` to the disk, where the file system can do that."""
    try:
        sync_file(folder)
    except OSError as error:
        # Network and FUSE file systems refuse fsync on folders; a full disk must still be heard.
        if error.errno in _FULL:
            raise


def storage_error(error: OSError, doing: str, *, safe: str) -> NetcutError:
    """The one line for a write that failed.

    Parameters
    ----------
    error : OSError
        What the system reported.
    doing : str
        What was being written and where, after "cannot": ``"write the bundle /x/y"``.
    safe : str
        What the user has not lost.
    """
    if error.errno in _FULL:
        return NetcutError(f"cannot {doing}: no space left on the device; {safe}. Free space and run it again")
    reason = error.strerror or str(error)
    return NetcutError(f"cannot {doing}: {reason}; {safe}. Choose a folder that can be written and run it again")


@contextmanager
def report_storage_errors(doing: str, *, safe: str) -> Generator[None, None, None]:
    """Turn every `OSError` of the block into `storage_error`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, safe=safe) from error
