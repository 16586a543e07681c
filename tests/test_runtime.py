from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netcut_fx.bundle import write_bundle
from netcut_fx.errors import BadBundle, DataError, NetcutError, SpecError, TargetMismatch
from netcut_fx.host import usable_cores
from netcut_fx.preprocess import Preprocess
from netcut_fx.runtime import Runtime, load
from netcut_fx.target import detect
from netcut_fx.vm_loader import ALIGNMENT_BYTES, aligned_copy
from netcut_fx.vm_threads import named_threads
from tests.tiny_bundle import (
    CLASSES,
    LABELS,
    SIZE,
    reference,
    runtime_library,
    tiny_bundle,
    tiny_manifest,
    weights,
)

pytest.importorskip("tvm_ffi")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bundles hold Linux libraries")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", library)


@pytest.fixture(scope="module")
def runtime(folder: Path):
    with load(folder) as loaded:
        yield loaded


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)


def inputs(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, 3, SIZE, SIZE)).astype(np.float32)


def workers() -> int:
    """System threads of this process that compute for a runtime, besides the runtime's own one."""
    return sum(
        (task / "comm").read_text().startswith("netcut-") for task in Path("/proc/self/task").iterdir() if task.exists()
    )


def eventually(true: Callable[[], bool]) -> None:
    """Something that another thread brings about; the wait is bounded only so that a failing test ends."""
    end = time.monotonic() + 60
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize("n", [0, 1, 7, 70])
def test_logits_are_those_of_the_network(runtime: Runtime, n: int):
    found = runtime.logits(inputs(n))
    assert found.dtype == np.float32
    assert found.shape == (n, CLASSES)
    np.testing.assert_allclose(found, reference(weights(), inputs(n)), rtol=1e-4, atol=1e-5)


