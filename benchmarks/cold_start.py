"""How long from ``import`` to the first answer of a bundle, and how much memory, where only the runtime is installed.

Makes a fresh environment with this package and its run-time dependencies alone (no torch, no compiler), checks that
neither can be imported there, and starts a new process for every round.

    python -m benchmarks.cold_start BUNDLE [--rounds 9] [--environment FOLDER] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "results" / "cold_start.json"
ENVIRONMENT = ROOT / "build" / "cold_start_environment"

# The clock starts before anything of ours is imported; the process itself is timed from outside.
ANSWER = """
import time
start = time.perf_counter()
import json, resource, sys
import numpy as np
from netcut_fx.runtime import load
imported = time.perf_counter()
runtime = load(sys.argv[1])
loaded = time.perf_counter()
height, width = runtime.manifest.preprocess.size
runtime.predict(np.zeros((1, height, width, 3), np.uint8))
answered = time.perf_counter()
runtime.predict(np.zeros((16, height, width, 3), np.uint8))
print(json.dumps({
    "import_s": imported - start,
    "load_s": loaded - imported,
    "first_answer_s": answered - loaded,
    "cold_start_s": answered - start,
    "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "heavy": sorted({"torch", "tvm"} & set(sys.modules)),
}))
"""


def make_environment(folder: Path) -> Path:
    """A virtual environment with the runtime alone; its interpreter. Dependencies that are there are used again."""
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(ROOT)]
    if (folder / ".installed").exists():
        subprocess.run([*install, "--no-deps", "--force-reinstall"], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run(install, check=True)
        for heavy in ("torch", "tvm"):
            found = subprocess.run([str(python), "-c", f"import {heavy}"], capture_output=True, check=False)
            if found.returncode == 0:
                raise SystemExit(f"{heavy} can be imported in {folder}: this is no environment of a device")
        (folder / ".installed").touch()
    return python


def cold_start(bundle: Path, rounds: int, environment: Path = ENVIRONMENT) -> dict[str, Any]:
    """Medians over `rounds` processes; the first one, which reads everything from disk, stands beside them."""
    python = make_environment(environment)
    rows = [
        json.loads(
            subprocess.run(
                [str(python), "-I", "-c", ANSWER, str(bundle.absolute())],
                check=True,
                capture_output=True,
                text=True,
                cwd=environment,
            ).stdout
        )
        for _ in range(rounds + 1)
    ]
    first, rest = rows[0], rows[1:]
    assert all(row["heavy"] == [] for row in rows)
    names = [name for name in first if name != "heavy"]
    return {
        "bundle": bundle.name,
        "rounds": rounds,
        **{name: statistics.median(row[name] for row in rest) for name in names},
        "first_process": {name: first[name] for name in names},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    found = cold_start(given.bundle, given.rounds, given.environment)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
