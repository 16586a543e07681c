"""Instruments watch a pipeline from outside its passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from netcut_fx.graph import TracedModule
from netcut_fx.passes.base import Pass
from netcut_fx.text import to_text


@dataclass
class Timing:
    """Collects how long each pass took.

    Attributes
    ----------
    rows : list of (str, float)
        Name of the pass and its seconds, checks included, in the order of running.
    """

    rows: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])

    def before(self, rewrite: Pass, traced: TracedModule) -> None:
        """Nothing to do."""

    def after(self, rewrite: Pass, traced: TracedModule, seconds: float) -> None:
        """Note the time."""
        self.rows.append((rewrite.name, seconds))


@dataclass
class Dump:
    """Writes the network as text after every pass, and before it where that was not written yet.

    Parameters
    ----------
    sink : callable
        Receives each text, e.g. ``print`` or ``file.write``.
    types : bool
        With shapes and element types.
    """

    sink: Callable[[str], object]
    types: bool = True
    _last: TracedModule | None = field(default=None, init=False, repr=False)

    def before(self, rewrite: Pass, traced: TracedModule) -> None:
        """Write the network as it came, unless the pass before has just left it so."""
        if traced is not self._last:
            self.sink(f"# before {rewrite.name}\n{to_text(traced, types=self.types)}")

    def after(self, rewrite: Pass, traced: TracedModule, seconds: float) -> None:
        """Write the network as the pass left it."""
        self._last = traced
        self.sink(f"# after {rewrite.name}\n{to_text(traced, types=self.types)}")
