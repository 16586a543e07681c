"""What the estimators make of measured trimmed networks: accuracy, what choosing by them costs, how much is needed.

Two settings. *own*: the uncut network was profiled and measured, and nothing else of its family; *leave one out*:
nothing of the network, nor of any of its cuts, was ever seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cost_models import ESTIMATORS, Calibration, Estimator, LatencyEstimate, NetworkSample, accuracy_of, fit_estimator

PROFILE_SOURCE, EVIDENCE_SOURCE, AGAIN_SOURCE = "profile", "trn", "again"
SETTINGS = ("own", "leave_one_out")
_DEADLINES = 20


def scores(found: Calibration, extra: Calibration | None, names: Sequence[str] = ESTIMATORS) -> dict[str, Any]:
    """The result file, but for the machine.

    Parameters
    ----------
    found : Calibration
        Profiles of uncut networks and measurements of their cuts, each network a group.
    extra : Calibration, optional
        Further evidence that belongs to none of them.
    names : sequence of str
        Of estimators; ``profiled`` and ``analytical`` have to be among them.
    """
    trns = [n for n in found.networks if n.source == EVIDENCE_SOURCE]
    groups = list(dict.fromkeys(n.group for n in trns))
    evidence = replace(found, networks=tuple(n for n in found.networks if n.source != AGAIN_SOURCE))
    if extra is not None:
        evidence = evidence.with_samples(extra.samples).with_networks(extra.networks)
        evidence = replace(evidence, minutes=found.minutes + extra.minutes)
    predicted: dict[tuple[str, str], dict[str, LatencyEstimate]] = {}
    settings: dict[str, Any] = {}
    for setting in SETTINGS:
        settings[setting] = {}
        for name in names:
            estimates: dict[str, LatencyEstimate] = {}
            microseconds: list[float] = []
            for group in groups:
                estimator = fit_estimator(name, allowed(evidence, group, setting))
                own = [n for n in trns if n.group == group]
                microseconds += _timed(estimator, own)
                estimates |= {_id(n): estimator.estimate(n.kernels) for n in own}
            predicted[setting, name] = estimates
            figures = accuracy_of([estimates[_id(n)] for n in trns], [n.ms for n in trns])
            sweep = deadline_sweep(trns, estimates)
            settings[setting][name] = {**figures, "us_per_estimate": _median(microseconds), "deadline_sweep": sweep}
    floor = noise_floor(found.networks)
    return {
        "summary": summary(settings, len(trns), floor, evidence.minutes),
        "settings": settings,
        "noise_floor": floor,
        "learning_curve": learning_curve(evidence, trns, groups),
        "rows": [_row(n, predicted) for n in trns],
    }


def allowed(evidence: Calibration, group: str, setting: str) -> Calibration:
    """What may be known when cuts of `group` are predicted."""
    if setting == "own":
        networks = (n for n in evidence.networks if n.group != group or n.source == PROFILE_SOURCE)
        # Of one workload timed in several networks, the last one counts: its own.
        samples = sorted(evidence.samples, key=lambda s: s.group == group)
        return replace(evidence, samples=tuple(samples), networks=tuple(networks))
    return replace(
        evidence,
        samples=tuple(s for s in evidence.samples if s.group != group),
        networks=tuple(n for n in evidence.networks if n.group != group),
    )


def deadline_sweep(trns: Sequence[NetworkSample], estimates: Mapping[str, LatencyEstimate]) -> dict[str, Any]:
    """Choose the cut with most operations that is predicted to meet a deadline, for many deadlines and each network.

    Operations stand for accuracy: the deeper cut is the better one. The oracle knows what was measured.
    """
    choices = 0
    lost: list[float] = []
    over: list[float] = []
    for group in dict.fromkeys(n.group for n in trns):
        own = [n for n in trns if n.group == group]
        low, high = min(n.ms for n in own), max(n.ms for n in own)
        for deadline in np.linspace(low, high, _DEADLINES):
            oracle = max((_flops(n) for n in own if n.ms <= deadline), default=0)
            meets = [n for n in own if estimates[_id(n)].meets(float(deadline))]
            choices += 1
            if not meets:
                lost.append(1.0)
                continue
            chosen = max(meets, key=_flops)
            if chosen.ms > deadline:
                over.append(chosen.ms / float(deadline) - 1)
            else:
                lost.append(1 - _flops(chosen) / oracle)
    return {
        "choices": choices,
        "violations": len(over),
        "worst_violation_pct": 100 * max(over, default=0.0),
        "mean_flops_lost_pct": 100 * float(np.mean(lost)) if lost else 0.0,
    }


def noise_floor(networks: Sequence[NetworkSample]) -> dict[str, Any]:
    """How far a measurement is from the same one at another time."""
    first = {_id(n): n.ms for n in networks if n.source == EVIDENCE_SOURCE}
    errors = [abs(n.ms / first[_id(n)] - 1) * 100 for n in networks if n.source == AGAIN_SOURCE and _id(n) in first]
    return {"networks": len(errors), "mape": float(np.mean(errors)) if errors else None}


def learning_curve(evidence: Calibration, trns: Sequence[NetworkSample], groups: Sequence[str]) -> list[dict[str, Any]]:
    """Error of ``analytical`` without the network itself, by how many other networks and probes were profiled.

    Minutes are the calibration's, in proportion to the kernels.
    """
    rows: list[dict[str, Any]] = []
    for share in (0.125, 0.25, 0.5, 1.0):
        estimates: list[LatencyEstimate] = []
        truths: list[float] = []
        kernels: list[int] = []
        for group in groups:
            rest = allowed(evidence, group, "leave_one_out")
            keep = np.random.default_rng(0).permutation(len(rest.samples))[: max(1, int(share * len(rest.samples)))]
            part = replace(rest, samples=tuple(rest.samples[i] for i in sorted(keep.tolist())))
            if not rest.samples:
                continue
            estimator = fit_estimator("analytical", part)
            own = [n for n in trns if n.group == group]
            estimates += [estimator.estimate(n.kernels) for n in own]
            truths += [n.ms for n in own]
            kernels.append(len(part.samples))
        figures = accuracy_of(estimates, truths)
        minutes = evidence.minutes * float(np.mean(kernels)) / max(1, len(evidence.samples)) if kernels else 0.0
        rows.append({"share": share, "kernels": _median(kernels), "minutes": minutes, "mape": figures.get("mape")})
    return rows


def trials_sweep(found: Calibration, profiles: Mapping[int, Calibration]) -> list[dict[str, Any]]:
    """Error of ``profiled`` for the cuts in `found`, by the trials a kernel with which the uncut networks were tuned.

    Minutes are those of tuning and profiling the uncut networks.
    """
    trns = [n for n in found.networks if n.source == EVIDENCE_SOURCE]
    rows: list[dict[str, Any]] = []
    for trials, profile in sorted(profiles.items()):
        known = {s.group for s in profile.samples}
        asked = [n for n in trns if n.group in known]
        networks = tuple(n for n in profile.networks if n.source == PROFILE_SOURCE)
        estimator = fit_estimator("profiled", replace(profile, networks=networks))
        figures = accuracy_of([estimator.estimate(n.kernels) for n in asked], [n.ms for n in asked])
        row = {name: figures.get(name) for name in ("networks", "mape", "within_10", "kendall_tau")}
        rows.append({"trials": trials, "minutes": profile.minutes, **row})
    return rows


def summary(settings: dict[str, Any], trns: int, floor: dict[str, Any], minutes: float) -> dict[str, Any]:
    """The figures that the README quotes; None for what was not measured yet."""
    own, left_out = settings["own"]["profiled"], settings["leave_one_out"]["analytical"]
    return {
        "trns": trns,
        "profiled_own_mape": own.get("mape"),
        "profiled_own_within_10": own.get("within_10"),
        "analytical_loo_mape": left_out.get("mape"),
        "analytical_loo_within_10": left_out.get("within_10"),
        "coverage_90": own.get("coverage_90"),
        "mean_interval_width_pct": own.get("mean_interval_width_pct"),
        "kendall_tau": own.get("kendall_tau"),
        "noise_floor_mape": floor["mape"],
        "calibration_minutes": minutes,
    }


def _row(sample: NetworkSample, predicted: Mapping[tuple[str, str], Mapping[str, LatencyEstimate]]) -> dict[str, Any]:
    found: dict[str, Any] = {setting: {} for setting in SETTINGS}
    for (setting, name), estimates in predicted.items():
        e = estimates[_id(sample)]
        found[setting][name] = (
            {"predicted_ms": e.ms, "interval_ms": [e.low_ms, e.high_ms]} if e.is_known else {"missing": list(e.missing)}
        )
    return {
        "network": sample.group,
        "frontier": sample.name,
        "flops": _flops(sample),
        "measured_ms": sample.ms,
        "measured_interval_ms": [sample.low_ms, sample.high_ms],
        **found,
    }


def _timed(estimator: Estimator, networks: Sequence[NetworkSample]) -> list[float]:
    """Microseconds of each estimate; the first cut of a network is asked for what no other has answered yet."""
    found: list[float] = []
    for network in networks:
        start = time.perf_counter()
        estimator.estimate(network.kernels)
        found.append((time.perf_counter() - start) * 1e6)
    return found


def _id(sample: NetworkSample) -> str:
    return f"{sample.group}: {sample.name}"


def _flops(sample: NetworkSample) -> int:
    return sum(k.flops for k in sample.kernels)


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
