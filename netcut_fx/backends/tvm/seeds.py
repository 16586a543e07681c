"""Records that ship with the package: packed from a database, and taken over where they fit.

``seeds/<name of a records folder>/`` holds that folder's files, compressed: all trials, but of each workload the best
record only, since no other is ever applied. To make one for this machine::

    python -m netcut_fx.backends.tvm.seeds build/tuning [--threads 1]
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from pathlib import Path

from netcut_fx.backends.tvm.database import TARGET, merge_folder, writer_lock
from netcut_fx.backends.tvm.records import RECORDS, WORKLOADS, read_lines, records_folder
from netcut_fx.backends.tvm.trial_log import TRIALS, trial_lines
from netcut_fx.errors import SpecError
from netcut_fx.target import Target

#: Where they ship.
SEEDS = Path(__file__).parent / "seeds"


def plant_seeds(database: Path, target: Target, seeds: Path = SEEDS) -> int:
    """Merge into `database` what of `seeds` is of this very CPU, thread count and compiler; says how many records.

    The caller holds the folder's tuning lock.
    """
    folder = records_folder(database, target)
    packed = seeds / folder.name
    if not packed.is_dir():
        return 0
    with tempfile.TemporaryDirectory() as unpacked, writer_lock(folder):
        for path in packed.glob("*.gz"):
            (Path(unpacked) / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        return merge_folder(Path(unpacked), folder).records


def pack_seeds(database: Path, target: Target, seeds: Path = SEEDS) -> Path:
    """Pack the records of `target` in `database`; says where they are.

    Raises
    ------
    SpecError
        If there are none.
    """
    folder = records_folder(database, target)
    workloads, _, records, _ = read_lines(folder)
    best: dict[int, tuple[float, str]] = {}
    for line in records:
        place, record = json.loads(line)
        seconds = min(float(s) for s in record[1])
        if place not in best or seconds < best[place][0]:
            best[place] = (seconds, line)
    if not best:
        raise SpecError(f"there are no records of {target} in {database}; tune there first")
    packed = seeds / folder.name
    packed.mkdir(parents=True, exist_ok=True)
    files = {
        WORKLOADS: "".join(workloads),
        RECORDS: "".join(line for _, line in best.values()),
        TRIALS: "".join(trial_lines(folder)),
        TARGET: (folder / TARGET).read_text(encoding="utf-8"),
    }
    for name, content in files.items():
        # Without a time stamp: the same records give the same bytes.
        (packed / f"{name}.gz").write_bytes(gzip.compress(content.encode(), mtime=0))
    return packed


def main() -> None:
    """Pack the records of this machine."""
    from netcut_fx.backends.tvm.toolchain import resolve_target

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    packed = pack_seeds(given.database, resolve_target("native", given.threads))
    size = sum(path.stat().st_size for path in packed.iterdir())
    print(f"{packed}: {size / 1e6:.2f} MB")  # noqa: T201


if __name__ == "__main__":
    main()
