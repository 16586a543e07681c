"""The verb ``explore``: many networks, labelled images, deadlines; a report over all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from netcut_fx.atomic_files import atomic_write, report_storage_errors
from netcut_fx.data import load_data
from netcut_fx.errors import NetcutError
from netcut_fx.exploration.executors import Executor, Inline, RayCluster
from netcut_fx.exploration.explorer import Explorer
from netcut_fx.exploration.labels import with_few_labels
from netcut_fx.exploration.network_spec import NetworkSpec, check_networks, parse_network
from netcut_fx.exploration.options import ExploreOptions
from netcut_fx.exploration.outcome import outcome_of
from netcut_fx.exploration.overview import write_overview
from netcut_fx.exploration.processes import Processes
from netcut_fx.exploration.tasks import Setting
from netcut_fx.job_values import Reporter
from netcut_fx.verbs import Silent, tvm_backend
from netcut_fx.workspace import Workspace


def explore(
    networks: Sequence[NetworkSpec | str],
    data: str,
    *,
    out: Path | str,
    options: ExploreOptions,
    input_size: tuple[int, int] | None = None,
    normalize: str | None = None,
    jobs: int | None = None,
    ray: str | None = None,
    timings: Path | None = None,
    backend: Literal["tvm", "eager"] = "tvm",
    bundles: bool = True,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Find, for each deadline, the network and the cut that are the most accurate.

    Parameters
    ----------
    networks : sequence of NetworkSpec or str
        Pretrained networks; text is read by `parse_network`.
    data : str
        SPEC of labelled images, see `netcut_fx.load_data`.
    out : path
        Folder for ``result.json``, ``report.html``, ``bundles/`` and everything that a later exploration can reuse.
    options : ExploreOptions
        Deadlines, strategies, and what a run of each network is told.
    input_size : (height, width), optional
        Of all networks; by default the data's own.
    normalize : str, optional
        For networks that do not say their own.
    jobs : int, optional
        Processes that survey and train; 0 does everything in this one. Default: one for each core, at most one for
        each network.
    ray : str, optional
        Address of a Ray cluster that surveys and trains instead.
    timings : Path, optional
        Folder of tuning records and timings, where several explorations share them. Default: in `out`.
    backend : str
        ``tvm``, or ``eager`` to try things out.
    bundles : bool
        Write the best network known for each deadline as a bundle into ``bundles/``; torch eager makes none.
    reporter : Reporter, optional
        Hears of steps, progress and failures.

    Returns
    -------
    dict
        What ``result.json`` holds, see `netcut_fx.exploration.outcome.outcome_of`.

    Raises
    ------
    NetcutError
        For wrong options or data, if every network fails, or if nothing meets the longest deadline. Finished steps are
        kept in `out`.
    """
    heard = reporter or Silent()
    specs = [n if isinstance(n, NetworkSpec) else parse_network(n, normalize) for n in networks]
    check_networks(specs)
    if bundles and backend == "tvm":
        # Refuse before hours of training what could not be delivered after them.
        try:
            tvm_backend(options.each.target, options.each.threads, links=True)
        except NetcutError as error:
            raise type(error)(f"{error}; or leave the bundles out (--no-bundles)") from None
    folder = Path(out).absolute()
    with Workspace(folder, warn=heard.note):
        explorer = prepared(
            specs, data, folder, options, input_size=input_size, timings=timings, backend=backend, reporter=heard
        )
        executor, clock = executors(jobs, ray, len(specs))
        explorer.executor, explorer.clock = executor, clock
        try:
            explorer.survey()
            explorer.time()
            explorer.search()
            if bundles and backend == "tvm":
                explorer.deliver()
        finally:
            executor.close()
            clock.close()
        result = outcome_of(explorer)
        with report_storage_errors(f"write the result to {folder}", safe="finished steps are kept there"):
            result["report"] = str(write_overview(result, folder / "report.html"))
            atomic_write(folder / "result.json", (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    return result


def prepared(
    networks: Sequence[NetworkSpec],
    data: str,
    folder: Path,
    options: ExploreOptions,
    *,
    input_size: tuple[int, int] | None,
    timings: Path | None,
    backend: Literal["tvm", "eager"],
    reporter: Reporter,
) -> Explorer:
    """An `Explorer` that does everything in this process, after the images were looked at once."""
    loaded = load_data(data, input_size=input_size, seed=options.each.seed)
    if options.train_per_class is not None:
        with_few_labels(loaded, options.train_per_class, options.each.seed)
    setting = Setting(
        data,
        loaded.preprocess.size,
        options.each,
        folder,
        folder / "timings" if timings is None else Path(timings).absolute(),
        backend,
        options.train_per_class,
        options.distillation,
    )
    return Explorer(networks, setting, options, Inline(), Inline(), reporter)


def executors(jobs: int | None, ray: str | None, networks: int) -> tuple[Executor, Executor]:
    """For what may run anywhere, and for what is timed on this machine."""
    if jobs == 0:
        return Inline(), Inline()
    count = jobs or min(len(os.sched_getaffinity(0)), networks)
    return RayCluster(ray, count) if ray is not None else Processes(count), Processes(1)
