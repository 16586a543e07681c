"""What ``netcut bench`` prints can be read in terminals of any usual width."""

from __future__ import annotations

from pathlib import Path

import pytest

from netcut_fx.bundle import Bundle
from netcut_fx.cli.bench_table import print_comparison
from netcut_fx.comparison.shares import KernelShare, Peak
from netcut_fx.comparison.versus import Comparison, Timing
from netcut_fx.measure import Measurement
from tests.tiny_bundle import tiny_manifest

MANIFEST = tiny_manifest()
PEAK = Peak(160e9, 12e9)
NAME = "fused_conv2d11_add5_subtract1_divide1_relu3_add7_clip9_prepacked"


def timing(ms: float, rounds: int, name: str = "", p99_ms: float | None = None) -> Timing:
    kernel = KernelShare(NAME, 91.25, 12_345_678, 4096, 0.25, 80.5, False, "1x1280x112x112")
    measured = Measurement.of([ms + i for i in range(rounds)], 10)
    return Timing(
        name or "netcut",
        2,
        None if name else Bundle(Path("/bundles/tiny"), MANIFEST),
        "2.13.0+cpu",
        measured,
        p99_ms,
        1e-6,
        75_000_000,
        0.4,
        0.1,
        () if name else (kernel,) * 14,
    )


def shown(columns: int, found: Comparison, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_comparison(found, MANIFEST)
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_no_figure_is_cut_off(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    found = Comparison((timing(270.009, 9), timing(1135.0045, 9, "torch-compile")), {2: PEAK})
    text = shown(columns, found, monkeypatch, capsys)
    tables = [line for line in text.splitlines() if line[:1] in "│┃┏└"]
    assert max(map(len, tables)) <= columns
    ours, theirs = (line.split() for line in tables if line.startswith(("│ netcut", "│ torch")))
    assert {"274.009", "40.0%"} <= set(ours)
    assert {"torch-compile", "2.13.0", "1139.005", "4.16x"} <= set(theirs)
    kernels = [line.split() for line in tables if "(untuned)" in line]
    assert len(kernels) == 12
    assert {"91.250", "12.3", "0.1", "25.0%", "80.500"} <= set(kernels[0])
    assert "2 others" in text
    assert "peak of 2 threads: 160.0 GFLOP/s, 12.0 GB/s" in text
    wide = columns > 80
    assert ("1x1280x112x112" in text, "95 % interval" in text, "271.009–277.009" in text) == (wide,) * 3


def test_long_names_of_kernels_keep_their_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    found = Comparison((timing(270.009, 9),), {2: PEAK})
    assert "│ conv2…clip9 (untuned) │" in " ".join(shown(80, found, monkeypatch, capsys).split())
    whole = "conv2d11_add5_subtract1_divide1_relu3_add7_clip9 (untuned)"
    assert whole in shown(200, found, monkeypatch, capsys)


def test_nothing_is_said_that_few_runs_do_not_support(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    few = shown(120, Comparison((timing(2.5, 3),), {}), monkeypatch, capsys)
    assert "95 % interval" not in few
    assert "range" in few
    assert "a 99th percentile needs --runs 1000" in few
    assert "slowest kernels, 2 threads" in few
    many = shown(120, Comparison((timing(2.5, 9, p99_ms=3.75),), {}), monkeypatch, capsys)
    assert "3.750" in many
    assert "--runs" not in many
