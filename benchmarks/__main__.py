"""``make bench``: run every benchmark that fits into minutes and write ``benchmarks/results``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
STEPS = (
    [sys.executable, "-m", "benchmarks.demo_predictions"],
    [
        *(
            sys.executable,
            "-m",
            "pytest",
            str(HERE / "hot_functions.py"),
            "--benchmark-enable",
            "--benchmark-only",
            "-q",
        ),
        f"--benchmark-json={HERE / 'results' / 'hot_functions.json'}",
    ],
)


def main() -> int:
    for step in STEPS:
        print("$", " ".join(step), flush=True)
        done = subprocess.run(step, cwd=HERE.parent, check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