def test_inputs_need_not_be_contiguous_or_aligned(runtime: Runtime):
    wide = inputs(6)
    buffer = np.zeros(wide.nbytes + 4, np.uint8)
    shifted = buffer[4:].view(np.float32).reshape(wide.shape)
    shifted[...] = wide
    assert shifted.ctypes.data % 16 != wide.ctypes.data % 16 or shifted.ctypes.data % ALIGNMENT_BYTES
    expected = runtime.logits(wide)
    np.testing.assert_array_equal(runtime.logits(shifted), expected)
    np.testing.assert_array_equal(runtime.logits(wide[::2]), expected[::2])
    flipped = np.ascontiguousarray(wide.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(runtime.logits(flipped), expected)


def test_predictions_are_those_of_the_network(runtime: Runtime, images: np.ndarray):
    found = runtime.predict(images)
    expected = reference(weights(), runtime.manifest.preprocess(images))
    np.testing.assert_allclose(found.logits, expected, rtol=1e-4, atol=1e-4)
    powers = np.exp(expected - expected.max(1, keepdims=True))
    np.testing.assert_allclose(found.probabilities, powers / powers.sum(1, keepdims=True), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found.indices, expected.argmax(1))
    assert found.labels == tuple(LABELS[i] for i in expected.argmax(1))
    assert (found.probabilities.dtype, found.logits.dtype, found.indices.dtype) == ("float32", "float32", "int64")
    assert len(found) == 3


def test_images_come_in_many_forms(runtime: Runtime, images: np.ndarray, tmp_path: Path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    expected = runtime.predict(images).logits
    for form in (
        paths,
        [str(p) for p in paths],
        tuple(images),
        [Image.fromarray(i) for i in images],
        paths[:1] + list(images[1:]),
    ):
        np.testing.assert_array_equal(runtime.predict(form).logits, expected)
    for form in (images[0], images[:1], paths[0], str(paths[0]), Image.fromarray(images[0]), [images[0]]):
        np.testing.assert_array_equal(runtime.predict(form).logits, expected[:1])
    grey = images[..., 0]
    expected = runtime.predict(np.repeat(grey[..., None], 3, axis=3)).logits
    for form in (grey, grey[..., None], list(grey)):
        np.testing.assert_array_equal(runtime.predict(form).logits, expected)
    np.testing.assert_array_equal(runtime.predict(grey[0]).logits, expected[:1])


def test_images_of_different_sizes(runtime: Runtime):
    rng = np.random.default_rng(2)
    different = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((8, 8), (30, 20), (5, 9))]
    found = runtime.predict(different).logits
    one_by_one = np.concatenate([runtime.predict(image).logits for image in different])
    np.testing.assert_array_equal(found, one_by_one)
    expected = reference(weights(), runtime.manifest.preprocess(different))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("none", [np.empty((0, SIZE, SIZE, 3), np.uint8), np.empty((0, 99, 1, 3), np.uint8), [], ()])
def test_no_images_give_an_empty_prediction(runtime: Runtime, none: np.ndarray):
    found = runtime.predict(none)
    assert found.labels == ()
    assert found.probabilities.shape == found.logits.shape == (0, CLASSES)
    assert found.indices.shape == (0,)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), "images are float32, expected uint8 with values 0 to 255; images scaled"),
        (np.zeros((0, 8, 8, 3), np.float32), "images are float32, expected uint8"),
        (np.zeros((1, 3, 8, 8), np.uint8), "images have shape (1, 3, 8, 8); expected (N, height, width)"),
        (np.zeros((1, 0, 8, 3), np.uint8), "images have shape (1, 0, 8, 3)"),
        (np.zeros((2, 1, 8, 8, 3), np.uint8), "images have shape (2, 1, 8, 8, 3)"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 0, 3), np.uint8)], "image 1: an image has shape (8, 0, 3)"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3))], "image 1: images are float64, expected uint8"),
        ([None], "image 0 is a NoneType, expected a uint8 array, a Pillow image or a path"),
        (7, "image 0 is a int, expected a uint8 array"),
        ("nowhere.png", "cannot read image nowhere.png (FileNotFoundError: "),
    ],
)
def test_wrong_images(runtime: Runtime, wrong: object, message: str):
    with pytest.raises(DataError) as error:
        runtime.predict(wrong)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((1, 3, 8, 8)), "inputs are float64, expected a float32 array; convert them with .astype('float32')"),
        ([[1.0]], "inputs are list, expected a float32 array; convert them with .astype('float32')"),
        (np.zeros((3, 8, 8), np.float32), "inputs have shape (3, 8, 8), the network reads (N, 3, 8, 8)"),
        (np.zeros((1, 8, 8, 3), np.float32), "inputs have shape (1, 8, 8, 3), the network reads (N, 3, 8, 8)"),
    ],
)
def test_wrong_inputs(runtime: Runtime, wrong: object, message: str):
    with pytest.raises(DataError) as error:
        runtime.logits(wrong)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_answers_that_are_no_numbers_are_no_prediction(library: Path, tmp_path: Path, images: np.ndarray):
    params = weights()
    params["p002"][0, 2] = np.nan
    parts = {"library": library, "runtime_library": runtime_library(), "manifest": tiny_manifest()}
    with load(write_bundle(tmp_path / "b", params=params, **parts)) as broken:
        with pytest.raises(
            NetcutError, match=r"answers NaN or infinity for image 0 \(3 of 3\): its weights are damaged"
        ):
            broken.predict(images)
        assert np.isnan(broken.logits(inputs(1))[0, 2])


def test_a_network_without_gates_has_no_paths(runtime: Runtime):
    with pytest.raises(SpecError) as error:
        runtime.paths(np.zeros((1, *runtime.manifest.input_shape[1:]), np.float32))
    assert str(error.value) == f"{runtime.folder} holds a network without gates; every input takes the same path"


