"""One stored result of a long job: found again only under the very same key, and only if its bytes are whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from netcut_fx.atomic_files import (
    atomic_file,
    atomic_write,
    partial_path,
    put_folder_in_place,
    report_storage_errors,
    storage_error,
    sync_file,
)
from netcut_fx.canonical_json import canonical_json, canonical_sha256
from netcut_fx.spec_text import one_line

Arrays = Mapping[str, NDArray[Any]]

_HEADER = "header"
_STAGE_FILE = "stage.json"

# A folder without its stage.json, a folder where a file should be, a sector that cannot be read, an impossible offset:
# damage. Anything else (no permission, too many open files) says nothing about the stored result.
_DAMAGED_ERRORS = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.EINVAL)

_T = TypeVar("_T")


class _DamagedError(Exception):
    """A stored result cannot be trusted; the text says why."""


@dataclass(frozen=True)
class Stage:
    """A place for one result; get it from `Workspace.stage`.

    A result is stored under a name that contains the SHA-256 of its key, holds the key in full, and is returned only
    where that key equals this one in full. A damaged result is set aside with a warning and counts as absent. Nothing
    but results is ever stored: a step that fails leaves nothing.

    Parameters
    ----------
    folder : Path
        Where the workspace keeps stages.
    name : str
        Of the step.
    key : mapping
        Everything that decides the result, JSON values only: inputs, code version, toolchain versions, target.
    warn : callable
        Is given one line when a damaged result is set aside.
    """

    folder: Path
    name: str
    key: Mapping[str, Any]
    warn: Callable[[str], None]

    @property
    def path(self) -> Path:
        """Where the result is, without its suffix (``.json``, ``.npz``, none for a folder)."""
        return self.folder / f"{self.name}-{canonical_sha256(dict(self.key))}"

    def load(self) -> Any | None:
        """The JSON value that `save` stored, or None."""
        return self._trusted(self.path.with_name(f"{self.path.name}.json"), self._read_value)

    def save(self, value: Any) -> None:
        """Store a JSON value other than None.

        Raises
        ------
        NetcutError
            If it cannot be written; results that are stored already stay.
        TypeError, ValueError
            If `value` is None or no JSON value (NaN is none).
        """
        if value is None:
            raise ValueError(f"stage '{self.name}' cannot store None, which stands for 'not there'")
        stored = {**self._identity(), "sha256": canonical_sha256(value), "value": value}
        with self._reporting():
            atomic_write(self.path.with_name(f"{self.path.name}.json"), (canonical_json(stored) + "\n").encode("ascii"))

    def load_arrays(self) -> dict[str, NDArray[Any]] | None:
        """The arrays that `save_arrays` stored, or None."""
        return self._trusted(self.path.with_name(f"{self.path.name}.npz"), self._read_arrays)

    def save_arrays(self, arrays: Arrays) -> None:
        """Store named arrays of numbers or booleans as npz, without pickle; see `save` for errors.

        Any text may be a name.
        """
        for name, array in arrays.items():
            if array.dtype.hasobject:
                raise TypeError(f"stage '{self.name}' cannot store array '{name}' of type {array.dtype}")
        # An npz names arrays as np.savez names arguments and a zip its members: not every name would survive that.
        stored: dict[str, NDArray[Any]] = {f"array{i}": array for i, array in enumerate(arrays.values())}
        facts = {**self._identity(), "names": list(arrays), "sha256": _arrays_sha256(arrays)}
        stored[_HEADER] = np.frombuffer(canonical_json(facts).encode("ascii"), np.uint8)
        with self._reporting(), atomic_file(self.path.with_name(f"{self.path.name}.npz")) as file:
            np.savez(file, allow_pickle=False, **stored)

    def load_folder(self) -> Path | None:
        """The folder that `save_folder` stored, every file as it was then, or None."""
        return self._trusted(self.path, self._read_folder)

    def save_folder(self, write: Callable[[Path], object]) -> Path:
        """Store a folder: `write` fills an empty one, which then appears under its name in one step.

        What `write` raises passes through, and nothing is stored; an `OSError` becomes a `NetcutError`.
        """
        partial = partial_path(self.path)
        with self._reporting():
            try:
                partial.mkdir()
                write(partial)
                files = _folder_sha256(partial)
                atomic_write(
                    partial / _STAGE_FILE, canonical_json({**self._identity(), "files": files}).encode("ascii")
                )
                for name in files:
                    sync_file(partial / name)
                put_folder_in_place(partial, self.path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return self.path

    def _identity(self) -> dict[str, Any]:
        return {"stage": self.name, "key": dict(self.key)}

    def _reporting(self) -> AbstractContextManager[None]:
        return report_storage_errors(
            f"save the result of '{self.name}' in {self.folder}",
            safe="the steps finished before it are stored there and will be reused",
        )

    def _trusted(self, path: Path, read: Callable[[Path], _T]) -> _T | None:
        if not path.exists():
            return None
        try:
            return read(path)
        # The decoders of zip and npy raise many types for damaged bytes, zlib.error and struct.error among them.
        except Exception as error:
            if isinstance(error, OSError) and error.errno not in _DAMAGED_ERRORS:
                raise storage_error(error, f"read {path}", safe="it is kept as it is") from error
            aside = _free_name(path)
            with self._reporting():
                os.replace(path, aside)
            self.warn(
                f"stored result {path.name} of '{self.name}' is damaged ({one_line(error, longest=120)}); it is set "
                f"aside as {aside.name} and computed again"
            )
            return None

    def _check_identity(self, stored: Any) -> dict[str, Any]:
        if not isinstance(stored, dict):
            raise _DamagedError("no JSON object")
        found = cast("dict[str, Any]", stored)
        if canonical_json({k: found.get(k) for k in ("stage", "key")}) != canonical_json(self._identity()):
            raise _DamagedError("it was stored under another key")
        return found

    def _read_value(self, path: Path) -> Any:
        stored = self._check_identity(json.loads(path.read_bytes()))
        if canonical_sha256(stored["value"]) != stored["sha256"]:
            raise _DamagedError("its value does not fit its SHA-256")
        return stored["value"]

    def _read_arrays(self, path: Path) -> dict[str, NDArray[Any]]:
        # np.load given a path leaves it open where the zip is damaged.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            members: dict[str, NDArray[Any]] = {member: file[member] for member in file.files}
        stored = self._check_identity(json.loads(members.pop(_HEADER).tobytes()))
        names: list[str] = stored["names"]
        if len(members) != len(names):
            raise _DamagedError(f"it holds {len(members)} arrays instead of {len(names)}")
        arrays = {name: members[f"array{i}"] for i, name in enumerate(names)}
        if _arrays_sha256(arrays) != stored["sha256"]:
            raise _DamagedError("its arrays do not fit their SHA-256")
        return arrays

    def _read_folder(self, path: Path) -> Path:
        stored = self._check_identity(json.loads((path / _STAGE_FILE).read_bytes()))
        if _folder_sha256(path) != stored["files"]:
            raise _DamagedError("its files do not fit their SHA-256")
        return path


def _arrays_sha256(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(canonical_json([name, array.dtype.str, list(array.shape)]).encode("ascii"))
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _folder_sha256(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != _STAGE_FILE:
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside
