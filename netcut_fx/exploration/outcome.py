"""What an exploration found, as the JSON object that ``result.json`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netcut_fx.exploration.bill import bill_of, cpu_seconds, strategy_seconds
from netcut_fx.exploration.explorer import Explorer
from netcut_fx.exploration.facts import Facts, Key
from netcut_fx.exploration.options import Strategy
from netcut_fx.exploration.strategies import Choice, best_known, choose, off_the_shelf

SCHEMA_VERSION = 1


def outcome_of(explorer: Explorer) -> dict[str, Any]:
    """Everything known when `Explorer.search` is done; not known is null.

    Returns
    -------
    dict
        ``networks`` with their ``cuts``; ``deadlines``, each with the best ``off_the_shelf`` network, what every
        strategy chose, and the ``best_known`` of all that was retrained, with its bundle; the ``fronts`` of measured
        accuracy and latency; ``better_and_faster``, cuts that beat their own uncut network in both; the ``bill``;
        ``failures``.
    """
    facts = explorer.facts
    deadlines = [_deadline(explorer, deadline_ms) for deadline_ms in explorer.deadlines_ms]
    uncut = [c.key for c in facts.usable() if c.uncut]
    every = [c.key for c in facts.usable()]
    setting = explorer.setting
    return {
        "schema_version": SCHEMA_VERSION,
        "data": setting.data,
        "input_size": list(setting.input_size),
        "seed": setting.options.seed,
        "train_per_class": setting.train_per_class,
        "distillation": setting.distillation,
        "taught_by": None if explorer.teacher is None else explorer.teacher[0],
        "recipe": setting.options.retrain.to_json(),
        "strategies": list(explorer.options.strategies),
        "networks": [_network(explorer, name) for name in explorer.networks],
        "deadlines": deadlines,
        "fronts": {"off_the_shelf": front(facts, uncut), "ours": front(facts, every)},
        "better_and_faster": better_and_faster(facts),
        "bill": bill_of(explorer),
        "failures": [dict(f.__dict__) for f in facts.failures],
    }


def point(facts: Facts, key: Key | None) -> dict[str, Any] | None:
    """One candidate with all that is known of it."""
    if key is None:
        return None
    candidate, trained, measured = facts.candidates[key], facts.trained.get(key), facts.measured.get(key)
    estimate = facts.estimates.get(key)
    known = estimate is not None and estimate.is_known
    return {
        "network": candidate.network,
        "cut": candidate.cut,
        "uncut": candidate.uncut,
        "kept_flops": candidate.kept_flops,
        "kept_params": candidate.kept_params,
        "quick_accuracy": candidate.quick.value,
        "predicted_ms": estimate.ms if estimate is not None and known else None,
        "low_ms": estimate.low_ms if estimate is not None and known else None,
        "high_ms": estimate.high_ms if estimate is not None and known else None,
        "measured_ms": None if measured is None else measured.ms,
        "measured_low_ms": None if measured is None else measured.low_ms,
        "measured_high_ms": None if measured is None else measured.high_ms,
        "validation_accuracy": None if trained is None else trained.validation.value,
        "validation_loss": None if trained is None else trained.validation_loss,
        "test_accuracy": None if trained is None else trained.test.value,
        "test_low": None if trained is None else trained.test.low,
        "test_high": None if trained is None else trained.test.high,
        "angular_similarity": None if trained is None else trained.angular_similarity,
        "train_cpu_seconds": None if trained is None else trained.cpu_seconds,
    }


def front(facts: Facts, keys: Sequence[Key]) -> list[dict[str, Any]]:
    """Of the trained and measured `keys` those that no other beats in both latency and test accuracy, fastest first."""
    ready = [k for k in keys if k in facts.trained and k in facts.measured]
    ready.sort(key=lambda k: (facts.measured[k].ms, -facts.trained[k].test.value))
    found: list[dict[str, Any]] = []
    best = -1.0
    for key in ready:
        if facts.trained[key].test.value > best:
            best = facts.trained[key].test.value
            found.append({"network": key[0], "cut": key[1], "ms": facts.measured[key].ms, "test_accuracy": best})
    return found


def better_and_faster(facts: Facts) -> list[dict[str, Any]]:
    """Cuts more accurate on test *and* faster than their own uncut network, with the intervals of both."""
    uncut = {c.network: c.key for c in facts.usable() if c.uncut}
    found: list[dict[str, Any]] = []
    for candidate in facts.usable():
        own = uncut.get(candidate.network)
        keys = [candidate.key, *([] if own is None else [own])]
        if candidate.uncut or own is None or any(k not in facts.trained or k not in facts.measured for k in keys):
            continue
        ours, theirs = facts.trained[candidate.key].test, facts.trained[own].test
        if ours.value > theirs.value and facts.measured[candidate.key].ms < facts.measured[own].ms:
            found.append({"cut": point(facts, candidate.key), "uncut": point(facts, own)})
    return found


def _network(explorer: Explorer, name: str) -> dict[str, Any]:
    facts, spec = explorer.facts, explorer.networks[name]
    survey, timed = explorer.rows.get(("survey", name, "")), explorer.rows.get(("time", name, ""))
    failures = [f for f in facts.failures if f.network == name]
    return {
        "name": name,
        "model": spec.model,
        "weights": None if spec.weights is None else str(spec.weights),
        "normalize": spec.normalize,
        "failed": next((f"{f.step}: {f.message}" for f in failures if not f.cut), None),
        "traced_by": None if survey is None else survey["traced_by"],
        "target": None if timed is None else timed["target"],
        "cuts": [point(facts, c.key) for c in facts.candidates.values() if c.network == name],
    }


def _deadline(explorer: Explorer, deadline_ms: float) -> dict[str, Any]:
    facts, options = explorer.facts, explorer.options
    shelf = off_the_shelf(facts, deadline_ms) if options.off_the_shelf else None
    choices: dict[Strategy, Choice] = {
        s: choose(s, facts, deadline_ms, options.each.shortlist) for s in options.strategies
    }
    best = choices["exhaustive"].winner if "exhaustive" in choices else None
    seconds: dict[Strategy, float | None] = {
        s: strategy_seconds(explorer, choice.retrained) for s, choice in choices.items()
    }
    return {
        "deadline_ms": deadline_ms,
        "off_the_shelf": point(facts, shelf),
        "strategies": {s: _chosen(explorer, s, c, deadline_ms, shelf, best, seconds) for s, c in choices.items()},
        "best_known": _best_known(explorer, deadline_ms, shelf),
    }


def _best_known(explorer: Explorer, deadline_ms: float, shelf: Key | None) -> dict[str, Any]:
    facts, best = explorer.facts, best_known(explorer.facts, deadline_ms)
    delivered = None if best is None else explorer.rows.get(("deliver", *best))
    return {
        "winner": point(facts, best),
        "bundle": None if delivered is None else delivered["bundle"],
        **_gains(facts, best, shelf),
    }


def _gains(facts: Facts, winner: Key | None, shelf: Key | None) -> dict[str, float | None]:
    """Of test accuracy over the best network off the shelf: relative, and in points."""
    ours, theirs = (None if key is None else facts.trained[key].test.value for key in (winner, shelf))
    return {
        "gain_pct": None if ours is None or not theirs else 100 * (ours / theirs - 1),
        "gain_points": None if ours is None or theirs is None else 100 * (ours - theirs),
    }


def _chosen(
    explorer: Explorer,
    strategy: Strategy,
    choice: Choice,
    deadline_ms: float,
    shelf: Key | None,
    best: Key | None,
    seconds: dict[Strategy, float | None],
) -> dict[str, Any]:
    facts, winner = explorer.facts, choice.winner
    accuracy = None if winner is None else facts.trained[winner].test.value
    ideal = None if best is None else facts.trained[best].test.value
    own, all_of_them = seconds[strategy], seconds.get("exhaustive")
    met = None if winner is None else facts.measured[winner].ms <= deadline_ms
    return {
        "winner": point(facts, winner),
        "meets": met,
        "retrained": len(choice.retrained),
        "retraining_cpu_seconds": cpu_seconds(explorer, choice.retrained),
        "cpu_seconds": own,
        **_gains(facts, winner, shelf),
        "regret_points": None if accuracy is None or ideal is None else 100 * (ideal - accuracy),
        "speedup": None if not own or all_of_them is None else all_of_them / own,
    }
