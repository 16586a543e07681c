"""The digest of source files: an edit, another set or another name changes it, the order of names does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from netcut_fx.code_version import sources_digest
from netcut_fx.retraining_key import SOURCES


def test_it_follows_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "passes").mkdir()
    for name, text in (("a.py", "1"), ("b.py", "2"), ("passes/head.py", "3")):
        (tmp_path / name).write_text(text)
    names = ["a.py", "passes/head.py"]
    first = sources_digest(names, package=tmp_path)
    assert len(first) == 64
    assert sources_digest([*reversed(names), "a.py"], package=tmp_path) == first
    assert sources_digest([*names, "b.py"], package=tmp_path) != first
    assert sources_digest(["b.py", "passes/head.py"], package=tmp_path) != first
    (tmp_path / "b.py").write_text("another")
    assert sources_digest(names, package=tmp_path) == first
    (tmp_path / "passes" / "head.py").write_text("4")
    assert sources_digest(names, package=tmp_path) != first


def test_bytes_do_not_move_between_files_unseen(tmp_path: Path) -> None:
    digests: set[str] = set()
    for one, two in (("ab", "c"), ("a", "bc"), ("abc", "")):
        (tmp_path / "a.py").write_text(one)
        (tmp_path / "b.py").write_text(two)
        digests.add(sources_digest(["a.py", "b.py"], package=tmp_path))
    assert len(digests) == 3


def test_the_sources_of_a_retraining_are_there() -> None:
    assert {"evaluate.py", "data.py", "checkpoint.py", "passes/head.py"} <= set(SOURCES)
    assert len(sources_digest(SOURCES)) == 64
    with pytest.raises(FileNotFoundError, match=r"no_such\.py"):
        sources_digest(["no_such.py"])


def test_a_folder_stands_for_all_its_sources(tmp_path: Path) -> None:
    (tmp_path / "rules" / "deep").mkdir(parents=True)
    (tmp_path / "rules" / "a.py").write_text("1")
    (tmp_path / "rules" / "deep" / "b.py").write_text("2")
    assert sources_digest(["rules/"], package=tmp_path) == sources_digest(
        ["rules/a.py", "rules/deep/b.py"], package=tmp_path
    )
    with pytest.raises(FileNotFoundError):
        sources_digest(["elsewhere/"], package=tmp_path)
    before = sources_digest(["rules/"], package=tmp_path)
    (tmp_path / "rules" / "deep" / "c.py").write_text("")
    assert sources_digest(["rules/"], package=tmp_path) != before
