"""Choose: which trimmed networks are worth retraining under a deadline, and why each was taken or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cost_models import LatencyEstimate
from netcut_fx.errors import DeadlineUnmet, SpecError
from netcut_fx.evaluate import Accuracy

Verdict = Literal["feasible", "infeasible", "unknown"]


@dataclass(frozen=True)
class Validated:
    """What validation says of a retrained candidate, and how long it takes."""

    accuracy: Accuracy
    loss: float
    ms: float


def rank_retrained(candidates: Mapping[str, Validated]) -> tuple[str, ...]:
    """Names, best first, judged on validation alone.

    A few hundred images cannot tell candidates apart whose accuracy differs by less than one standard error: those
    count as equal to the best, and the lower cross-entropy decides, which uses every image's probability and not just
    its top class. The others follow by accuracy. At a tie the faster comes first.
    """
    best = max(candidates.values(), key=lambda c: c.accuracy.value).accuracy
    error = math.sqrt(best.value * (1 - best.value) / best.total)

    def key(name: str) -> tuple[float, ...]:
        found = candidates[name]
        if found.accuracy.value >= best.value - error:
            return (0, found.loss, found.ms)
        return (1, -found.accuracy.value, found.loss, found.ms)

    return tuple(sorted(candidates, key=key))


@dataclass(frozen=True)
class Judgement:
    """What was decided about one candidate.

    Parameters
    ----------
    name : str
        `Frontier.name`.
    verdict : str
        ``feasible``, ``infeasible`` or ``unknown``.
    reason : str
        One sentence.
    shortlisted : bool
        Whether it is among the few to be retrained.
    """

    name: str
    verdict: Verdict
    reason: str
    shortlisted: bool = False


@dataclass(frozen=True)
class Decision:
    """Judgement of every candidate under one deadline.

    Parameters
    ----------
    deadline_ms : float
        The bound.
    judgements : tuple of Judgement
        In the order of the candidates.
    shortlist : tuple of str
        Names to retrain, best first.
    reserve : tuple of str
        The other feasible names, best first: next in turn where a measurement refutes an estimate.
    """

    deadline_ms: float
    judgements: tuple[Judgement, ...]
    shortlist: tuple[str, ...]
    reserve: tuple[str, ...]

    def __str__(self) -> str:
        width = max(len(j.name) for j in self.judgements)
        lines = [f"deadline {self.deadline_ms:.3f} ms"]
        for j in self.judgements:
            mark = "*" if j.shortlisted else " "
            lines.append(f"{mark} {j.name:<{width}}  {j.verdict:<10}  {j.reason}")
        return "\n".join(lines)


def check_deadline(deadline_ms: float) -> float:
    """`deadline_ms` if it is one.

    Raises
    ------
    SpecError
        If it is zero, negative, infinite or not a number.
    """
    if not math.isfinite(deadline_ms) or deadline_ms <= 0:
        raise SpecError(f"a deadline must be a positive number of milliseconds, got {deadline_ms}")
    return float(deadline_ms)


def choose(
    estimates: Mapping[str, LatencyEstimate],
    accuracies: Mapping[str, Accuracy],
    deadline_ms: float,
    *,
    shortlist: int = 2,
) -> Decision:
    """Judge every candidate.

    Feasible means that the expected latency is known and within the deadline. The feasible are ranked by the accuracy
    of a quick head on frozen features, at equal accuracy the faster first.

    Parameters
    ----------
    estimates : mapping of str to LatencyEstimate
        By candidate, shallow to deep.
    accuracies : mapping of str to Accuracy
        Validation accuracy of the quick heads, for each candidate.
    deadline_ms : float
        The bound.
    shortlist : int
        How many to retrain.

    Raises
    ------
    SpecError
        If the deadline is no positive number.
    DeadlineUnmet
        If no candidate's estimate meets it; says the smallest reachable ms.
    """
    check_deadline(deadline_ms)
    feasible = [name for name, estimate in estimates.items() if estimate.meets(deadline_ms)]
    if not feasible:
        raise DeadlineUnmet(_nothing_meets(estimates, deadline_ms))
    ranked = sorted(feasible, key=lambda name: (-accuracies[name].value, estimates[name].ms))
    taken = tuple(ranked[: max(1, shortlist)])
    judgements = tuple(
        _judge(name, estimate, accuracies[name], deadline_ms, ranked, taken) for name, estimate in estimates.items()
    )
    return Decision(deadline_ms, judgements, taken, tuple(ranked[len(taken) :]))


def _judge(
    name: str,
    estimate: LatencyEstimate,
    accuracy: Accuracy,
    deadline_ms: float,
    ranked: Sequence[str],
    taken: Sequence[str],
) -> Judgement:
    if not estimate.is_known:
        return Judgement(name, "unknown", f"no measurement or model covers {', '.join(estimate.missing)}")
    if not estimate.meets(deadline_ms):
        over = estimate.ms / deadline_ms - 1
        near = "; its interval reaches below the deadline" if estimate.low_ms <= deadline_ms else ""
        return Judgement(name, "infeasible", f"predicted {estimate.ms:.3f} ms, {over:.1%} over the deadline{near}")
    place = ranked.index(name) + 1
    slack = 1 - estimate.ms / deadline_ms
    risk = "; its interval crosses the deadline" if estimate.high_ms > deadline_ms else ""
    what = f"predicted {estimate.ms:.3f} ms leaves {slack:.1%} slack{risk}; quick accuracy {accuracy.value:.1%}"
    return Judgement(name, "feasible", f"{what}, rank {place} of {len(ranked)}", name in taken)


def _nothing_meets(estimates: Mapping[str, LatencyEstimate], deadline_ms: float) -> str:
    known = {name: e for name, e in estimates.items() if e.is_known}
    unknown = len(estimates) - len(known)
    tail = f" ({unknown} candidates have unknown latency)" if unknown else ""
    if not known:
        return (
            f"no candidate has a known latency{tail}: tune and profile the network first, or simplify the operations "
            "named"
        )
    name, best = min(known.items(), key=lambda item: item[1].ms)
    return (
        f"no trimmed network meets {deadline_ms:g} ms: the smallest, cut at {name}, is predicted to take "
        f"{best.ms:.3f} ms{tail}; allow at least that, use --granularity kernel for earlier cuts, or start from a "
        "smaller network"
    )
