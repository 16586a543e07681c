"""The verbs that tie several modules together; the others are re-exported by the package as they are."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from cost_models import LatencyEstimate
from netcut_fx.backends.base import Backend, CompiledModule, Progress
from netcut_fx.bundle import check_replaceable
from netcut_fx.data import Dataset, load_data
from netcut_fx.delivery import BUNDLE, deliver
from netcut_fx.errors import NetcutError, SpecError
from netcut_fx.frontier import find_frontier
from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.job import Job
from netcut_fx.job_options import RunOptions
from netcut_fx.job_values import Reporter
from netcut_fx.kernels import kernels
from netcut_fx.latency import LatencyModel, kernels_of_cuts
from netcut_fx.model_spec import load_model, recommended_normalize
from netcut_fx.passes.head import HeadPass
from netcut_fx.target import parse_target_spec
from netcut_fx.workspace import Workspace


def estimate(
    network: TracedModule,
    frontier: Frontier | str | None = None,
    *,
    model: LatencyModel,
    head: HeadPass | None = None,
) -> LatencyEstimate:
    """Latency of `network`, or of a cut of it, by `model`; no weight is copied.

    Parameters
    ----------
    network : TracedModule
        Whole, or already cut.
    frontier : Frontier or str, optional
        Price the cut there, with `head`.
    model : LatencyModel
        Of the target.
    head : HeadPass, optional
        Needed with `frontier`.

    Returns
    -------
    LatencyEstimate
        Unknown, naming the kernels, if something is neither measured nor modelled.
    """
    if frontier is None:
        return model.price(kernels(network))
    if head is None:
        raise NetcutError("estimate of a cut needs the head that will be put on it; pass head=HeadPass(classes=...)")
    found = find_frontier(network, frontier) if isinstance(frontier, str) else frontier
    return model.price(kernels_of_cuts(network, [found], head)[found.name])


def compile(
    network: TracedModule,
    *,
    target: str = "native",
    threads: int = 1,
    trials: int = 0,
    database: Path | str | None = None,
    progress: Progress | None = None,
) -> CompiledModule:
    """Tune and compile with TVM.

    Parameters
    ----------
    network : TracedModule
        With one float32 NCHW input.
    target : str
        SPEC, see `netcut_fx.target.parse_target_spec`.
    threads : int
        Threads that the artefact uses.
    trials : int
        Schedules tried per kernel, those in `database` included; needs `database`.
    database : path, optional
        Folder of tuning records; shared by all networks.
    progress : callable, optional
        Called with trials made, trials in all at most, and what is known so far in words.
    """
    backend = tvm_backend(target, threads)
    folder = None if database is None else Path(database)
    if trials:
        if folder is None:
            raise NetcutError("tuning needs a folder for its records; pass database=...")
        backend.tune(network, trials=trials, database=folder, progress=progress)
    return backend.compile(network, database=folder)


def tvm_backend(target: str = "native", threads: int = 1, *, links: bool = False) -> Backend:
    """TVM for `target`; imported here, since most of the package works without it.

    Parameters
    ----------
    target : str
        SPEC, see `netcut_fx.target.parse_target_spec`.
    threads : int
        Threads that artefacts use.
    links : bool
        What it compiles will be saved: refuse now, before any tuning, if there is nothing to link it with, or the
        runtime does not drive the target.
    """
    from netcut_fx.backends.tvm import TvmBackend
    from netcut_fx.backends.tvm.toolchain import require_linker

    if links:
        kind, _ = parse_target_spec(target)
        if kind != "llvm":
            raise SpecError(
                f"target {kind} can be calibrated, tuned and measured, but bundles are served by CPUs; use native or "
                "'llvm -mcpu=NAME'"
            )
        require_linker()
    return TvmBackend(target, threads)


def remote_backend(target: str, threads: int, tracker: str, key: str) -> Backend:
    """TVM for devices `key` behind the RPC tracker ``HOST:PORT``: compiled here, tuned and measured there.

    Parameters
    ----------
    target : str
        SPEC of the devices' CPU; ``native`` where it is that of this machine.
    threads : int
        Threads that artefacts use.
    tracker, key : str
        Where, and which.
    """
    from netcut_fx.backends.tvm.remote_backend import RemoteBackend
    from netcut_fx.backends.tvm.remote_device import DeviceAddress

    return RemoteBackend(target, threads, DeviceAddress.parse(tracker, key))


class Silent:
    """A `Reporter` that says nothing."""

    def stage(self, name: str) -> None:
        """Ignore."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def run(
    model: nn.Module | str,
    data: Dataset | str,
    *,
    out: Path | str,
    options: RunOptions | None = None,
    weights: Path | None = None,
    input_size: tuple[int, int] | None = None,
    normalize: str | None = None,
    backend: Backend | None = None,
    reporter: Reporter | None = None,
    workspace: Workspace | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """From a pretrained network and labelled images to a bundle that meets the deadline.

    Parameters
    ----------
    model : nn.Module or str
        The network, or a SPEC for `load_model`. Left as it is.
    data : Dataset or str
        Labelled images, or a SPEC for `load_data`.
    out : path
        Folder for the bundle, the report, ``result.json`` and everything that a later run can reuse.
    options : RunOptions, optional
        Else made from `fields`, for instance ``deadline_ms=5.0, trials=64``.
    weights, input_size, normalize
        For SPECs: checkpoint of the model, size and normalisation of the images.
    backend : Backend, optional
        Default: TVM for the target of the options.
    reporter : Reporter, optional
        Hears of stages and progress.
    workspace : Workspace, optional
        An opened one for `out`.

    Returns
    -------
    dict
        What ``result.json`` holds; see ``README.md``.

    Raises
    ------
    NetcutError
        One of its subclasses, each with what is wrong, where, and what to do. Finished stages are kept in `out`.
    """
    if options is not None and fields:
        raise SpecError(f"give either options or {', '.join(fields)}, not both: the options would win")
    chosen = options or RunOptions(**fields)
    module = load_model(model, weights) if isinstance(model, str) else model
    name = model if isinstance(model, str) else type(model).__name__
    if isinstance(data, str):
        guessed = recommended_normalize(model) if isinstance(model, str) else None
        data = load_data(data, input_size=input_size, normalize=normalize or guessed, seed=chosen.seed)
    holder = nullcontext(workspace) if workspace is not None else Workspace(out)
    with holder as space:
        check_replaceable(space.folder / BUNDLE)
        job = Job(
            module,
            name,
            data,
            chosen,
            backend or tvm_backend(chosen.target, chosen.threads, links=True),
            space,
            reporter or Silent(),
        )
        return deliver(job.run(), space.folder, reporter or Silent())
