"""A part of CIFAR-10 (JPEG) as an npz with splits, for ``benchmarks.netcut_study --data``.

    python -m benchmarks.study_images --out build/cifar10.npz

Of the 45,000 training images few are kept, from which ``train_per_class`` draws, other ones for each seed; few to
validate with, since a user with few labels has few of those, too; and more to test, which each network sees once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks.lcnet_networks import FOLDER, cifar10

#: Images of each class.
PER_CLASS = {"train": 60, "validation": 40, "test": 100}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of cifar10_jpeg.npz")
    parser.add_argument("--out", type=Path, default=Path("build/cifar10.npz"))
    given = parser.parse_args()
    whole = cifar10(given.data)
    random = np.random.default_rng(0)
    taken: list[np.ndarray] = []
    names: list[str] = []
    for split, count in PER_CLASS.items():
        rows = whole.splits[split]
        for label in range(whole.class_count):
            taken.append(random.permutation(rows[whole.labels[rows] == label])[:count])
            names += [split] * count
    index = np.concatenate(taken)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    classes = np.array(whole.classes)
    np.savez(given.out, x=whole.images[index], y=whole.labels[index], split=np.array(names), classes=classes)
    print(f"{len(index)} images in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
