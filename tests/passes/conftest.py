"""Around every pass in every test here: argument and result are well-formed, and the argument stays as it was."""

from __future__ import annotations

import pytest

from netcut_fx.graph import TracedModule
from netcut_fx.passes import Pass
from netcut_fx.text import to_text
from netcut_fx.verify import check

_apply = Pass.__call__


@pytest.fixture(autouse=True)
def well_formed_around_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass itself checks its result only."""

    def checked(self: Pass, traced: TracedModule) -> TracedModule:
        check(traced)
        before = to_text(traced)
        result = _apply(self, traced)
        assert to_text(traced) == before, f"{self.name} edited the graph of its argument"
        check(result)
        return result

    monkeypatch.setattr(Pass, "__call__", checked)
