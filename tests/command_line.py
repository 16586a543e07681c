"""The ``netcut`` command as users start it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.small_run import DATA, MODEL, SIZE

ROOT = Path(__file__).parent.parent
NETCUT = str(Path(sys.executable).with_name("netcut"))


def netcut(*arguments: str, columns: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run it with its output in a pipe; `columns` makes it believe in a terminal of that width."""
    size = {} if columns is None else {"COLUMNS": str(columns)}
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | size
    return subprocess.run(
        [NETCUT, *arguments], capture_output=True, text=True, cwd=ROOT, check=False, timeout=300, env=environment
    )


def refused(*arguments: str) -> str:
    """The one line on which a command refuses its input."""
    done = netcut(*arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def run_refused(tmp_path: Path, **changed: str) -> str:
    given = {
        "model": MODEL,
        "data": DATA,
        "input-size": SIZE,
        "deadline-ms": "1",
        "out": str(tmp_path / "out"),
        **changed,
    }
    return refused("run", *(word for name, value in given.items() for word in (f"--{name}", value)))
