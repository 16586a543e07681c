"""The deadlines of a sweep."""

from __future__ import annotations

import numpy as np

from netcut_fx.errors import NetcutError
from netcut_fx.exploration.facts import Facts


def sweep_of(facts: Facts, count: int) -> tuple[float, ...]:
    """`count` deadlines in ms, from the fastest cut of all to just above the slowest uncut network.

    Each is longer than the one before by the same factor; rounded to three digits, so that they can be read and asked
    for again.

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
    return tuple(dict.fromkeys(float(f"{ms:.3g}") for ms in np.geomspace(low, high, count)))
