"""Which candidates to retrain and to measure for a deadline, and which of them wins: three ways, from facts alone.

`next_steps` is asked again whenever new facts have come in, until it wants nothing more. So an exploration that was
stopped goes on where it was, and a measurement that refutes an estimate moves the choice to the next candidate.
"""

from __future__ import annotations

from dataclasses import dataclass

from netcut_fx.decision import rank_retrained
from netcut_fx.exploration.facts import Candidate, Facts, Key
from netcut_fx.exploration.options import Strategy


@dataclass(frozen=True)
class Steps:
    """What is wanted next; nothing when both are empty."""

    measure: tuple[Key, ...] = ()
    train: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What a strategy comes to for one deadline.

    Parameters
    ----------
    winner : (str, str) or None
        Network and cut; None if nothing meets the deadline.
    retrained : tuple
        What it retrained to choose among.
    """

    winner: Key | None
    retrained: tuple[Key, ...]


def next_steps(strategy: Strategy, facts: Facts, deadline_ms: float, shortlist: int) -> Steps:
    """What `strategy` needs to know next about `deadline_ms`."""
    if strategy == "ranked":
        met, unmeasured = _ranked(facts, deadline_ms, shortlist)
        return Steps(unmeasured, _untrained(facts, met))
    if strategy == "netcut":
        picks = netcut_picks(facts, deadline_ms)
        missing = _untrained(facts, picks)
        winner = _most_accurate(facts, picks) if not missing else None
        return Steps((winner,) if winner is not None and winner not in facts.measured else (), missing)
    everything = [c.key for c in facts.usable()]
    return Steps(tuple(k for k in everything if k not in facts.measured), _untrained(facts, everything))


def choose(strategy: Strategy, facts: Facts, deadline_ms: float, shortlist: int) -> Choice:
    """The winner by what is known; call it when `next_steps` wants nothing more."""
    if strategy == "ranked":
        met, _ = _ranked(facts, deadline_ms, shortlist)
        return Choice(_best(facts, met), tuple(met))
    if strategy == "netcut":
        picks = netcut_picks(facts, deadline_ms)
        return Choice(_most_accurate(facts, picks), tuple(picks))
    everything = [c.key for c in facts.usable()]
    return Choice(_best(facts, _meeting(facts, everything, deadline_ms)), tuple(everything))


def off_the_shelf(facts: Facts, deadline_ms: float) -> Key | None:
    """The best uncut network whose measurement meets `deadline_ms`, chosen on validation as the cuts are."""
    return _best(facts, _meeting(facts, [c.key for c in facts.usable() if c.uncut], deadline_ms))


def best_known(facts: Facts, deadline_ms: float) -> Key | None:
    """The best of all that is retrained and measured and meets `deadline_ms`, whatever it was retrained for.

    Retraining tells more than any ranking, and what was retrained for another deadline costs nothing more.
    """
    return _best(facts, _meeting(facts, [c.key for c in facts.usable()], deadline_ms))


def netcut_picks(facts: Facts, deadline_ms: float) -> list[Key]:
    """For each network the deepest cut whose estimate meets the deadline (Algorithm 1 of the paper).

    References
    ----------
    M. Zandigohar, D. Erdogmus, G. Schirner, "NetCut: Real-Time DNN Inference Using Layer Removal", DATE 2021,
    DOI 10.23919/DATE51398.2021.9474052.
    """
    deepest: dict[str, Key] = {}
    for candidate in facts.usable():
        estimate = facts.estimates.get(candidate.key)
        if estimate is not None and estimate.meets(deadline_ms):
            deepest[candidate.network] = candidate.key
    return list(deepest.values())


def _ranked(facts: Facts, deadline_ms: float, shortlist: int) -> tuple[list[Key], tuple[Key, ...]]:
    """The best candidates that really meet the deadline, at most `shortlist`, and what must be measured to know."""
    feasible = [c for c in facts.usable() if _predicted_to_meet(facts, c, deadline_ms)]
    feasible.sort(key=lambda c: rank_key(facts, c))
    met: list[Key] = []
    unmeasured: list[Key] = []
    for candidate in feasible:
        if len(met) + len(unmeasured) == shortlist:
            break
        if candidate.key not in facts.measured:
            unmeasured.append(candidate.key)
        elif facts.measured[candidate.key].ms <= deadline_ms:
            met.append(candidate.key)
    return met, tuple(unmeasured)


def rank_key(facts: Facts, candidate: Candidate) -> tuple[float, ...]:
    """Smaller is better: the potential of its frozen features, and of equal cuts of one network the deepest."""
    return (-facts.potential(candidate), -candidate.kept_flops)


def _predicted_to_meet(facts: Facts, candidate: Candidate, deadline_ms: float) -> bool:
    estimate = facts.estimates.get(candidate.key)
    return estimate is not None and estimate.meets(deadline_ms)


def _meeting(facts: Facts, keys: list[Key], deadline_ms: float) -> list[Key]:
    return [k for k in keys if k in facts.measured and facts.measured[k].ms <= deadline_ms]


def _untrained(facts: Facts, keys: list[Key]) -> tuple[Key, ...]:
    return tuple(k for k in keys if k not in facts.trained)


def _best(facts: Facts, keys: list[Key]) -> Key | None:
    """The first by the rule of a single run, on validation."""
    ready = {"\0".join(k): k for k in keys if k in facts.trained and k in facts.measured}
    return ready[rank_retrained({n: facts.validated(k) for n, k in ready.items()})[0]] if ready else None


def _most_accurate(facts: Facts, keys: list[Key]) -> Key | None:
    """The published rule: highest validation accuracy; the lower loss at a tie."""
    ready = [k for k in keys if k in facts.trained]
    if not ready:
        return None
    return min(ready, key=lambda k: (-facts.trained[k].validation.value, facts.trained[k].validation_loss))
