"""``netcut bench`` with other runtimes beside the bundle, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from netcut_fx.bundle import network_beside, read_bundle, write_bundle
from netcut_fx.comparison import networks, peers
from netcut_fx.comparison.process import PinnedProcess
from netcut_fx.comparison.shares import Peak, kernel_shares, total
from netcut_fx.comparison.torch_peers import TorchPeer, fold_batch_norm
from netcut_fx.comparison.versus import compare
from netcut_fx.cutting import cut
from netcut_fx.errors import BackendError, SpecError
from netcut_fx.frontier import frontiers
from netcut_fx.host import pinned_cores, usable_cores
from netcut_fx.network_files import program_of, read_program, write_program
from netcut_fx.passes.head import HeadPass
from netcut_fx.runtime import load
from netcut_fx.tracing import trace
from tests.command_line import netcut, refused
from tests.small_run import MODEL, SIZE, residual
from tests.without_packages import error_without

pytest.importorskip("tvm")

COMPILE = ("compile", MODEL, "--input-size", SIZE, "--at", "layer1.0", "--classes", "7", "--trials", "0")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison") / "bundle"
    done = netcut(*COMPILE, "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def other_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another cut of the same network: the same shapes, other answers."""
    path = tmp_path_factory.mktemp("other") / "other.pt2"
    traced = trace(residual(), torch.zeros(1, 3, 32, 32))
    write_program(program_of(cut(traced, frontiers(traced)[1], head=HeadPass(7))), path)
    return path


def test_compile_lists_the_kernels_and_writes_the_network_beside(bundle: Path):
    rows = read_bundle(bundle).manifest.measurement["kernels"]
    assert all(row["flops"] > 0 and row["bytes"] > 0 and row["tuned"] is False for row in rows)
    assert total({"kernels": rows}, "flops") == sum(row["flops"] for row in rows)
    x = torch.randn(1, 3, 32, 32)
    with load(bundle) as runtime, torch.inference_mode():
        expected = read_program(network_beside(bundle)).module()(x)
        np.testing.assert_allclose(runtime.logits(x.numpy()), expected, rtol=1e-3, atol=1e-4)


def test_the_table_and_the_file_hold_every_artefact(bundle: Path, tmp_path: Path):
    out = tmp_path / "new" / "bench.json"
    words = ("--against", "torch-eager", "--runs", "1000", "--repeat", "5", "--out", str(out))
    done = netcut("bench", *words, str(bundle))
    assert done.returncode == 0, done.stderr
    assert "what holds netcut back, 1 thread" in done.stdout
    assert "peak of 1 thread: " in done.stdout
    assert f"torch-eager {torch.__version__[:4]}" in done.stdout
    answer = json.loads(out.read_text())
    own, eager = answer["timings"]
    assert (own["name"], own["bundle"], own["relative_error"]) == ("netcut", str(bundle), 0)
    assert (eager["name"], eager["version"], eager["bundle"]) == ("torch-eager", torch.__version__, None)
    assert 0 < eager["relative_error"] < 1e-4
    for timing in (own, eager):
        assert (timing["measured"]["rounds"], timing["measured"]["number"]) == (5, 200)
        assert timing["measured"]["min_ms"] <= timing["measured"]["ms"]
        assert timing["p99_ms"] > 0
        assert 0 < timing["flops_share"] < 1
        assert timing["memory_bytes"] > 1e6
    assert own["memory_bytes"] < eager["memory_bytes"]
    peak = answer["peaks"]["1"]
    assert own["flops_share"] == pytest.approx(
        sum(k["flops"] for k in own["kernels"]) / own["measured"]["ms"] * 1e3 / peak["flops_per_s"]
    )
    assert [k["name"] for k in own["kernels"]] == [
        row["name"] for row in read_bundle(bundle).manifest.measurement["kernels"]
    ]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch-compile"])
def test_each_peer_answers_as_the_bundle(bundle: Path, name: str):
    for package in (peers.PEERS[name], *(() if name.startswith("torch") else ("onnx", "onnxscript"))):
        pytest.importorskip(package)
    found = compare([bundle], peers=[name], rounds=2, runs=4, peak=False)
    own, other = found.timings
    assert (own.name, other.name, other.threads) == ("netcut", name, 1)
    assert other.relative_error < 1e-4
    assert other.version == peers.version_of(name)
    assert (other.p99_ms, other.flops_share, found.peaks) == (None, None, {})


