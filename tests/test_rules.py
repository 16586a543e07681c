"""Rules of the house that no single module can keep alone, each read from our own sources or from a fresh process."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import cost_models
import netcut_fx
from netcut_fx.comparison.versus import RUNS_FOR_P99
from netcut_fx.measure import Measurement
from netcut_fx.report import write_report
from tests.sample_result import sample_result

ROOT = Path(__file__).parent.parent
PACKAGES = (Path(netcut_fx.__file__).parent, Path(cost_models.__file__).parent)
SOURCES = {path.relative_to(ROOT).as_posix(): path for package in PACKAGES for path in sorted(package.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
WITHOUT_TVM = [
    "netcut_fx",
    "netcut_fx.runtime",
    "netcut_fx.preprocess",
    "netcut_fx.bundle",
    "netcut_fx.cli",
    "cost_models",
]


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that a source imports, at its top or anywhere else."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports would escape this test"
            yield str(node.module)


def dotted(node: ast.AST) -> str:
    """``torch.load`` of the expression; empty for anything but names and attributes."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_the_sources_are_found() -> None:
    assert len(TREES) > 80


# A percentile is printed only when the sample supports it (p99 needs 1,000 runs).


class _Text(HTMLParser):
    """What a reader of a page sees."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in ("style", "script")
        self.parts += [value for name, value in attrs if name == "title" and value]

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


PERCENTILE = re.compile(
    r"\bp\s?(\d{2}(?:\.\d+)?)\b|(\d+(?:\.\d+)?)(?:th|\s?%)[ -](?:percen|quan)tile|percentile", re.IGNORECASE
)


def percentiles(text: str) -> list[str]:
    return [found[0] for found in PERCENTILE.finditer(text)]


def test_percentiles_are_recognised() -> None:
    assert percentiles("p99 3 ms, the 95th percentile, P99.9, 5 % quantile") == [
        *("p99", "95th percentile", "P99.9", "5 % quantile")
    ]
    assert percentiles("param p000, top10, 95 % interval") == []


def test_no_percentile_of_fifteen_rounds_is_printed() -> None:
    """The stopwatch takes 15 rounds: it prints their median, its interval, and how many there were."""
    text = str(Measurement.of([float(i) for i in range(1, 16)], number=7))
    assert text == "8.000 ms [4.000, 12.000] (15 rounds of 7)"
    assert percentiles(text) == []


def test_an_interval_of_few_rounds_is_their_range() -> None:
    measured = Measurement.of([1.0, 2.0, 3.0])
    assert (measured.low_ms, measured.high_ms) == (measured.min_ms, measured.max_ms) == (1.0, 3.0)


def test_no_percentile_is_in_the_report(tmp_path: Path) -> None:
    write_report(sample_result(), tmp_path / "report.html")
    reader = _Text()
    reader.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    text = " ".join(reader.parts)
    assert "measured" in text
    assert percentiles(text) == []


def test_no_percentile_is_in_a_text_that_a_source_could_print() -> None:
    """Docstrings apart; whoever wants to print one has to count the runs first, and to change this test."""
    found: list[tuple[str, str]] = []
    for name, tree in TREES.items():
        documentation = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                found += [(name, text) for text in percentiles(node.value)]
    # They print what `compare` and `Served.to_json` give, which is None for fewer runs.
    counted = {"netcut_fx/cli/artefacts.py", "netcut_fx/cli/bench_table.py", "netcut_fx/cli/gate.py"}
    assert {(name, text) for name, text in found if name not in counted} == set()
    assert RUNS_FOR_P99 == 1000


# No pickle of our own: JSON, npz without objects, safetensors. Foreign checkpoints load with weights_only=True.

PICKLING = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
# The error that torch.load raises for a checkpoint that it refuses.
HARMLESS = {"pickle.UnpicklingError", "pickle.PickleError"}


@pytest.mark.parametrize("name", TREES)
def test_nothing_is_pickled(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert str(node.module).partition(".")[0] not in PICKLING, ast.unparse(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name == "pickle" or alias.name.partition(".")[0] not in PICKLING, ast.unparse(node)
                assert alias.asname is None or alias.name != "pickle", "under another name it would escape this test"
        elif isinstance(node, ast.Attribute) and dotted(node.value) == "pickle":
            assert dotted(node) in HARMLESS, ast.unparse(node)
        elif isinstance(node, ast.Call):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("allow_pickle", "False") == "False", ast.unparse(node)
            assert given.get("weights_only", "True") == "True", ast.unparse(node)
            function = dotted(node.func)
            # numpy's defaults are safe for load and not for save; torch's depend on its version: all are written out.
            if function in ("np.load", "np.save", "numpy.load", "numpy.save"):
                assert given.get("allow_pickle") == "False", ast.unparse(node)
            if function == "torch.load":
                assert given.get("weights_only") == "True", ast.unparse(node)
            # The exchange format of `netcut cut --out` is torch's own: torch.export.save.
            assert function not in ("torch.save", "torch.jit.load", "torch.package.PackageImporter"), ast.unparse(node)
            assert not function.endswith("read_pickle"), ast.unparse(node)


# Importing the package starts no network, no logging set-up, no telemetry, and pulls in neither tvm nor torchvision.

_IMPORT = """
import logging, socket, sys, threading, warnings
opened = []
class Blocked(socket.socket):
    def __init__(self, *arguments, **options):
        opened.append(arguments)
        raise OSError("sockets are blocked")
