"""Python where some packages are not installed, as on a machine that lacks them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.command_line import ROOT


def error_without(packages: tuple[str, ...], code: str, folder: Path) -> str:
    """Last line on standard error of `code`, run in `folder` beside links to all installed packages but `packages`."""
    links = folder / "packages"
    links.mkdir()
    installed = [Path(part) for part in sys.path if Path(part).name == "site-packages"]
    # The first folder on the path has the last word, as in an import.
    found = {entry.name: entry for place in reversed(installed) for entry in place.iterdir()}
    for name, entry in found.items():
        if name.partition("-")[0] not in packages:
            (links / name).symlink_to(entry)
    # -S keeps those folders themselves off the path.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(links), str(ROOT)))}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 1, (done.stdout, done.stderr)
    return done.stderr.splitlines()[-1]
