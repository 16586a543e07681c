"""What each section of the report says, as plain values for the template; nothing here knows HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from netcut_fx.pictures.kernel_bars import KINDS, KernelBar, format_kernel_ms, kernels_of
from netcut_fx.pictures.predicted_measured import compared, within_band
from netcut_fx.result_candidates import Candidate, candidates_of, uncut_of
from netcut_fx.result_values import (
    NONE,
    UNKNOWN,
    Record,
    clean,
    format_gflops_per_s,
    format_interval,
    format_mflops,
    format_ms,
    format_percent,
    format_signed,
    items,
    mapping,
    number,
    records,
    text,
)


@dataclass(frozen=True)
class Row:
    """One row of the table of frontiers; all cells are text."""

    name: str
    shape: str
    mflops: str
    predicted: str
    predicted_interval: str
    provenance: str
    measured: str
    quick: str
    validation: str
    test: str
    test_interval: str
    verdict: str
    tone: str
    reason: str


@dataclass(frozen=True)
class Share:
    """A part of the uncut network's time: kernels of one kind, or one side of the cut."""

    label: str
    tone: str
    kernels: int
    ms: str
    percent: str
    width: float
    rate: str


def candidate_rows(result: Record) -> tuple[Row, ...]:
    """All frontiers, shallow to deep, and the uncut network as the last row."""
    return tuple(_row(candidate) for candidate in (*candidates_of(result), uncut_of(result)))


def _row(candidate: Candidate) -> Row:
    tone = candidate.tone
    # Of the uncut network a prediction is a by-product; of a frontier its absence matters.
    absent = NONE if tone == "uncut" else UNKNOWN
    return Row(
        name=candidate.name,
        shape=candidate.shape or NONE,
        mflops=format_mflops(candidate.kept_flops, NONE),
        predicted=format_ms(candidate.predicted_ms, absent),
        predicted_interval=format_interval(candidate.low_ms, candidate.high_ms),
        provenance=candidate.provenance,
        measured=format_ms(candidate.measured_ms, NONE),
        quick=format_percent(candidate.quick),
        validation=format_percent(candidate.validation),
        test=format_percent(candidate.test),
        test_interval=format_interval(candidate.test_low, candidate.test_high, 100),
        verdict=candidate.verdict,
        tone=tone,
        reason=candidate.reason,
    )


def comparison_rows(result: Record) -> dict[str, Any]:
    """Predicted against measured: a row each, and how many lie within ten per cent."""
    points = compared(result)
    rows = [
        {
            "name": "uncut" if point.verdict == "uncut" else point.name,
            "predicted": format_ms(point.predicted_ms),
            "measured": format_ms(point.measured_ms),
            "difference": format_signed(None if point.error is None else point.error * 100, "\u00a0%", UNKNOWN),
            "within": within_band(point),
        }
        for point in points
    ]
    return {"rows": rows, "within": sum(within_band(point) for point in points), "total": len(points)}


def kernel_kinds(result: Record) -> tuple[Share, ...]:
    """Time by kind of kernel, the most expensive first."""
    kernels = kernels_of(result)
    kinds = dict.fromkeys(kernel.kind for kernel in kernels)
    groups = {kind: [kernel for kernel in kernels if kernel.kind == kind] for kind in kinds}
    total = _sum_ms(kernels)
    shares = [
        (_known_ms(found), _share(kind, kind if kind in KINDS else "opaque", found, total))
        for kind, found in groups.items()
    ]
    return tuple(share for _, share in sorted(shares, key=lambda pair: -pair[0]))


def split_of_time(result: Record) -> tuple[Share, ...]:
    """Time of the kernels that the cut keeps and of those it removes; none where nothing was cut."""
    kernels = kernels_of(result)
    kept = [kernel for kernel in kernels if kernel.kept]
    removed = [kernel for kernel in kernels if not kernel.kept]
    if not removed or not kept:
        return ()
    total = _sum_ms(kernels)
    return (_share("kept", "kept", kept, total), _share("cut away", "removed", removed, total))


def _known_ms(kernels: list[KernelBar]) -> float:
    return sum(kernel.ms for kernel in kernels if kernel.ms is not None)


def _sum_ms(kernels: tuple[KernelBar, ...] | list[KernelBar]) -> float | None:
    """Total time, None as soon as one kernel's is not known."""
    times = [kernel.ms for kernel in kernels]
    return None if None in times else sum(ms for ms in times if ms is not None)


def _share(label: str, tone: str, kernels: list[KernelBar], total: float | None) -> Share:
    ms = _sum_ms(kernels)
    share = ms / total if ms is not None and total else None
    flops = [kernel.flops for kernel in kernels]
    rate = NONE if None in flops else format_gflops_per_s(sum(value or 0.0 for value in flops), ms)
    return Share(
        label=label,
        tone=tone,
        kernels=len(kernels),
        ms=format_kernel_ms(ms),
        percent=NONE if share is None else f"{share * 100:.1f} %",
        width=0.0 if share is None else round(share * 100, 2),
        rate=rate,
    )


def lines(result: Record, key: str) -> tuple[str, ...]:
    """Lines of text at `key`."""
    return tuple(clean(line) for line in items(result, key) if line is not None)


def stage_rows(result: Record) -> tuple[dict[str, Any], ...]:
    """Stages with their seconds; a bar's width is per cent of the longest."""
    stages = records(result, "stages")
    seconds = [number(stage, "seconds") for stage in stages]
    longest = max((value for value in seconds if value is not None), default=0.0)
    return tuple(
        {
            "name": text(stage, "name", "unnamed"),
            "seconds": UNKNOWN if value is None else f"{value:.1f}",
            "width": round(value / longest * 100, 1) if value and longest > 0 else 0.0,
            "reused": stage.get("reused") is True,
        }
        for stage, value in zip(stages, seconds, strict=True)
    )


def setting_rows(result: Record) -> tuple[tuple[str, str], ...]:
    """How it was measured, as (what, value) pairs."""
    rows: list[tuple[str, str]] = [
        ("network", text(result, "model", UNKNOWN)),
        ("data", text(result, "data", UNKNOWN)),
        ("granularity of cuts", text(result, "granularity", UNKNOWN)),
        ("tuning trials per kernel", text(result, "trials", UNKNOWN)),
        ("random seed", text(result, "seed", UNKNOWN)),
    ]
    for title, key in (("images", "images"), ("head", "head"), ("target", "target"), ("version", "versions")):
        rows.extend((f"{title}: {name}", value) for name, value in _flat(mapping(result, key)))
    rows.extend((key, text(result, key)) for key in ("bundle",) if result.get(key))
    return tuple(rows)


def _flat(record: Record, prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        name = prefix + clean(key).replace("_", " ")
        if isinstance(value, Mapping):
            rows.extend(_flat(cast(Record, value), f"{name}, "))
        elif isinstance(value, (list, tuple)):
            rows.append((name, ", ".join(clean(part) for part in cast("list[Any]", value)) or NONE))
        else:
            rows.append((name, NONE if value is None else clean(value)))
    return rows


def agreement_line(result: Record) -> str:
    """How far the compiled network agrees with the original on the same images."""
    record = mapping(result, "agreement")
    images, same = number(record, "images"), number(record, "same_top1")
    worst = number(record, "max_relative_error")
    if images is None:
        return "Agreement with the uncompiled network: not checked."
    error = UNKNOWN if worst is None else f"{worst:.1e}"
    top = UNKNOWN if same is None else f"{same:.0f} of {images:.0f}"
    return (
        f"Compiled against uncompiled on {images:.0f} images: largest relative error {error}, same top class on {top}."
    )
