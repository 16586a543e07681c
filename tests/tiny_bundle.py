"""A bundle of a real compiled network, small enough to build in seconds: conv 3x3, ReLU, mean, linear."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np

from netcut_fx.bundle import write_bundle
from netcut_fx.manifest import Manifest
from netcut_fx.preprocess import Preprocess
from netcut_fx.target import Target, detect

SIZE, CHANNELS, CLASSES = 8, 4, 5
LABELS = ("ant", "bee", "cat", "dog", "elk")

# In a process of its own, so that the process of the tests imports neither tvm nor torch because of it. The
# convolution's channels run in parallel, which an untuned network never does by itself.
BUILD = f"""
import sys
import tvm
from tvm import relax, s_tir
b = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((int(sys.argv[2]), 3, {SIZE}, {SIZE}), "float32"))
p = [relax.Var(f"p{{i}}", relax.TensorType(s, "float32")) for i, s in enumerate(
    [({CHANNELS}, 3, 3, 3), ({CHANNELS}, {CLASSES}), (1, {CLASSES})])]
with b.function("main", [x, *p]):
    with b.dataflow():
        y = b.emit(relax.op.nn.conv2d(x, p[0], padding=1))
        y = b.emit(relax.op.mean(relax.op.nn.relu(y), axis=[2, 3]))
        out = b.emit_output(relax.op.add(relax.op.matmul(y, p[1]), p[2]))
    b.emit_func_output(out)
module = relax.transform.LegalizeOps()(b.get())
schedule = s_tir.Schedule(module)
schedule.work_on("conv2d")
schedule.parallel(schedule.get_loops(schedule.get_sblock("conv2d_nchw"))[1])
tvm.compile(schedule.mod, target=tvm.target.Target({{"kind": "llvm", "num-cores": 2}})).export_library(sys.argv[1])
"""


def build_library(path: Path, batch: int = 1) -> None:
    """Compile the network with TVM, for so many images at a time."""
    subprocess.run([sys.executable, "-c", BUILD, str(path), str(batch)], check=True, timeout=300)


def runtime_library() -> Path:
    """TVM's runtime library in the installed wheel."""
    found = importlib.util.find_spec("tvm")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "lib" / "libtvm_runtime.so"


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights in the order of the library's arguments."""
    rng = np.random.default_rng(seed)
    shapes = [(CHANNELS, 3, 3, 3), (CHANNELS, CLASSES), (1, CLASSES)]
    return {f"p{i:03d}": rng.standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)}


def reference(params: dict[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """The same network in float64 numpy: logits (N, classes)."""
    convolution, matrix, bias = (params[f"p{i:03d}"].astype(np.float64) for i in range(3))
    padded = np.pad(inputs.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    answer = np.maximum(np.einsum("nchwij,ocij->nohw", patches, convolution), 0).mean(axis=(2, 3))
    return answer @ matrix + bias


def tiny_manifest(target: Target | None = None, batch: int = 1) -> Manifest:
    """What the bundle says about itself."""
    return Manifest(
        name="tiny",
        target=detect("native", 1) if target is None else target,
        preprocess=Preprocess.named((SIZE, SIZE), "imagenet"),
        labels=LABELS,
        input_shape=(batch, 3, SIZE, SIZE),
        output_shape=(batch, CLASSES),
        frontier="conv",
        head={"kind": "linear"},
        estimate={"ms": 0.1, "low_ms": None, "high_ms": None},
        created_by="netcut_fx tests",
    )


def tiny_bundle(folder: Path, library: Path, *, target: Target | None = None, seed: int = 0, batch: int = 1) -> Path:
    """Write a bundle around a library that `build_library` made."""
    report = folder.parent / f"{folder.name}-report.html"
    report.write_text("<!doctype html><title>tiny</title>")
    return write_bundle(
        folder,
        library=library,
        runtime_library=runtime_library(),
        params=weights(seed),
        manifest=tiny_manifest(target, batch),
        report=report,
    )