def test_extreme_logits_have_a_softmax(library: Path, tmp_path: Path, images: np.ndarray):
    params = weights()
    params["p002"][0] = [3e38, -3e38, 0, 0, 0]
    parts = {"library": library, "runtime_library": runtime_library(), "manifest": tiny_manifest()}
    with load(write_bundle(tmp_path / "b", params=params, **parts)) as loaded:
        found = loaded.predict(images)
    np.testing.assert_array_equal(found.probabilities, [[1, 0, 0, 0, 0]] * 3)
    assert found.labels == ("ant",) * 3


def test_a_runtime_says_what_it_is(runtime: Runtime, folder: Path):
    assert repr(runtime) == "Runtime('tiny', 5 classes, 1 threads)"
    assert runtime.folder == folder
    assert runtime.threads == 1
    assert runtime.manifest.frontier == "conv"


def test_measuring(runtime: Runtime):
    runtime.warm_up()
    times = runtime.measure(5)
    assert len(times) == 5
    assert all(0 < ms < 60_000 for ms in times)
    assert runtime.timer()(3) > 0
    with pytest.raises(SpecError, match="measuring needs at least 1 run, got 0"):
        runtime.measure(0)


def test_neither_torch_nor_tvm_is_imported(folder: Path):
    code = (
        "import sys, numpy as np\n"
        "from netcut_fx.runtime import load\n"
        "print(load(sys.argv[1]).predict(np.zeros((2, 9, 7, 3), np.uint8)).labels)\n"
        "print(sorted({'torch', 'tvm', 'torchvision', 'filelock', 'networkx', 'scipy'} & set(sys.modules)))\n"
        "print('numpy' in sys.modules, 'tvm_ffi' in sys.modules)\n"
    )
    done = run(code, folder)
    assert done.stderr == ""
    labels, heavy, light = done.stdout.splitlines()
    assert labels.count("'") == 4
    assert (heavy, light) == ("[]", "True True")


def test_it_runs_where_torch_and_tvm_cannot_be_imported(folder: Path):
    code = (
        "import sys, numpy as np\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'tvm'):\n"
        "            raise AssertionError(f'{name} was imported')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from netcut_fx.runtime import load\n"
        "print(len(load(sys.argv[1]).predict(np.zeros((2, 9, 7, 3), np.uint8))))\n"
    )
    done = run(code, folder)
    assert (done.stderr, done.stdout) == ("", "2\n")


@pytest.mark.parametrize("order", ["torch, tvm", "tvm, torch"])
def test_torch_and_tvm_can_be_imported_afterwards(folder: Path, order: str):
    pytest.importorskip("torch")
    code = (
        "import sys, numpy as np\n"
        "from netcut_fx.runtime import load\n"
        "runtime = load(sys.argv[1])\n"
        "before = runtime.predict(np.zeros((1, 9, 7, 3), np.uint8)).logits\n"
        f"import {order}\n"
        "from tvm import relax\n"
        "print(float(torch.ones(3).sum()), tvm.runtime.tensor(np.ones(3)).numpy().sum())\n"
        "print(np.array_equal(before, load(sys.argv[1]).predict(np.zeros((1, 9, 7, 3), np.uint8)).logits))\n"
    )
    done = run(code, folder)
    assert done.stdout == "3.0 3.0\nTrue\n", done.stderr


def test_the_bundles_own_runtime_library_is_used_where_no_tvm_is_installed(folder: Path, tmp_path: Path):
    """Hides the installed tvm from the search path, as on a device."""
    for name in (
        "numpy",
        "PIL",
        "safetensors",
        "tvm_ffi",
        "apache_tvm_ffi-*",
        "numpy.libs",
        "pillow.libs",
        "typing_extensions.py",
    ):
        for source in Path(np.__file__).parent.parent.glob(name):
            (tmp_path / source.name).symlink_to(source)
    for name in ("netcut_fx", "cost_models"):
        (tmp_path / name).symlink_to(ROOT / name)
    code = (
        "import sys\n"
        "sys.path[:] = [p for p in sys.path if 'site-packages' not in p and p] + [sys.argv[2]]\n"
        "import numpy as np\n"
        "from netcut_fx.runtime import load\n"
        "print(len(load(sys.argv[1]).predict(np.zeros((2, 9, 7, 3), np.uint8))))\n"
        "print(*{line.split()[-1] for line in open('/proc/self/maps') if 'libtvm_runtime.so' in line})\n"
    )
    done = run(code, folder, tmp_path)
    assert (done.stderr, done.stdout) == ("", f"2\n{folder / 'libtvm_runtime.so'}\n")


