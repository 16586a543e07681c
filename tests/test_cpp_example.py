"""The C++ example is built and answers as the Python runtime does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from netcut_fx.runtime import load
from netcut_fx.target import detect
from tests.tiny_bundle import CLASSES, SIZE, build_library, tiny_bundle

pytest.importorskip("tvm")
tvm_ffi = pytest.importorskip("tvm_ffi")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="bundles hold Linux libraries"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ to build the example with"),
]

EXAMPLE = Path(__file__).parent.parent / "examples" / "cpp" / "run_bundle.cpp"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ffi = Path(tvm_ffi.__file__).parent
    out = tmp_path_factory.mktemp("cpp") / "run_bundle"
    linked = (f"-L{ffi / 'lib'}", "-ltvm_ffi", f"-Wl,-rpath,{ffi / 'lib'}", "-ldl")
    warnings = ("-Wall", "-Wextra", "-Werror", f"-isystem{ffi / 'include'}")
    subprocess.run(["g++", "-std=c++17", *warnings, str(EXAMPLE), "-o", str(out), *linked], check=True, timeout=300)
    return out


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "lib.so"
    build_library(path)
    return path


def answer(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *map(str, words)], capture_output=True, text=True, timeout=120, check=False, env={}
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_it_answers_as_the_python_runtime_does(program: Path, library: Path, tmp_path: Path, threads: int):
    folder = tiny_bundle(tmp_path / "b", library, target=detect("native", threads))
    inputs = np.random.default_rng(0).standard_normal((3, 3, SIZE, SIZE)).astype(np.float32)
    (tmp_path / "input.f32").write_bytes(inputs.tobytes())
    done = answer(program, folder, threads, tmp_path / "input.f32", *inputs.shape)
    assert (done.returncode, done.stderr) == (0, "")
    with load(folder, any_cpu=True) as runtime:
        expected = runtime.logits(inputs)
    found = np.array([float(line) for line in done.stdout.split()], np.float32).reshape(3, CLASSES)
    np.testing.assert_array_equal(found, expected)


def test_what_it_refuses_is_one_line(program: Path, library: Path, tmp_path: Path):
    folder = tiny_bundle(tmp_path / "b", library)
    (tmp_path / "short.f32").write_bytes(b"\0" * 8)
    done = answer(program, folder, 1, tmp_path / "short.f32", 1, 3, SIZE, SIZE)
    assert (done.returncode, done.stderr) == (2, "error: the input has another size than N*C*H*W float32\n")
    assert answer(program, folder).stderr == "usage: run_bundle BUNDLE THREADS INPUT.f32 N C H W\n"
    (tmp_path / "other.f32").write_bytes(bytes(4 * 3 * 2 * SIZE * SIZE))
    done = answer(program, folder, 1, tmp_path / "other.f32", 1, 3, 2 * SIZE, SIZE)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
