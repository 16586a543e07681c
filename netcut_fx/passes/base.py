"""A pass rewrites a traced network into a new one; a pipeline is a readable list of passes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol, final

from netcut_fx.errors import PassError
from netcut_fx.graph import TracedModule
from netcut_fx.verify import check, check_no_shared_storage


@dataclass(frozen=True)
class Pass(ABC):
    """One rewriting of a network. Subclasses are frozen dataclasses whose fields are the options.

    A pass never edits its argument: it returns a new `TracedModule` with its own weights.
    """

    #: What it is called in a pipeline, e.g. ``fold-batch-norm``.
    name: ClassVar[str]

    def requires(self, traced: TracedModule) -> None:  # noqa: B027 (most passes apply to every network)
        """Raise `PassError` if this pass cannot be applied to `traced`."""

    @abstractmethod
    def call(self, traced: TracedModule) -> TracedModule:
        """Rewrite a copy of `traced`."""

    def ensures(self, before: TracedModule, after: TracedModule) -> None:  # noqa: B027 (may have nothing to promise)
        """Raise `PassError` if the result `after` is not what this pass promises."""

    @final
    def __call__(self, traced: TracedModule) -> TracedModule:
        """Apply the pass, checked on both sides.

        Raises
        ------
        PassError
            If `traced` does not fit, the result is not well-formed, or the argument was touched.
        """
        self.requires(traced)
        state = traced.state_hash()
        result = self.call(traced)
        if traced.state_hash() != state:
            raise PassError(
                f"pass {self.name} changed the weights of its argument {traced.name}; start it from copy_traced(traced)"
            )
        check_no_shared_storage(traced, result)
        check(result)
        self.ensures(traced, result)
        return result


class Instrument(Protocol):
    """Watches a pipeline; must not change what it sees."""

    def before(self, rewrite: Pass, traced: TracedModule) -> None:
        """Look at the argument of a pass."""
        ...

    def after(self, rewrite: Pass, traced: TracedModule, seconds: float) -> None:
        """Look at the result of a pass and how long it took."""
        ...


@dataclass(frozen=True)
class Pipeline:
    """Passes applied one after another.

    Parameters
    ----------
    passes : tuple of Pass
        In order.
    instruments : tuple of Instrument
        Told before and after each pass.
    """

    passes: tuple[Pass, ...]
    instruments: tuple[Instrument, ...] = ()

    def __call__(self, traced: TracedModule) -> TracedModule:
        """Apply all passes; an error says which pass it came from."""
        for rewrite in self.passes:
            for instrument in self.instruments:
                instrument.before(rewrite, traced)
            start = time.perf_counter()
            traced = rewrite(traced)
            seconds = time.perf_counter() - start
            for instrument in self.instruments:
                instrument.after(rewrite, traced, seconds)
        return traced

    def observed_by(self, *instruments: Instrument) -> Pipeline:
        """Return the same passes with further instruments."""
        return Pipeline(self.passes, (*self.instruments, *instruments))

    def then(self, passes: Iterable[Pass]) -> Pipeline:
        """Return the same pipeline with more passes at its end."""
        return Pipeline((*self.passes, *passes), self.instruments)