def test_without_tvm_ffi_the_error_says_what_to_install(folder: Path):
    code = (
        "import sys\n"
        "sys.modules['tvm_ffi'] = None\n"
        "from netcut_fx.runtime import load\n"
        "try: load(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    version = dict(detect().toolchain)["apache-tvm-ffi"]
    assert run(code, folder).stdout == (
        "BackendError running a bundle needs tvm_ffi (import of tvm_ffi halted; None in sys.modules); install it with: "
        f"pip install apache-tvm-ffi=={version}\n"
    )


def test_another_tvm_runtime_in_one_process_is_refused(library: Path, tmp_path: Path):
    other = tmp_path / "other.so"
    other.write_bytes(runtime_library().read_bytes() + b"\0")
    first, second = tiny_bundle(tmp_path / "first", library), tmp_path / "second"
    parts = {"library": library, "params": weights(), "manifest": tiny_manifest()}
    write_bundle(second, runtime_library=other, **parts)
    code = (
        "import sys\n"
        "from netcut_fx.runtime import load\n"
        "load(sys.argv[1])\n"
        "try: load(sys.argv[2])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = run(code, first, second)
    assert done.stdout.startswith("TargetMismatch this process runs the TVM runtime /"), done.stderr
    assert done.stdout.endswith(f"already, the bundle {second} brings another one; load it in a process of its own\n")


@pytest.mark.parametrize("name", ["lib.so", "libtvm_runtime.so", "params.safetensors", "manifest.json", "report.html"])
def test_a_flipped_byte_is_refused(library: Path, tmp_path: Path, name: str):
    folder = tiny_bundle(tmp_path / "b", library)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BadBundle, match=name.replace(".", r"\.")):
        load(folder)


def test_a_library_that_is_none(tmp_path: Path):
    (tmp_path / "text").write_text("no library" * 1000)
    with pytest.raises(BadBundle, match=r"cannot load .*/lib\.so \(.*invalid ELF header.*\); write the bundle again"):
        load(tiny_bundle(tmp_path / "b", tmp_path / "text"))


@pytest.mark.parametrize("change", ["one too few", "another shape", "another type"])
def test_weights_that_do_not_fit_the_library(library: Path, tmp_path: Path, change: str):
    params = weights()
    if change == "one too few":
        del params["p002"]
    elif change == "another shape":
        params["p001"] = params["p001"][:-1]
    else:
        params["p001"] = params["p001"].astype(np.float64)
    parts = {"library": library, "runtime_library": runtime_library(), "manifest": tiny_manifest()}
    with pytest.raises(BadBundle, match=r"the network in .*lib\.so does not run with its weights \(") as error:
        load(write_bundle(tmp_path / "b", params=params, **parts))
    assert "\n" not in str(error.value)


def test_a_library_that_answers_another_shape(library: Path, tmp_path: Path):
    manifest = replace(tiny_manifest(), labels=LABELS[:4], output_shape=(1, 4))
    parts = {"library": library, "runtime_library": runtime_library(), "params": weights()}
    with pytest.raises(BadBundle, match=r"answers \(1, 5\), the manifest says \(1, 4\); write the bundle again"):
        load(write_bundle(tmp_path / "b", manifest=manifest, **parts))


def test_a_foreign_target_is_refused_before_anything_is_loaded(library: Path, tmp_path: Path):
    own = detect()
    lacking = replace(own, features=(*own.features, "amx_fp16", "sve2"))
    for any_cpu in (False, True):
        with pytest.raises(TargetMismatch) as error:
            load(tiny_bundle(tmp_path / "b", library, target=lacking), any_cpu=any_cpu)
        assert str(error.value).startswith(
            f"cannot load the bundle {tmp_path / 'b'}: it may use the CPU features amx_fp16, sve2, which this machine ("
        )
    with pytest.raises(TargetMismatch, match="it was compiled for cuda, this runtime drives CPUs"):
        load(tiny_bundle(tmp_path / "b", library, target=replace(own, kind="cuda")))


def test_another_cpu_model_can_be_accepted(library: Path, tmp_path: Path, images: np.ndarray):
    folder = tiny_bundle(
        tmp_path / "b", library, target=replace(detect(), cpu_model="other", threads=usable_cores() + 7)
    )
    with pytest.raises(TargetMismatch, match=r"tuned and measured on other, .* or load it anyway with any_cpu=True"):
        load(folder)
    with load(folder, any_cpu=True) as runtime:
        assert runtime.threads == usable_cores()
        assert len(runtime.predict(images)) == 3


def test_a_bundle_of_one_thread_starts_no_workers(folder: Path):
    before = workers()
    with load(folder) as runtime:
        runtime.warm_up()
        assert workers() == before


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_runtimes_with_different_thread_counts_live_together(library: Path, tmp_path: Path, images: np.ndarray):
    affinity, before = os.sched_getaffinity(0), workers()
    one, two = (load(tiny_bundle(tmp_path / f"{n}", library, target=detect("native", n), seed=n)) for n in (1, 2))
    for _ in range(3):
        np.testing.assert_allclose(one.logits(inputs(4)), reference(weights(1), inputs(4)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(two.logits(inputs(4)), reference(weights(2), inputs(4)), rtol=1e-4, atol=1e-5)
    assert (one.threads, two.threads) == (1, 2)
    assert workers() == before + 1, "the second thread of the second runtime, and no other"
    assert os.sched_getaffinity(0) == affinity
    for task in Path("/proc/self/task").iterdir():
        assert os.sched_getaffinity(int(task.name)) == affinity
    two.close()
    # Python's part of a thread ends before the system's part, which takes its workers along.
    eventually(lambda: workers() == before)
    assert len(one.predict(images)) == 3
    one.close()


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_environment_variables_do_not_change_the_thread_count(library: Path, tmp_path: Path):
    folder = tiny_bundle(tmp_path / "b", library, target=detect("native", 2))
    code = (
        "import os, sys\n"
        "os.environ['TVM_NUM_THREADS'] = os.environ['OMP_NUM_THREADS'] = '1'\n"
        "from netcut_fx.runtime import load\n"
        "runtime = load(sys.argv[1])\n"
        "runtime.warm_up()\n"
        "names = [open(f'/proc/self/task/{t}/comm').read() for t in os.listdir('/proc/self/task')]\n"
        "print(runtime.threads, sum(n.startswith('netcut-') for n in names))\n"
    )
    done = run(code, folder)
    assert (done.stderr, done.stdout) == ("", "2 1\n")


def test_a_runtime_that_is_dropped_frees_its_threads(folder: Path, library: Path, tmp_path: Path):
    # Its own thread is followed: collecting garbage may end threads of earlier tests as well.
    before = set(threading.enumerate())
    runtime = load(folder)
    (own,) = set(threading.enumerate()) - before
    assert own.is_alive()
    del runtime
    gc.collect()
    eventually(lambda: not own.is_alive())


def test_a_closed_runtime_says_so(folder: Path, images: np.ndarray):
    runtime = load(folder)
    runtime.close()
    runtime.close()
    with pytest.raises(NetcutError) as error:
        runtime.predict(images)
    assert str(error.value) == f"the runtime of {folder} was closed; load the bundle again"


def test_many_threads_may_call_one_runtime(runtime: Runtime):
    batches = [inputs(n) for n in range(1, 9)]
    found: dict[int, np.ndarray] = {}

    def call(i: int) -> None:
        for _ in range(20):
            found[i] = runtime.logits(batches[i])

    callers = [threading.Thread(target=call, args=(i,)) for i in range(len(batches))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for i, batch in enumerate(batches):
        np.testing.assert_allclose(found[i], reference(weights(), batch), rtol=1e-4, atol=1e-5)


def test_a_forked_child_answers_too(library: Path, tmp_path: Path):
    folder = tiny_bundle(tmp_path / "b", library, target=detect("native", min(2, usable_cores())))
    code = (
        "import os, sys, numpy as np\n"
        "from netcut_fx.runtime import load\n"
        "runtime = load(sys.argv[1])\n"
        "x = np.ones((3, 3, 8, 8), np.float32)\n"
        "expected = runtime.logits(x)\n"
        "child = os.fork()\n"
        "same = np.array_equal(runtime.logits(x), expected)\n"
        "if child == 0: os._exit(0 if same else 1)\n"
        "print(same, os.waitpid(child, 0)[1])\n"
    )
    done = run(code, folder)
    assert (done.stderr, done.stdout) == ("", "True 0\n")


def test_a_bundle_replaced_under_a_running_process_is_not_the_old_one(library: Path, tmp_path: Path):
    other = tmp_path / "other.so"
    other.write_bytes(library.read_bytes() + b"\0")
    folder = tiny_bundle(tmp_path / "b", library)
    with load(folder) as first:
        tiny_bundle(folder, other, seed=5)
        with load(folder) as second:
            np.testing.assert_allclose(first.logits(inputs(2)), reference(weights(0), inputs(2)), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(second.logits(inputs(2)), reference(weights(5), inputs(2)), rtol=1e-4, atol=1e-5)
    mapped = Path("/proc/self/maps").read_text()
    assert f"{second.manifest.files['lib.so']}.so" in mapped


def test_preprocessing_is_the_manifests(library: Path, tmp_path: Path, images: np.ndarray):
    half = Preprocess.named((SIZE, SIZE), "half")
    parts = {"library": library, "runtime_library": runtime_library(), "params": weights()}
    with load(write_bundle(tmp_path / "b", manifest=replace(tiny_manifest(), preprocess=half), **parts)) as runtime:
        np.testing.assert_array_equal(runtime.predict(images).logits, runtime.logits(half(images)))


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 7, 2)])
def test_aligned_copies(shape: tuple[int, ...]):
    for dtype in (np.float32, np.int64, np.uint8):
        array = (np.random.default_rng(0).random(shape) * 100).astype(dtype)
        for source in (array, array.T):
            copy = aligned_copy(source)
            np.testing.assert_array_equal(copy, source)
            assert copy.dtype == dtype
            assert copy.size == 0 or copy.ctypes.data % ALIGNMENT_BYTES == 0
            assert copy.flags.c_contiguous
            assert copy.flags.writeable
            assert not np.shares_memory(copy, source)


def test_threads_are_found_by_name():
    ready, done = threading.Event(), threading.Event()
    ids: list[int] = []

    def sleep() -> None:
        ids.append(threading.get_native_id())
        Path(f"/proc/self/task/{ids[0]}/comm").write_text("sleeper")
        ready.set()
        done.wait(60)

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    ready.wait(60)
    assert named_threads("sleeper") == ids
    done.set()
    sleeper.join()
    # Joined is the interpreter's part of it: the system forgets the thread a little later.
    for _ in range(500):
        if not named_threads("sleeper"):
            break
        time.sleep(0.01)
    assert named_threads("sleeper") == []