socket.socket = Blocked
socket.create_connection = Blocked
socket.getaddrinfo = Blocked
import {module}
root = logging.getLogger()
loggers = [root, *(l for l in logging.Logger.manager.loggerDict.values() if isinstance(l, logging.Logger))]
ours = [l for l in loggers if l.name == "root" or l.name.startswith(("netcut_fx", "cost_models"))]
print([l.name for l in ours if l.handlers], root.level == logging.WARNING, len(opened), threading.active_count())
print([m for m in ("tvm", "torchvision", "torch") if m in sys.modules])
"""


@pytest.mark.parametrize("module", WITHOUT_TVM)
def test_importing_sets_up_nothing(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _IMPORT.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.splitlines() == ["[] True 0 1", "[]"]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_working_with_torch_brings_neither_tvm_nor_torchvision() -> None:
    """Tracing, cutting and estimating need no compiler; without torchvision nothing is missing."""
    code = (
        "import sys, torch, netcut_fx\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))\n"
        "traced = netcut_fx.trace(net, torch.zeros(1, 3, 8, 8))\n"
        "found = netcut_fx.frontiers(traced, granularity='node')\n"
        "trn = netcut_fx.cut(traced, found[0], head=netcut_fx.HeadPass(classes=2))\n"
        "print(tuple(trn.graph_module(torch.zeros(1, 3, 8, 8)).shape))\n"
        "print([m for m in ('tvm', 'torchvision') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(1, 2)", "[]"]


def test_only_remote_devices_can_reach_the_network() -> None:
    """Nothing else of ours imports a client of it, at import or later; `urllib.parse` only splits text."""
    clients = {"ftplib", "http", "httpx", "requests", "smtplib", "socket", "ssl", "telnetlib", "urllib", "urllib3"}
    named = {(name, module) for name, tree in TREES.items() for module in imported(tree)}
    assert {(n, m) for n, m in named if m.partition(".")[0] in clients and m != "urllib.parse"} == {
        ("netcut_fx/backends/tvm/remote_device.py", "socket")
    }


# Units stand in names; no utils, common, helper, manager.

EMPTY_WORD = re.compile(r"(^|_)(util|utils|utilities|common|helper|helpers|manager|managers|misc)($|_)")


def test_no_module_is_a_drawer_for_anything() -> None:
    names = {part.removesuffix(".py") for name in SOURCES for part in name.split("/")}
    tests = {path.stem for path in (ROOT / "tests").rglob("*.py")}
    assert [name for name in sorted(names | tests) if EMPTY_WORD.search(name)] == []


TIME_WORD = re.compile(r"(^|_)(latency|duration|elapsed|deadline|timeout|overhead)$")


def test_numbers_with_a_unit_say_it_in_their_names() -> None:
    """A parameter or field annotated as a number that is called after a time alone leaves its reader to guess."""
    found: list[str] = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
                called = node.arg if isinstance(node, ast.arg) else dotted(node.target)
                if ast.unparse(node.annotation).startswith(("float", "int")) and TIME_WORD.search(called):
                    found.append(f"{name}: {called}")
    assert found == []


# Who imports whom.


@pytest.mark.parametrize("name", [name for name in TREES if name.startswith("cost_models/")])
def test_cost_models_know_nothing_of_graphs_frameworks_and_compilers(name: str) -> None:
    forbidden = {"netcut_fx", "networkx", "torch", "torchvision", "tvm", "tvm_ffi"}
    assert {module.partition(".")[0] for module in imported(TREES[name])} & forbidden == set()


def test_only_the_tvm_backend_imports_tvm() -> None:
    importing = {name for name, tree in TREES.items() for m in imported(tree) if m.partition(".")[0] == "tvm"}
    assert importing
    assert {name for name in importing if not name.startswith("netcut_fx/backends/tvm/")} == set()
