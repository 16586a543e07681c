"""What share of the machine's peak an artefact reaches, and which of its kernels leave the rest."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Peak:
    """What the machine does at most with so many threads, measured in turn with the artefacts.

    Parameters
    ----------
    flops_per_s : float
        Multiply-adds that stay in registers, each two operations.
    bytes_per_s : float
        A triad over memory. Kernels whose data stays in a cache may be faster.
    """

    flops_per_s: float
    bytes_per_s: float

    def least_ms(self, flops: int, size: int) -> float:
        """The roofline: no kernel with so many operations and bytes from memory takes less.

        Operations are those of the network. An algorithm that does with fewer, as Winograd's for 3x3 convolutions, may
        take less, and reach more than the whole of the peak.
        """
        return 1e3 * max(flops / self.flops_per_s, size / self.bytes_per_s)

    def to_json(self) -> dict[str, float]:
        """As a JSON object."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class KernelShare:
    """One kernel call within the running network.

    Parameters
    ----------
    name : str
        The compiler's.
    ms : float
        Median over the rounds.
    flops, bytes : int or None
        None if the manifest does not tell.
    flops_share : float or None
        Of the peak.
    lost_ms : float or None
        What it takes beyond the roofline, at least zero.
    tuned : bool or None
        Whether a tuning record was applied.
    output : str
        Shape of what it computes, ``""`` if the manifest does not tell.
    """

    name: str
    ms: float
    flops: int | None
    bytes: int | None
    flops_share: float | None
    lost_ms: float | None
    tuned: bool | None
    output: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dict(self.__dict__)


def listed_kernels(measurement: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The kernels that a manifest's ``measurement`` lists; none where an older version wrote it."""
    return list(measurement.get("kernels") or ())


def total(measurement: Mapping[str, Any], what: str) -> int | None:
    """Sum of ``flops`` or ``bytes`` over the kernels of a manifest, None where it lists none."""
    rows = listed_kernels(measurement)
    return sum(row[what] or 0 for row in rows) if rows else None


def kernel_shares(
    rounds: Sequence[tuple[str, Sequence[float]]], measurement: Mapping[str, Any], peak: Peak | None
) -> tuple[KernelShare, ...]:
    """Join measured kernels with what the manifest says of them, in execution order.

    Where the manifest lists other kernels than those that ran, their operations are unknown.
    """
    rows = listed_kernels(measurement)
    if len(rows) != len(rounds):
        rows = [{} for _ in rounds]
    found: list[KernelShare] = []
    for (name, samples), row in zip(rounds, rows, strict=True):
        ms, flops, size = statistics.median(samples), row.get("flops"), row.get("bytes")
        found.append(
            KernelShare(
                name,
                ms,
                flops,
                size,
                None if peak is None or flops is None else flops / (ms * 1e-3) / peak.flops_per_s,
                None if peak is None or flops is None or size is None else max(0.0, ms - peak.least_ms(flops, size)),
                row.get("tuned"),
                _output_shape(row.get("key", "")),
            )
        )
    return tuple(found)


def _output_shape(key: str) -> str:
    """Of `cost_models.kernel.kernel_key`: operations, inputs, outputs and type of a kernel."""
    return key.partition("->")[2].partition("|")[0]
