"""A bundle: one folder with all that a device needs to run a network. Written whole, read with every hash checked."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from netcut_fx.atomic_files import partial_path, put_folder_in_place, report_storage_errors, sync_file, sync_folder
from netcut_fx.errors import BadBundle, NetcutError
from netcut_fx.manifest import MANIFEST_FILE, Manifest
from netcut_fx.spec_text import one_line

LIBRARY_FILE = "lib.so"
RUNTIME_FILE = "libtvm_runtime.so"
PARAMS_FILE = "params.safetensors"
REPORT_FILE = "report.html"

_REQUIRED = (LIBRARY_FILE, RUNTIME_FILE, PARAMS_FILE)


def network_beside(bundle: Path) -> Path:
    """Where ``netcut run`` and ``netcut compile`` write the network that a bundle was compiled from."""
    return bundle.with_name(f"{bundle.name}.pt2")


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked.

    Parameters
    ----------
    folder : Path
        Absolute.
    manifest : Manifest
        What it says about itself.
    """

    folder: Path
    manifest: Manifest

    @property
    def library(self) -> Path:
        """The compiled network."""
        return self.folder / LIBRARY_FILE

    @property
    def runtime_library(self) -> Path:
        """TVM's runtime, which loads it."""
        return self.folder / RUNTIME_FILE

    @property
    def params(self) -> Path:
        """Prepared weights, safetensors."""
        return self.folder / PARAMS_FILE

    @property
    def report(self) -> Path | None:
        """The HTML report, if the bundle has one."""
        return self.folder / REPORT_FILE if REPORT_FILE in self.manifest.files else None


def write_bundle(
    folder: Path | str,
    *,
    library: Path,
    runtime_library: Path,
    params: Mapping[str, NDArray[Any]] | Path,
    manifest: Manifest,
    report: Path | None = None,
) -> Path:
    """Write a bundle.

    It is built in a hidden folder beside `folder` and renamed, so that `folder` is never half a bundle. A bundle that
    is already there is replaced; any other folder with files in it is refused.

    Parameters
    ----------
    folder : path
        Where the bundle goes; parents are made.
    library, runtime_library : Path
        The compiled network and TVM's runtime library; copied.
    params : mapping of str to array, or Path
        Weights after the input, in the order of the library's arguments: names ``p000``, ``p001``, ... (any number of
        digits), or a safetensors file with such names.
    manifest : Manifest
        Its `files` are replaced by what is written here.
    report : Path, optional
        An HTML file.

    Returns
    -------
    Path
        `folder`, absolute.

    Raises
    ------
    BadBundle
        If the names of `params` are not p0 ... pN, or a file to copy is missing.
    NetcutError
        If the disk is full or `folder` cannot be written (nothing is left behind), or `folder` holds something else.
    """
    folder = Path(folder).absolute()
    sources = {LIBRARY_FILE: library, RUNTIME_FILE: runtime_library}
    if isinstance(params, Path):
        sources[PARAMS_FILE] = params
    if report is not None:
        sources[REPORT_FILE] = report
    for source in sources.values():
        if not source.is_file():
            raise BadBundle(f"cannot write the bundle {folder}: there is no file {source}; compile the network first")
    parameter_order(parameter_names(params) if isinstance(params, Path) else params)

    def copy(partial: Path) -> None:
        for name, source in sources.items():
            shutil.copyfile(source, partial / name)
        if not isinstance(params, Path):
            # The arrays' own bytes: safetensors writes views and broadcasts wrongly unless they are contiguous.
            (partial / PARAMS_FILE).write_bytes(save({n: np.ascontiguousarray(a) for n, a in params.items()}))

    return write_sealed(folder, manifest, copy)


