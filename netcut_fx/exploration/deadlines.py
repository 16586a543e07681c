"""The deadlines of a sweep."""

from __future__ import annotations

import numpy as np

from netcut_fx.errors import NetcutError
from netcut_fx.exploration.facts import Facts


def sweep_of(facts: Facts, count: int) -> tuple[float, ...]:
    """`count` deadlines in ms, from the fastest cut of all to just above the slowest uncut network.

    Each is longer than the one before by the same factor.

    Raises
    ------
    NetcutError
        If no latency is known.
    """
    usable = facts.usable()
    known = [e.ms for c in usable if (e := facts.estimates.get(c.key)) is not None and e.is_known]
    uncut = [facts.measured[c.key].ms for c in usable if c.uncut and c.key in facts.measured]
    if not known or not uncut:
        raise NetcutError("a sweep needs known latencies, and there are none; give deadlines with --deadline-ms")
    low, high = min(known) * 1.05, max(*uncut, *known) * 1.05
    return tuple(dict.fromkeys(_readable(ms) for ms in np.geomspace(low, high, count)))


def just_below_uncut(facts: Facts) -> tuple[float, ...]:
    """For each measured uncut network a deadline in ms that it misses by 2 %.

    There the network that is next in line is furthest behind: a sweep alone meets such places by chance.
    """
    return tuple(_readable(0.98 * facts.measured[c.key].ms) for c in facts.usable() if c.uncut)


def _readable(ms: float) -> float:
    """Three digits, so that a deadline can be read and asked for again."""
    return float(f"{ms:.3g}")
