"""Warm start: what the most similar workloads found good or bad changes the order in which schedules are tried.

The model of the machine stays in charge: it knows what a workload's shape divides by, and its first choice is rarely
5 % from the best. A neighbour of 56 columns likes tiles that leave a remainder of 55.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from netcut_fx.backends.tvm.trial_log import Trial, Workload

#: Further than this, in doublings of extents summed up, a workload says nothing.
_FAR = 6.0
#: Neighbours that are asked.
_NEIGHBOURS = 3
#: A workload on which fewer plans were timed does not know its best one.
_PLANS_TIMED = 3
#: So much slower than the best of its workload is still as good, or is bad.
_AS_GOOD, _BAD = 1.05, 1.5
#: Plans behind these are no neighbour's to bring forward.
_SENSIBLE = 8


def distance(one: Workload, other: Workload) -> float:
    """Doublings between the extents of two workloads, summed up; infinite between kinds."""
    if one.kind != other.kind or one.extents.keys() != other.extents.keys():
        return math.inf
    return sum(abs(math.log2(n / other.extents[name])) for name, n in one.extents.items())


def warm_order(names: Sequence[str], workload: Workload, known: Mapping[str, Sequence[Trial]]) -> tuple[str, ...]:
    """The plans `names` of `workload`, in the order in which they should be tried.

    The first stays first, unless the nearest workload that tried it knows a better one. Behind it comes the best plan
    of each of the nearest workloads, nearest first; then the others in the order they have, those last that were bad on
    the nearest one that tried them. Only plans among the first few of `names` are brought forward.

    Parameters
    ----------
    names : sequence of str
        Plans, those first that the model of the machine finds best.
    workload : Workload
        What they are for.
    known : mapping of str to sequence of Trial
        What was tried, by workload.
    """
    if not names:
        return ()
    tables = [_table(trials) for trials in _nearest(workload, known)]
    sensible = names[:_SENSIBLE]
    forward: list[str] = []
    for table in tables:
        tried = [name for name in sensible if name in table]
        if tried and table[best := min(tried, key=table.__getitem__)] <= _AS_GOOD:
            forward.append(best)
    judge = next((table for table in tables if names[0] in table), {names[0]: 1.0})
    if judge[names[0]] <= _AS_GOOD:
        forward.insert(0, names[0])
    forward = list(dict.fromkeys(forward))
    bad: dict[str, bool] = {}
    for table in tables:
        for name, slowness in table.items():
            bad.setdefault(name, slowness > _BAD)
    rest = [name for name in names if name not in forward]
    return (*forward, *sorted(rest, key=lambda name: bad.get(name, False)))


def _nearest(workload: Workload, known: Mapping[str, Sequence[Trial]]) -> list[Sequence[Trial]]:
    found: list[tuple[float, str, Sequence[Trial]]] = []
    for name, trials in known.items():
        if name == workload.name or not trials:
            continue
        far = distance(workload, trials[0].workload)
        if far <= _FAR and len(_table(trials)) >= _PLANS_TIMED:
            found.append((far, name, trials))
    return [trials for _, _, trials in sorted(found, key=lambda item: item[:2])[:_NEIGHBOURS]]


def _table(trials: Iterable[Trial]) -> dict[str, float]:
    """How many times slower than the best each plan of a workload was."""
    times: dict[str, float] = {}
    for trial in trials:
        if trial.plan is not None and trial.seconds is not None:
            times[trial.plan] = min(trial.seconds, times.get(trial.plan, math.inf))
    best = min(times.values(), default=math.inf)
    return {plan: seconds / best for plan, seconds in times.items()}
