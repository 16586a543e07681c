"""Networks that decide per input what to skip, beside what else saves time: accuracy, FLOPs and measured ms.

CIFAR's ResNets with CIFAR-10 (JPEG), and MobileNetV2 with signs of hands. The static network is fine-tuned first; every
other method starts from its weights, learns from its answers, and trains for as many epochs. Rows are written as they
come; those that are there are kept, and a training that was stopped goes on with its epoch. What is measured needs the
machine to itself: with `--train-only` first, only prices are.

    python -m benchmarks.lcnet_study [--networks resnet20] [--epochs 16] [--rates 0.35 0.47 0.6] [--seeds 0 1 2]
    python -m benchmarks.lcnet_study --networks mobilenet_v2 --static-epochs 12 --epochs 32 --rates 0.45 0.52 0.62

Methods: ``static``; ``static longer`` (trained on as the others are: the better of the two is compared with);
``lc-net``, ``l-net``, ``c-net``; ``mask`` (LC-Net, everything computed and multiplied by the mask); ``random`` (the
paths of LC-Net, as often, but drawn at random); ``cut`` (the static network cut where it takes as long as LC-Net);
``early-exit`` (exits behind two stages, trained along, left by confidence); ``deadline`` (LC-Net with a bound for each
input).
Ablations, at the middle rate: ``lc-net no scale``, ``lc-net flops loss``, ``lc-net 2 groups``, ``lc-net lead 1``
(gates read behind the first cell).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.lcnet_methods import GATED, PEERS, Study
from benchmarks.lcnet_networks import FOLDER, subject
from benchmarks.lcnet_plot import plot
from benchmarks.lcnet_summary import summary
from benchmarks.machine import machine
from netcut_fx.atomic_files import atomic_write
from netcut_fx.verbs import tvm_backend

OUT = Path(__file__).parent / "results" / "lcnet_study.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet20"], help="resnet20, resnet56, mobilenet_v2[@CUT]")
    parser.add_argument("--static-epochs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=16, help="of everything that starts from the static network")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.35, 0.47, 0.6], help="trained for the middle one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--limit", type=int, help="images in all; fewer make a quick trial, not a result")
    parser.add_argument("--images", type=int, help="test images that are measured; all by default")
    parser.add_argument("--paths", type=int, default=4, help="ways through a gated network that are compiled, at most")
    parser.add_argument("--methods", nargs="+", default=["lc-net", *PEERS], choices=[*GATED, *PEERS])
    parser.add_argument("--train-only", action="store_true", help="so that all is measured later, on a quiet machine")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of the images and weights")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=Path("build/lcnet_study"))
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    if options.out.exists():
        rows = json.loads(options.out.read_text())["rows"]

    def save() -> None:
        found = {"machine": machine(), "summary": summary(list(rows.values())), "rows": rows}
        atomic_write(options.out, (json.dumps(found, indent=1) + "\n").encode())
        atomic_write(options.out.with_suffix(".svg"), plot(list(rows.values())).encode())

    backend = tvm_backend("native", 1)
    for seed in options.seeds:
        for network in options.networks:
            chosen = subject(network, options.data, seed, options.limit)
            study = Study(
                subject=chosen,
                seed=seed,
                static_epochs=options.static_epochs,
                epochs=options.epochs,
                backend=backend,
                folder=options.work / f"{network}-seed{seed}-n{len(chosen.data.labels)}-static{options.static_epochs}",
                rows=rows,
                save=save,
                images=options.images,
                paths=options.paths,
            )
            if options.train_only:
                study.train_only(options.rates[len(options.rates) // 2], options.methods)
            else:
                study.run(options.rates, options.methods)
    return 0


if __name__ == "__main__":
    sys.exit(main())
