"""``make bench``: time the functions that a user waits for, and write ``benchmarks/results``; the others take hours."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import machine

HERE = Path(__file__).parent


def main() -> int:
    """Run pytest-benchmark and keep what a reader needs of its output: medians and spreads in ms."""
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw.json"
        options = ("--benchmark-enable", "--benchmark-only", "-q", f"--benchmark-json={raw}")
        command = [sys.executable, "-m", "pytest", str(HERE / "hot_functions.py"), *options]
        done = subprocess.run(command, cwd=HERE.parent, check=False)
        if done.returncode:
            return done.returncode
        found = json.loads(raw.read_text())["benchmarks"]
    rows = {
        row["name"].removeprefix("test_"): {
            "median_ms": row["stats"]["median"] * 1e3,
            "min_ms": row["stats"]["min"] * 1e3,
            "max_ms": row["stats"]["max"] * 1e3,
            "rounds": row["stats"]["rounds"],
        }
        for row in found
    }
    out = HERE / "results" / "hot_functions.json"
    out.write_text(json.dumps({"machine": machine(), "functions": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
