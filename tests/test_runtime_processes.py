"""Several processes serve at the same time, and a bundle whose code this CPU lacks is never run."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from netcut_fx.errors import SpecError, TargetMismatch
from netcut_fx.runtime import load
from netcut_fx.target import detect
from tests.tiny_bundle import SIZE, tiny_bundle

pytest.importorskip("tvm_ffi")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bundles hold Linux libraries")

ROOT = Path(__file__).parent.parent

# Answers many inputs, again and again, until told to stop; says how often, and whether every answer was the first one.
SERVE = """
import sys
import numpy as np
from netcut_fx.runtime import load
inputs = np.load(sys.argv[2])
with load(sys.argv[1], any_cpu=True) as runtime:
    first = runtime.logits(inputs)
    np.save(sys.argv[3], first)
    print("ready", flush=True)
    same = all(np.array_equal(runtime.logits(inputs), first) for _ in range(50))
print(same)
"""


def test_processes_that_serve_at_the_same_time_give_the_same_answers(library: Path, tmp_path: Path):
    folder = tiny_bundle(tmp_path / "b", library, target=detect("native", 2))
    inputs = np.random.default_rng(0).standard_normal((40, 3, SIZE, SIZE)).astype(np.float32)
    np.save(tmp_path / "inputs.npy", inputs)
    with load(folder, any_cpu=True) as runtime:
        alone = runtime.logits(inputs)
        others = [
            subprocess.Popen(
                [sys.executable, "-c", SERVE, str(folder), str(tmp_path / "inputs.npy"), str(tmp_path / f"{i}.npy")],
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for i in range(3)
        ]
        pipes = [other.stdout for other in others if other.stdout is not None]
        assert [pipe.readline() for pipe in pipes] == ["ready\n"] * 3
        beside = [runtime.logits(inputs) for _ in range(50)]
        assert [pipe.read() for pipe in pipes] == ["True\n"] * 3
        assert [other.wait(timeout=120) for other in others] == [0] * 3
        for pipe in pipes:
            pipe.close()
    assert all(np.array_equal(found, alone) for found in beside)
    for i in range(3):
        np.testing.assert_array_equal(np.load(tmp_path / f"{i}.npy"), alone)


@pytest.mark.parametrize("any_cpu", [False, True])
def test_code_that_this_cpu_lacks_is_refused_before_it_is_loaded(library: Path, tmp_path: Path, any_cpu: bool):
    target = detect("native", 1)
    lacking = "sve2" if target.arch == "x86_64" else "avx512f"
    # No byte of this library could be loaded: that it is refused for the CPU shows that nobody tried.
    (tmp_path / "lib.so").write_bytes(b"no library at all")
    folder = tiny_bundle(
        tmp_path / "b", tmp_path / "lib.so", target=replace(target, features=(*target.features, lacking))
    )
    with pytest.raises(TargetMismatch) as error:
        load(folder, any_cpu=any_cpu)
    assert str(error.value).startswith(f"cannot load the bundle {folder}: it may use the CPU features {lacking}, which")
    assert "it would crash; compile it again on this machine" in str(error.value)


def test_a_profile_names_every_kernel_in_order(library: Path, tmp_path: Path):
    with load(tiny_bundle(tmp_path / "b", library)) as runtime:
        inputs = np.ones((1, 3, SIZE, SIZE), np.float32)
        before = runtime.logits(inputs)
        found = runtime.profile(5)
        assert [name for name, _ in found] == ["conv2d", "relu", "mean", "matmul", "add"]
        assert all(len(ms) == 5 and min(ms) > 0 for _, ms in found)
        np.testing.assert_array_equal(runtime.logits(inputs), before)
        with pytest.raises(SpecError, match="profiling needs at least 1 round, got 0"):
            runtime.profile(0)
