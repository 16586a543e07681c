"""Time bundles and peers in turn, after their answers were found to be the same."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcut_fx.bundle import Bundle, read_bundle
from netcut_fx.comparison.networks import peer_files
from netcut_fx.comparison.peers import chosen_peers, version_of
from netcut_fx.comparison.process import PinnedProcess
from netcut_fx.comparison.shares import KernelShare, Peak, kernel_shares, total
from netcut_fx.errors import BackendError, SpecError
from netcut_fx.host import pinned_cores, usable_cores
from netcut_fx.measure import Measurement

#: Fewer single runs do not support a 99th percentile.
RUNS_FOR_P99 = 1000
#: Largest difference of an answer, relative to the largest answer, between two artefacts of one network.
TOLERANCE = 1e-3
_ANSWERS = 4
_KERNEL_ROUNDS = 30

#: Called with (done, total, what).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Timing:
    """One artefact with one thread count.

    Parameters
    ----------
    name : str
        ``"netcut"`` for a bundle, else the peer's.
    threads : int
        Threads that compute.
    bundle : Bundle or None
        None for a peer.
    version : str
        Of the peer's package, or what wrote the bundle.
    measured : Measurement
        Of the rounds, each the median of its single runs.
    p99_ms : float or None
        Over all single runs, if there are at least `RUNS_FOR_P99`.
    relative_error : float
        Of its answers, relative to those of the first bundle.
    memory_bytes : int or None
        Largest resident set of its process.
    flops_share, bandwidth_share : float or None
        Of the peak; None if the operations or the peak are unknown.
    kernels : tuple of KernelShare
        Of a bundle.
    """

    name: str
    threads: int
    bundle: Bundle | None
    version: str
    measured: Measurement
    p99_ms: float | None
    relative_error: float
    memory_bytes: int | None
    flops_share: float | None = None
    bandwidth_share: float | None = None
    kernels: tuple[KernelShare, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            **self.__dict__,
            "bundle": None if self.bundle is None else str(self.bundle.folder),
            "measured": self.measured.to_json(),
            "kernels": [kernel.to_json() for kernel in self.kernels],
        }


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Parameters
    ----------
    timings : tuple of Timing
        By thread count, bundles first.
    peaks : mapping of int to Peak
        By thread count; empty without the compiler's probe.
    """

    timings: tuple[Timing, ...]
    peaks: dict[int, Peak]


def compare(
    bundles: Sequence[Path],
    *,
    peers: Sequence[str] = (),
    network: Path | None = None,
    threads: Sequence[int] | None = None,
    rounds: int = 21,
    runs: int = 210,
    any_cpu: bool = False,
    peak: bool = True,
    progress: Progress | None = None,
) -> Comparison:
    """Time `bundles` and `peers` in turn, each pinned to the same cores.

    Parameters
    ----------
    bundles : sequence of Path
        Of one network, each for another thread count.
    peers : sequence of str
        Names of `netcut_fx.comparison.peers.PEERS`, or ``torch`` for both of torch's.
    network : Path, optional
        ``.pt2`` or ``.onnx`` that peers run; by default the ``.pt2`` beside the first bundle.
    threads : sequence of int, optional
        Thread counts to time; those of the bundles by default.
    rounds, runs : int
        Rounds, and single runs of each artefact over all of them.
    any_cpu : bool
        As in `netcut_fx.runtime.load`.
    peak : bool
        Also measure the machine's peak; needs the compiler.
    progress : callable, optional
        Called after each artefact of each round.

    Raises
    ------
    SpecError
        For a wrong option.
    BackendError
        If a peer is missing, refuses the network, or answers otherwise.
    """
    if runs < 1 or rounds < 1:
        raise SpecError(f"measuring needs at least 1 run and 1 round, got {runs} and {rounds}")
    read = [read_bundle(folder) for folder in bundles]
    counts = _thread_counts(read, threads)
    names = chosen_peers(peers)
    timings: list[Timing] = []
    peaks: dict[int, Peak] = {}
    with tempfile.TemporaryDirectory(prefix="netcut-") as scratch:
        files = peer_files(names, network, read[0], Path(scratch))
        inputs = Path(scratch) / "inputs.npy"
        shape = read[0].manifest.input_shape
        numbers = np.random.default_rng(0).standard_normal((_ANSWERS, *shape), dtype=np.float32)
        np.save(inputs, numbers, allow_pickle=False)
        with _serve_bundle(read[0], any_cpu, _cores(read[0].manifest.threads)) as first:
            expected = _answers(first, inputs)
        if not np.isfinite(expected).all():
            raise BackendError(
                f"the bundle {read[0].folder} answers NaN or infinity to random images: its weights are damaged; "
                "compile the network again"
            )
        for i, count in enumerate(counts):
            cores = _cores(count)
            with ExitStack() as stack:
                served: list[tuple[PinnedProcess, Bundle | None]] = []
                for bundle in read:
                    if bundle.manifest.threads == count:
                        served.append((stack.enter_context(_serve_bundle(bundle, any_cpu, cores)), bundle))
                for name in names:
                    job = {"kind": name, "network": str(files[name]), "shape": list(shape)}
                    served.append((stack.enter_context(PinnedProcess(name, job, cores, count)), None))
                errors = [_checked(process, _answers(process, inputs), expected) for process, _ in served]
                probe = _probe(read[0], count, cores, stack) if peak else None
                steps = (i * rounds, len(counts) * rounds)
                samples, peak_rounds = _interleaved([p for p, _ in served], probe, rounds, runs, steps, progress)
                if peak_rounds:
                    flops, size = zip(*peak_rounds, strict=True)
                    peaks[count] = Peak(statistics.median(flops), statistics.median(size))
                for (process, bundle), error, values in zip(served, errors, samples, strict=True):
                    timings.append(_timing(process, bundle, count, error, values, read[0], peaks.get(count)))
    return Comparison(tuple(timings), peaks)


