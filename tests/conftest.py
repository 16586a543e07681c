"""What all tests share: fixed seeds, a hypothesis profile without stopwatch, golden texts."""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

GOLDEN = Path(__file__).parent / "golden"

# Other work on the machine must not fail a test, so there are no deadlines; the same examples every time.
settings.register_profile(
    "netcut", deadline=None, derandomize=True, max_examples=20, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("netcut")


def pytest_addoption(parser: pytest.Parser) -> None:
    """One switch rewrites all golden texts; review the difference before committing it."""
    parser.addoption("--regenerate-golden", action="store_true", help="write tests/golden/*.txt instead of comparing")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Each test draws the same numbers on one thread, whatever ran before it."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    # The networks here are tiny: threads only wait for each other, and their number may change the last bit.
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled network, small enough to be made in a test."""
    pytest.importorskip("tvm")
    from tests.tiny_bundle import build_library

    path = tmp_path_factory.mktemp("library") / "lib.so"
    build_library(path)
    return path


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)`` compares `text` with ``tests/golden/NAME.txt``."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--regenerate-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing; write it with pytest --regenerate-golden and review it"
        expected = path.read_text(encoding="utf-8")
        difference = difflib.unified_diff(expected.splitlines(), text.splitlines(), "golden", "now", lineterm="")
        assert text == expected, "\n".join(["text changed; if wanted, run pytest --regenerate-golden", *difference])

    return compare