def test_a_bundle_for_several_images_at_a_time(tmp_path: Path):
    done = netcut(*COMPILE, "--batch", "3", "--out", str(tmp_path / "bundle"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(" for 3 images")
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert (manifest.batch, manifest.input_shape, manifest.output_shape) == (3, (3, 3, 32, 32), (3, 7))
    installed = [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)]
    found = compare([tmp_path / "bundle"], peers=["torch-eager", *installed], rounds=2, runs=4, peak=False)
    assert [timing.name for timing in found.timings] == ["netcut", "torch-eager", *installed]
    assert max(timing.relative_error for timing in found.timings) < 1e-4
    x = torch.randn(7, 3, 32, 32)
    module = read_program(network_beside(tmp_path / "bundle")).module()
    with load(tmp_path / "bundle") as runtime, torch.inference_mode():
        expected = torch.cat([module(x[:3]), module(x[3:6]), module(torch.cat([x[6:], x[:2]]))[:1]])
        np.testing.assert_allclose(runtime.logits(x.numpy()), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_several_thread_counts(bundle: Path, tmp_path: Path):
    whole = read_bundle(bundle)
    manifest = replace(whole.manifest, target=replace(whole.manifest.target, threads=2))
    files = {"library": whole.library, "runtime_library": whole.runtime_library, "params": whole.params}
    second = write_bundle(tmp_path / "second", manifest=manifest, **files)
    words = ("--threads", "1", "2", "--no-peak", "--runs", "3", "--json")
    for bundles, expected in (
        ([bundle], [("netcut", 1), ("torch-eager", 1), ("torch-eager", 2)]),
        ([bundle, second], [("netcut", 1), ("torch-eager", 1), ("netcut", 2), ("torch-eager", 2)]),
    ):
        done = netcut("bench", "--against", "torch-eager", *map(str, bundles), *words)
        assert done.returncode == 0, done.stderr
        assert [(t["name"], t["threads"]) for t in json.loads(done.stdout)["timings"]] == expected
    line = refused("bench", str(bundle), "--threads", "2")
    assert line.endswith("runs on 1 threads, which --threads does not list; its count is fixed when it is compiled")


def test_another_network_is_found_out_before_any_time_is_shown(bundle: Path, other_network: Path):
    line = refused("bench", str(bundle), "--against", "torch-eager", "--network", str(other_network))
    assert line.startswith("error: torch-eager and the bundle answer differently: relative error ")
    assert line.endswith("(allowed 1e-03); give the network that the bundle was compiled from with --network")


def test_wrong_words(bundle: Path, tmp_path: Path):
    start = ("bench", str(bundle))
    assert refused(*start, "--runs", "0") == "error: measuring needs at least 1 run and 1 round, got 0 and 21"
    assert refused(*start, "--against", "torch", "openvin") == (
        "error: there is no peer 'openvin' to compare with; did you mean 'openvino'?"
    )
    gone = str(tmp_path / "gone.pt2")
    assert refused(*start, "--against", "torch", "--network", gone) == (
        f"error: comparing with torch-compile needs the network itself, and there is no file {gone}; write it with "
        "netcut export and give it with --network FILE.pt2"
    )
    (tmp_path / "net.txt").write_text("")
    assert refused(*start, "--against", "torch", "--network", str(tmp_path / "net.txt")) == (
        f"error: --network {tmp_path}/net.txt is neither .pt2 nor .onnx; write one with netcut export"
    )
    (tmp_path / "net.onnx").write_text("")
    assert refused(*start, "--against", "torch", "--network", str(tmp_path / "net.onnx")) == (
        "error: torch-compile does not read ONNX; give the network as .pt2 with --network"
    )
    (tmp_path / "net.pt2").write_text("")
    line = refused(*start, "--against", "torch-eager", "--network", str(tmp_path / "net.pt2"))
    assert line.startswith(f"error: torch-eager does not run {tmp_path}/net.pt2 (SpecError: {tmp_path}/net.pt2 is no ")
    assert line.endswith("; leave it out of --against")
    threads = usable_cores() + 1
    assert refused(*start, "--threads", "1", str(threads)) == (
        f"error: threads must be between 1 and the {usable_cores()} cores of this machine, got {threads}"
    )


@pytest.mark.parametrize(("peer", "package", "extra"), [("openvino", "openvino", "peers"), ("torch", "torch", "build")])
def test_a_missing_peer_names_the_extra(tmp_path: Path, peer: str, package: str, extra: str):
    code = f"from netcut_fx.comparison.peers import chosen_peers\nchosen_peers(['{peer}'])"
    name = "torch-compile" if peer == "torch" else peer
    assert error_without((package,), code, tmp_path) == (
        f"netcut_fx.errors.BackendError: comparing with {name} needs {package}, which is not installed; install it "
        f"with: pip install 'netcut-fx[{extra}]'"
    )


def test_names_of_peers():
    assert peers.chosen_peers(["torch", "torch-eager"]) == ("torch-compile", "torch-eager")
    assert peers.chosen_peers([]) == ()
    assert networks.peer_files((), None, None, Path()) == {}  # type: ignore[arg-type]


def test_a_process_that_dies_is_one_line(bundle: Path):
    job = {"kind": "bundle", "folder": str(bundle), "any_cpu": False}
    with PinnedProcess("netcut", job, pinned_cores(1), 1) as process:
        with pytest.raises(SpecError, match="a worker cannot do 'sing'"):
            process.ask({"do": "sing"})
        assert len(process.ask({"do": "time", "runs": 3})["ms"]) == 3
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(BackendError) as error:
            process.ask({"do": "memory"})
    assert str(error.value) == "the process of netcut ended (exit status -9); leave it out and try again"


def test_a_process_that_is_not_asked_is_stopped(bundle: Path):
    job = {"kind": "bundle", "folder": str(bundle), "any_cpu": False}
    with PinnedProcess("netcut", job, pinned_cores(1), 1) as process:
        process.ask({"do": "memory"})
        os.waitid(os.P_PID, process._process.pid, os.WSTOPPED | os.WNOWAIT)
        assert Path(f"/proc/{process._process.pid}/stat").read_text().split()[2] == "T"
        assert os.sched_getaffinity(process._process.pid) == set(pinned_cores(1))


def test_shares_of_the_roofline():
    peak = Peak(flops_per_s=1e9, bytes_per_s=1e6)
    rows = [
        {"name": "a", "flops": 1_000_000, "bytes": 500, "tuned": True},
        {"name": "b", "flops": None, "bytes": None, "tuned": False},
    ]
    first, second = kernel_shares([("a", (4.0, 2.0, 9.0)), ("b", (1.0,))], {"kernels": rows}, peak)
    assert (first.ms, first.flops_share, first.lost_ms) == (4.0, 0.25, 3.0)
    assert (second.flops_share, second.lost_ms, second.tuned) == (None, None, False)
    (other,) = kernel_shares([("a", (4.0,))], {"kernels": rows}, peak)
    assert other.flops is None, "another list of kernels than ran"
    assert peak.least_ms(1, 1000) == 1.0
    assert total({}, "flops") is None
    assert total({"kernels": rows}, "bytes") == 500


def test_batch_norm_is_folded_into_convolutions_of_a_program(tmp_path: Path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, bias=False),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 4, 1),
        torch.nn.BatchNorm2d(4, affine=False),
    ).eval()
    for norm in (net[1], net[4]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 3, 8, 8)
    program = torch.export.export(net, (x,))
    module = program.module(check_guards=False)
    assert fold_batch_norm(module) == 2
    assert "batch_norm" not in module.code
    torch.testing.assert_close(module(x), net(x))
    write_program(program, tmp_path / "net.pt2")
    peer = TorchPeer(tmp_path / "net.pt2", 1, (1, 3, 8, 8), compiled=False)
    torch.testing.assert_close(torch.from_numpy(peer.answer(x.numpy())), net(x).detach())
