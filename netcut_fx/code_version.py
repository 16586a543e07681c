"""Which code made a stored result: a digest of the source files that decide it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def sources_digest(names: Sequence[str], *, package: Path | None = None) -> str:
    """SHA-256 over names and bytes of source files, 64 hexadecimal digits.

    Part of the key of a stored result: an edit of a file that decides it makes the stored one belong to other code.

    Parameters
    ----------
    names : sequence of str
        Paths relative to the package, such as ``"passes/head.py"``; ``"backends/tvm/"`` stands for all Python files
        below that folder. Their order does not matter.
    package : Path, optional
        Folder that they are relative to; this package by default.

    Raises
    ------
    FileNotFoundError
        If one does not exist.
    """
    folder = Path(__file__).parent if package is None else package
    files: set[str] = set()
    for name in names:
        below = list((folder / name).rglob("*.py")) if name.endswith("/") else [folder / name]
        # A folder without sources is a wrong name: reading it as a file fails.
        files.update(path.relative_to(folder).as_posix() for path in below or [folder / name])
    digest = hashlib.sha256()
    for name in sorted(files):
        data = (folder / name).read_bytes()
        digest.update(f"{name}:{len(data)};".encode())
        digest.update(data)
    return digest.hexdigest()
