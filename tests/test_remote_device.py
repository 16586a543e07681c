"""Tuning, measuring and calibrating through TVM's RPC tracker, with real servers on this machine."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cost_models import Calibration
from netcut_fx.errors import BackendError, DeviceLost, SpecError
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.latency import samples_of_profile
from netcut_fx.tracing import trace
from tests.command_line import refused

pytest.importorskip("tvm")

import netcut_fx.calibrating
from netcut_fx.backends.tvm.remote_backend import RemoteBackend
from netcut_fx.backends.tvm.remote_device import DeviceAddress, RemoteDevice
from netcut_fx.calibrating import calibrate
from tests.rpc_devices import Devices, devices

NOWHERE = DeviceAddress("127.0.0.1", 9, "board")


def small(name: str = "small") -> TracedModule:
    layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return trace(layers.eval(), torch.zeros(1, 3, 12, 12), name=name)


@pytest.fixture(scope="module")
def pair() -> Generator[Devices]:
    """Two servers, one of which a test kills."""
    with devices(2) as found:
        yield found


def test_answers_are_those_of_torch_and_every_kernel_has_a_time(pair: Devices) -> None:
    network = small()
    backend = RemoteBackend("native", 1, pair.address)
    assert backend.target.cpu_model == "remote: board"
    compiled = backend.compile(network)
    image = np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)
    expected = network.graph_module(torch.from_numpy(image)).detach().numpy()
    np.testing.assert_allclose(compiled.run(image), expected, rtol=1e-4, atol=1e-5)
    assert compiled.timer()(3) > 0
    samples = samples_of_profile(kernels(network), compiled.profile(5), "small")
    assert {s.key for s in samples} == {k.key for k in kernels(network)}
    assert all(s.rounds == 5 for s in samples)
    with pytest.raises(BackendError, match="a network measured on a remote device is not saved to"):
        compiled.save(Path("x"))
    with pytest.raises(BackendError, match=r"compiled for inputs \(1, 3, 12, 12\), got \(1, 3, 8, 8\)"):
        compiled.run(np.zeros((1, 3, 8, 8), np.float32))
    backend.device.release()


def test_what_fails_on_a_device_that_is_there_is_not_tried_on_another(pair: Devices) -> None:
    device = RemoteDevice(pair.address)
    calls: list[Any] = []

    def fails(session: Any) -> None:
        calls.append(session)
        session.get_function("there is no such function")()

    with pytest.raises(Exception, match="there is no such function"):
        device.call(fails)
    assert (len(calls), device.lost) == (1, 0)
    device.release()


def test_no_sample_is_lost_with_a_device(pair: Devices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two devices dies while the second network is measured; then the other one."""
    backend, path = RemoteBackend("native", 1, pair.address, wait_s=5.0), tmp_path / "c.json"
    seen: list[str] = []
    profile = netcut_fx.calibrating.profile_until_known

    def dying(compiled: Any, calm_ms: float | None = None) -> Any:
        seen.append("profile")
        if len(seen) == 2:
            assert pair.kill_busy() == 1
        return profile(compiled, calm_ms)

    monkeypatch.setattr(netcut_fx.calibrating, "profile_until_known", dying)
    networks = [small("first"), trace(nn.Conv2d(3, 8, 5).eval(), torch.zeros(1, 3, 16, 16), name="second")]
    done = calibrate(backend, path, minutes=1e-6, database=tmp_path / "t", trials=2, networks=networks[:1])
    assert (done.measured, done.failed) == (1, ())
    done = calibrate(backend, path, minutes=1e-6, database=tmp_path / "t", trials=2, networks=networks)
    assert (done.measured, done.failed) == (1, ())
    assert backend.device.lost == 1
    found = Calibration.load(path, fingerprint=backend.target.fingerprint())
    assert {n.group for n in found.networks} == {"first", "second"}
    assert {s.key for s in found.samples} == {k.key for n in networks for k in kernels(n)}
    assert pair.kill_busy() == 1
    with pytest.raises(
        DeviceLost, match=r"no device 'board' at the tracker 127\.0\.0\.1:\d+ \(none is free\); start one there: python"
    ):
        calibrate(backend, path, minutes=1.0, database=tmp_path / "t", trials=0)
    assert Calibration.load(path) == found


def test_no_tracker_is_named() -> None:
    with pytest.raises(DeviceLost, match=r"no device 'board' at the tracker 127\.0\.0\.1:9 \(.*refused.*\); start one"):
        RemoteDevice(NOWHERE, wait_s=0.1).call(lambda session: None)


@pytest.mark.parametrize("text", ["", "9190", ":9190", "host:", "host:0", "host:70000", "host:x"])
def test_a_tracker_is_host_and_port(text: str) -> None:
    with pytest.raises(SpecError, match=rf"a tracker is named HOST:PORT, got '{text}'; write for instance"):
        DeviceAddress.parse(text, "board")


def test_devices_are_named() -> None:
    assert DeviceAddress.parse("host:9190", "pi") == DeviceAddress("host", 9190, "pi")
    with pytest.raises(SpecError, match=r"the tracker host:9190 needs to know which devices are meant; name them with"):
        DeviceAddress.parse("host:9190", "")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("cuda", "a remote device needs a target 'llvm -mcpu=NAME' and 1 thread or more, got 'cuda' and 1"),
        ("llvm", "the compiler knows no x86_64 CPU '' for 'board'; "),
        ("llvm -mcpu=z80", "the compiler knows no x86_64 CPU 'z80' for 'board'; "),
    ],
)
def test_a_device_needs_its_cpu(target: str, text: str) -> None:
    with pytest.raises(SpecError) as refusal:
        RemoteBackend(target, 1, NOWHERE)
    assert str(refusal.value).startswith(text)


def test_the_command_line_wants_tracker_and_key_together(tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "c.json"))
    assert refused("calibrate", "--key", "pi", *out) == (
        "error: --key pi names devices of a tracker; say which with --rpc HOST:PORT"
    )
    assert refused("calibrate", "--rpc", "host:1", *out) == (
        "error: the tracker host:1 needs to know which devices are meant; name them with --key"
    )