def _thread_counts(bundles: Sequence[Bundle], threads: Sequence[int] | None) -> tuple[int, ...]:
    own = [bundle.manifest.threads for bundle in bundles]
    counts = tuple(dict.fromkeys(own if threads is None else threads))
    for count in set(counts) - set(own):
        pinned_cores(count)
    for bundle, count in zip(bundles, own, strict=True):
        if count not in counts:
            raise SpecError(
                f"the bundle {bundle.folder} runs on {count} threads, which --threads does not list; "
                "its count is fixed when it is compiled"
            )
        if bundle.manifest.input_shape != bundles[0].manifest.input_shape:
            raise SpecError(
                f"the bundle {bundle.folder} reads {bundle.manifest.input_shape}, {bundles[0].folder} reads "
                f"{bundles[0].manifest.input_shape}; compare bundles of one network"
            )
    return counts


def _cores(threads: int) -> list[int]:
    """Cores to pin to; where there are fewer than a bundle has threads, its runtime says whether that will do."""
    return pinned_cores(min(threads, usable_cores()))


def _serve_bundle(bundle: Bundle, any_cpu: bool, cores: Sequence[int]) -> PinnedProcess:
    job = {"kind": "bundle", "folder": str(bundle.folder), "any_cpu": any_cpu}
    return PinnedProcess("netcut", job, cores, bundle.manifest.threads)


def _probe(bundle: Bundle, threads: int, cores: Sequence[int], stack: ExitStack) -> PinnedProcess:
    target = {**bundle.manifest.target.to_json(), "threads": threads}
    return stack.enter_context(PinnedProcess("the peak probe", {"kind": "peak", "target": target}, cores, threads))


def _answers(process: PinnedProcess, inputs: Path) -> NDArray[np.float32]:
    answers = inputs.with_name("answers.npy")
    process.ask({"do": "answer", "inputs": str(inputs), "answers": str(answers)})
    return np.load(answers, allow_pickle=False)


def _checked(process: PinnedProcess, answers: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The relative error of answers, if it is small."""
    if answers.shape != expected.shape:
        raise BackendError(
            f"{process.name} answers {answers.shape[1:]}, the bundle {expected.shape[1:]}: the network is another one; "
            "give the one that the bundle was compiled from with --network"
        )
    if not np.isfinite(answers).all():
        raise BackendError(
            f"{process.name} answers NaN or infinity where the bundle answers numbers; leave it out, or give the "
            "network that the bundle was compiled from with --network"
        )
    error = float(np.abs(answers - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))
    if not error <= TOLERANCE:
        raise BackendError(
            f"{process.name} and the bundle answer differently: relative error {error:.1e} (allowed {TOLERANCE:.0e}); "
            "give the network that the bundle was compiled from with --network"
        )
    return error


def _interleaved(
    processes: Sequence[PinnedProcess],
    probe: PinnedProcess | None,
    rounds: int,
    runs: int,
    steps: tuple[int, int],
    progress: Progress | None,
) -> tuple[list[list[list[float]]], list[tuple[float, float]]]:
    """Milliseconds by process, round and run; and the peaks of each round."""
    rounds = min(rounds, runs)
    each = math.ceil(runs / rounds)
    samples: list[list[list[float]]] = [[] for _ in processes]
    peaks: list[tuple[float, float]] = []
    for done in range(rounds):
        for process, rows in zip(processes, samples, strict=True):
            rows.append(process.ask({"do": "time", "runs": each})["ms"])
        if probe is not None:
            found = probe.ask({"do": "peak"})
            peaks.append((found["flops_per_s"], found["bytes_per_s"]))
        if progress is not None:
            progress(steps[0] + done + 1, steps[1], "rounds")
    return samples, peaks


def _timing(
    process: PinnedProcess,
    bundle: Bundle | None,
    threads: int,
    error: float,
    samples: Sequence[Sequence[float]],
    first: Bundle,
    peak: Peak | None,
) -> Timing:
    every = [ms for row in samples for ms in row]
    measured = Measurement.of([statistics.median(row) for row in samples], len(samples[0]))
    description = (bundle or first).manifest.measurement
    flops, size = total(description, "flops"), total(description, "bytes")
    seconds = measured.ms * 1e-3
    kernels: tuple[KernelShare, ...] = ()
    if bundle is not None:
        rounds = process.ask({"do": "kernels", "rounds": _KERNEL_ROUNDS})["kernels"]
        kernels = kernel_shares(rounds, description, peak)
    return Timing(
        process.name,
        threads,
        bundle,
        version_of(process.name) if bundle is None else bundle.manifest.created_by,
        measured,
        float(np.percentile(every, 99)) if len(every) >= RUNS_FOR_P99 else None,
        error,
        process.ask({"do": "memory"})["bytes"],
        None if flops is None or peak is None else flops / seconds / peak.flops_per_s,
        None if size is None or peak is None else size / seconds / peak.bytes_per_s,
        kernels,
    )
