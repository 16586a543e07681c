"""The frontiers of a result as plain values, for the table and the pictures alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from netcut_fx.result_values import Record, clean, format_ms, format_shape, items, mapping, number, records, text

VERDICTS = ("chosen", "feasible", "infeasible", "unknown", "refused")


@dataclass(frozen=True)
class Candidate:
    """One frontier, or the uncut network (verdict ``"uncut"``). Every number that is not known is None.

    Latencies are milliseconds, accuracies shares of one.
    """

    name: str
    verdict: str
    reason: str = ""
    shape: str = ""
    kept_flops: float | None = None
    kept_params: float | None = None
    predicted_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    measured_ms: float | None = None
    measured_low_ms: float | None = None
    measured_high_ms: float | None = None
    quick: float | None = None
    quick_low: float | None = None
    quick_high: float | None = None
    validation: float | None = None
    test: float | None = None
    test_low: float | None = None
    test_high: float | None = None
    provenance: str = ""

    @property
    def tone(self) -> str:
        """What to colour it by: its verdict if that is one we know."""
        return self.verdict if self.verdict in (*VERDICTS, "uncut") else "unknown"

    @property
    def best_ms(self) -> float | None:
        """Measured where it was measured, else predicted."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms

    @property
    def best_accuracy(self) -> float | None:
        """Validation accuracy: retrained where it was retrained, else of the quick head."""
        return self.quick if self.validation is None else self.validation

    @property
    def error(self) -> float | None:
        """(predicted - measured) / measured, where both are known."""
        if self.measured_ms is None or self.predicted_ms is None or self.measured_ms <= 0:
            return None
        return (self.predicted_ms - self.measured_ms) / self.measured_ms


def candidates_of(result: Record) -> tuple[Candidate, ...]:
    """All frontiers of `result`, shallow to deep; what only the chosen one's own entry knows is filled in.

    The deepest frontier is the uncut network, which has an entry of its own: here it counts only where it was chosen.
    """
    chosen = mapping(result, "chosen")
    chosen_name = text(chosen, "frontier") or None
    uncut_name = text(mapping(result, "uncut"), "name")
    found = [
        _candidate(record, chosen_name, chosen)
        for record in records(result, "candidates")
        if text(record, "name") in ("", chosen_name) or text(record, "name") != uncut_name
    ]
    if chosen_name is not None and all(candidate.name != chosen_name for candidate in found):
        found.append(_candidate({"name": chosen_name}, chosen_name, chosen))
    return tuple(found)


def chosen_of(result: Record) -> Candidate | None:
    """Find the chosen frontier; None where nothing met the deadline."""
    if not text(mapping(result, "chosen"), "frontier"):
        return None
    return next((candidate for candidate in candidates_of(result) if candidate.verdict == "chosen"), None)


def uncut_of(result: Record) -> Candidate:
    """Read the network before any cut."""
    record = mapping(result, "uncut")
    return Candidate(
        name=text(record, "name") or text(result, "model") or "uncut network",
        verdict="uncut",
        reason="the network before any cut",
        kept_flops=number(record, "kept_flops"),
        kept_params=number(record, "params"),
        predicted_ms=number(record, "predicted_ms"),
        measured_ms=number(record, "measured_ms"),
        # Of the uncut network a plain low and high belong to the measurement: it was not chosen by an estimate.
        measured_low_ms=number(record, "measured_low_ms" if "measured_low_ms" in record else "low_ms"),
        measured_high_ms=number(record, "measured_high_ms" if "measured_high_ms" in record else "high_ms"),
        validation=number(record, "validation_accuracy"),
        test=number(record, "test_accuracy"),
        test_low=number(record, "test_low"),
        test_high=number(record, "test_high"),
    )


def pareto(candidates: Iterable[Candidate]) -> tuple[tuple[float, float], ...]:
    """(ms, accuracy) of the candidates that none beats in both, fastest first, by what is best known of each."""
    points = [
        (candidate.best_ms, candidate.best_accuracy)
        for candidate in candidates
        if candidate.best_ms is not None and candidate.best_accuracy is not None
    ]
    front: list[tuple[float, float]] = []
    for ms, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((ms, accuracy))
    return tuple(front)


def _candidate(record: Record, chosen_name: str | None, chosen: Record) -> Candidate:
    name = text(record, "name", "unnamed")
    own = chosen if name == chosen_name else {}

    def value(key: str, chosen_key: str | None = None) -> float | None:
        found = number(record, key)
        return number(own, chosen_key or key) if found is None else found

    verdict = text(record, "verdict", "unknown")
    if own:
        verdict = "chosen"
    predicted_ms = value("predicted_ms")
    missing = [clean(key) for key in items(record, "missing")]
    reason = text(record, "reason")
    if not reason and missing:
        reason = f"nothing covers {', '.join(missing)}"
    shares = [(source, number(mapping(record, "provenance"), source)) for source in mapping(record, "provenance")]
    return Candidate(
        name=name,
        verdict=verdict,
        reason=reason,
        shape=format_shape(record.get("shape")),
        kept_flops=value("kept_flops"),
        kept_params=value("kept_params", "params"),
        predicted_ms=predicted_ms,
        low_ms=value("low_ms") if predicted_ms is not None else None,
        high_ms=value("high_ms") if predicted_ms is not None else None,
        measured_ms=value("measured_ms"),
        measured_low_ms=value("measured_low_ms"),
        measured_high_ms=value("measured_high_ms"),
        quick=value("quick_accuracy"),
        quick_low=value("quick_low"),
        quick_high=value("quick_high"),
        validation=value("validation_accuracy"),
        test=value("test_accuracy"),
        test_low=value("test_low"),
        test_high=value("test_high"),
        provenance=", ".join(f"{clean(source)} {format_ms(ms)} ms" for source, ms in shares),
    )