def write_sealed(folder: Path, manifest: Manifest, fill: Callable[[Path], None]) -> Path:
    """Write a bundle: what `fill` puts into a hidden folder, and the manifest with the hashes of it all.

    Parameters
    ----------
    folder : Path
        Absolute.
    manifest : Manifest
        Its `files` are replaced by what `fill` wrote.
    fill : callable
        Given an empty folder on the same file system.

    Returns
    -------
    Path
        `folder`.

    Raises
    ------
    NetcutError
        If the disk is full or `folder` cannot be written (nothing is left behind), or `folder` holds something else.
    """
    with report_storage_errors(f"write the bundle {folder}", safe="nothing half-written is left there"):
        check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_path(folder)
        try:
            partial.mkdir()
            fill(partial)
            files = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
            (partial / MANIFEST_FILE).write_bytes(replace(manifest, files=files).to_bytes())
            for file in partial.iterdir():
                sync_file(file)
            sync_folder(partial)
            put_folder_in_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def read_bundle(folder: Path | str) -> Bundle:
    """Read the manifest and compare every file with its hash; files that the manifest does not name are ignored.

    Raises
    ------
    BadBundle
        Naming the file that is missing, unreadable or changed.
    """
    folder = Path(folder).absolute()
    return Bundle(folder, checked_manifest(folder, _REQUIRED))


def checked_manifest(folder: Path, required: Iterable[str]) -> Manifest:
    """The manifest of the bundle in `folder`, once every file has the hash that it lists; it must list the `required`.

    Raises
    ------
    BadBundle
        Naming the file that is missing, unreadable or changed.
    """
    path = folder / MANIFEST_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BadBundle(
            f"there is no bundle in {folder}: {MANIFEST_FILE} is missing; give a bundle's folder"
        ) from error
    except OSError as error:
        raise BadBundle(f"cannot read {path}: {error.strerror}; give the folder of a bundle you may read") from error
    manifest = Manifest.from_bytes(data, str(path))
    for name in required:
        if name not in manifest.files:
            raise BadBundle(f"{path} lists no file '{name}', without which a bundle cannot run; write the bundle again")
    for name, expected in sorted(manifest.files.items()):
        try:
            found = sha256_of(folder / name)
        except FileNotFoundError as error:
            raise BadBundle(f"{name} is missing in the bundle {folder}; copy the bundle again") from error
        except OSError as error:
            raise BadBundle(f"cannot read {folder / name}: {error.strerror}; copy the bundle again") from error
        if found != expected:
            raise BadBundle(
                f"{name} in the bundle {folder} was changed after it was written: SHA-256 {found[:12]}..., expected "
                f"{expected[:12]}...; copy the bundle again"
            )
    return manifest


def parameter_names(path: Path) -> list[str]:
    """Names of the arrays in a safetensors file. Raises `BadBundle` if it is none."""
    try:
        with safe_open(path, framework="np") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise BadBundle(f"{path} is no safetensors file ({one_line(error)}); compile the network again") from error


def parameter_order(names: Iterable[str]) -> list[str]:
    """Names ``p0``, ``p1``, ... in the order of their numbers.

    Raises
    ------
    BadBundle
        If a name is of another form, or a number is missing or there twice.
    """
    numbers: dict[int, str] = {}
    for name in names:
        if not name.startswith("p") or not name[1:].isascii() or not name[1:].isdigit() or int(name[1:]) in numbers:
            raise BadBundle(f"'{name}' is no parameter name; expected p000, p001, ... each number once")
        numbers[int(name[1:])] = name
    for expected in range(len(numbers)):
        if expected not in numbers:
            raise BadBundle(
                f"parameter {expected} of {len(numbers)} is missing; expected p000, p001, ... without a gap"
            )
    return [numbers[i] for i in range(len(numbers))]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_replaceable(folder: Path) -> None:
    """Refuse a `folder` that holds something other than a bundle."""
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise NetcutError(f"cannot write the bundle {folder}: that is no folder; choose another name")
    if any(folder.iterdir()) and not (folder / MANIFEST_FILE).is_file():
        raise NetcutError(
            f"cannot write the bundle {folder}: that folder holds other files; choose a new or empty folder"
        )
