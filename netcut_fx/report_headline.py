"""The verdict of a run in a sentence, and the four numbers to see first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from netcut_fx.result_candidates import Candidate, candidates_of, chosen_of, uncut_of
from netcut_fx.result_values import (
    MINUS,
    UNKNOWN,
    Record,
    format_count,
    format_interval,
    format_mflops,
    format_ms,
    format_percent,
    format_signed,
    number,
    text,
)


@dataclass(frozen=True)
class Headline:
    """The verdict: `status` is "met", "missed", "predicted" or "none"; `chip` its short form."""

    status: str
    chip: str
    title: str
    sentence: str


@dataclass(frozen=True)
class Tile:
    """One number to see first."""

    label: str
    value: str
    unit: str
    note: str


def headline(result: Record) -> Headline:
    """Put the verdict into a sentence."""
    model = text(result, "model", "the network")
    deadline_ms = number(result, "deadline_ms")
    deadline = f"{format_ms(deadline_ms)} ms" if deadline_ms is not None else UNKNOWN
    origin = text(result, "deadline_from")
    asked = f"a deadline of {deadline}" + (f" ({origin})" if origin and origin != "given" else "")
    chosen = chosen_of(result)
    if chosen is None:
        return Headline("none", "no cut chosen", f"No cut of {model} was chosen", _why_none(result, asked))
    title = f"Cut {model} at {chosen.name}"
    if chosen.measured_ms is None:
        status, chip = "predicted", "not measured"
        interval = format_interval(chosen.low_ms, chosen.high_ms)
        time = f"Predicted {format_ms(chosen.predicted_ms)} ms {interval}".rstrip()
        time += f" against {asked}; not measured."
    else:
        interval = format_interval(chosen.measured_low_ms, chosen.measured_high_ms)
        time = f"Measured {format_ms(chosen.measured_ms)} ms {interval}".rstrip() + f" against {asked}"
        if deadline_ms is None:
            status, chip = "predicted", "no deadline"
        elif chosen.measured_ms <= deadline_ms:
            status, chip = "met", "deadline met"
            time += f": met, {format_ms(deadline_ms - chosen.measured_ms)} ms of slack"
        else:
            status, chip = "missed", "deadline missed"
            time += f": missed by {format_ms(chosen.measured_ms - deadline_ms)} ms"
        time += "."
    accuracy = f"Test accuracy {format_percent(chosen.test, UNKNOWN)}"
    interval = format_interval(chosen.test_low, chosen.test_high, 100)
    accuracy += f" {interval} (95 % interval)." if interval else "."
    return Headline(status, chip, title, _unbroken(f"{time} {accuracy} {_against_uncut(chosen, uncut_of(result))}"))


def _unbroken(sentence: str) -> str:
    """No line break between a number and its unit."""
    return sentence.replace(" ms", "\u00a0ms").replace(" points", "\u00a0points")


def _why_none(result: Record, asked: str) -> str:
    known = [(c.best_ms, c.name) for c in candidates_of(result) if c.best_ms is not None]
    if not known:
        return f"Against {asked}, the latency of every frontier is unknown, and unknown never meets a deadline."
    ms, name = min(known)
    return f"Nothing was found to meet {asked}. The fastest frontier is {name} with {format_ms(ms)} ms."


def _speed_up(chosen: Candidate, uncut: Candidate) -> float | None:
    """How many times faster: both measured, or else both predicted; never one against the other."""
    for ours, theirs in ((chosen.measured_ms, uncut.measured_ms), (chosen.predicted_ms, uncut.predicted_ms)):
        if ours is not None and theirs is not None and ours > 0:
            return theirs / ours
    return None


def _points(chosen: Candidate, uncut: Candidate) -> str | None:
    if chosen.test is None or uncut.test is None:
        return None
    return format_signed((chosen.test - uncut.test) * 100)


def _against_uncut(chosen: Candidate, uncut: Candidate) -> str:
    known = [f"{format_ms(uncut.measured_ms)} ms"] if uncut.measured_ms is not None else []
    known += [format_percent(uncut.test)] if uncut.test is not None else []
    against = "Against the uncut network" + (f" ({', '.join(known)})" if known else "")
    ratio, points = _speed_up(chosen, uncut), _points(chosen, uncut)
    if ratio is None and points is None:
        return f"{against}: unknown."
    speed = "speed-up unknown" if ratio is None else f"{ratio:.2g}× faster" if ratio < 10 else f"{ratio:.0f}× faster"
    if points is None:
        return f"{against}: {speed}, accuracy difference unknown."
    size = points.lstrip("+" + MINUS)
    how = "equally accurate" if size == "0.0" else f"{size} points {'less' if points[0] == MINUS else 'more'} accurate"
    if None not in (chosen.test_low, chosen.test_high, uncut.test_low, uncut.test_high):
        low, high = cast(float, chosen.test_low), cast(float, chosen.test_high)
        if low <= cast(float, uncut.test_high) and cast(float, uncut.test_low) <= high and size != "0.0":
            how += " (the 95 % intervals overlap)"
    return f"{against}: {speed}, {how}."


def tiles(result: Record) -> tuple[Tile, ...]:
    """Latency, accuracy, speed-up and size of the chosen cut; none where nothing was chosen."""
    chosen = chosen_of(result)
    if chosen is None:
        return ()
    uncut, deadline_ms = uncut_of(result), number(result, "deadline_ms")
    measured = chosen.measured_ms is not None
    ratio, points = _speed_up(chosen, uncut), _points(chosen, uncut)
    slack = None if deadline_ms is None or chosen.best_ms is None else deadline_ms - chosen.best_ms
    share = None
    if chosen.kept_params is not None and uncut.kept_params:
        share = chosen.kept_params / uncut.kept_params
    flops = f"{format_mflops(chosen.kept_flops)} of {format_mflops(uncut.kept_flops)} MFLOPs"
    return (
        Tile(
            "latency, measured" if measured else "latency, predicted",
            format_ms(chosen.best_ms),
            "ms" if chosen.best_ms is not None else "",
            f"deadline {format_ms(deadline_ms)} ms" + (f", slack {format_ms(slack)} ms" if slack is not None else ""),
        ),
        Tile(
            "test accuracy",
            UNKNOWN if chosen.test is None else f"{chosen.test * 100:.1f}",
            "%" if chosen.test is not None else "",
            f"95 % interval {format_interval(chosen.test_low, chosen.test_high, 100) or UNKNOWN}",
        ),
        Tile(
            "against the uncut network",
            UNKNOWN if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}",
            "× faster" if ratio is not None else "",
            f"test accuracy {points} points" if points is not None else "accuracy difference unknown",
        ),
        Tile(
            "parameters kept",
            format_count(chosen.kept_params),
            "",
            (f"{share * 100:.0f} % of the uncut network, " if share is not None else "") + flops,
        ),
    )
