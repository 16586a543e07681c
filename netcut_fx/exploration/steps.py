"""Do one step of an exploration with the parts of a single run, and keep its result as a file of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from netcut_fx.angular import angular_similarity
from netcut_fx.backends.base import Backend
from netcut_fx.backends.eager import EagerBackend
from netcut_fx.code_version import sources_digest
from netcut_fx.data import Dataset, load_data
from netcut_fx.delivery import Artefact, write_checked
from netcut_fx.errors import NetcutError
from netcut_fx.evaluate import predict_logits
from netcut_fx.exploration.canary import CanaryWatch
from netcut_fx.exploration.labels import distilled, target_table, with_few_labels, without_test
from netcut_fx.exploration.network_spec import NetworkSpec, file_name
from netcut_fx.exploration.tasks import Answer, Kind, Setting, Task
from netcut_fx.graph import TracedModule
from netcut_fx.job import Job
from netcut_fx.latency import LatencyModel, kernels_of_cuts
from netcut_fx.model_spec import load_model
from netcut_fx.retraining import TrainedCandidate
from netcut_fx.retraining_key import SOURCES
from netcut_fx.spec_text import one_line
from netcut_fx.verbs import Silent, tvm_backend
from netcut_fx.workspace import Workspace

#: Name of the folder of the winners' bundles in the folder of an exploration.
BUNDLES = "bundles"
_ROW_SOURCES = (*SOURCES, "exploration/steps.py", "exploration/labels.py", "angular.py")


def perform(task: Task) -> Answer:
    """Do `task`; whatever goes wrong becomes one line, so that other networks go on."""
    try:
        return Answer(_STEPS[task.kind](task))
    except NetcutError as error:
        return Answer(None, " ".join(str(error).split()))
    except Exception as error:  # a network is the user's code: anything may come out of it
        return Answer(None, one_line(error))


@lru_cache(maxsize=4)
def _dataset(data: str, size: tuple[int, int], normalize: str, seed: int, per_class: int | None) -> Dataset:
    dataset = load_data(data, input_size=size, normalize=normalize, seed=seed)
    return dataset if per_class is None else with_few_labels(dataset, per_class, seed)


@lru_cache(maxsize=1)
def _tvm(target: str, threads: int) -> Backend:
    return tvm_backend(target, threads)


@lru_cache(maxsize=1)
def _watch(target: str, threads: int, timings: Path) -> CanaryWatch:
    return CanaryWatch(_tvm(target, threads), timings)


@lru_cache(maxsize=4)
def _job(network: NetworkSpec, setting: Setting, part: Literal["survey", "train", "time"]) -> Job:
    """The parts of a run of `network`; what is timed needs the compiler and is kept apart from the images."""
    options, timed = setting.options, part == "time"
    dataset = _dataset(setting.data, setting.input_size, network.normalize, options.seed, setting.train_per_class)
    if part == "survey":
        dataset, _ = without_test(dataset)
    folder = setting.timings if timed else setting.folder / "networks" / network.folder_name
    job = Job(
        load_model(network.model, network.weights),
        network.name,
        dataset,
        options,
        _tvm(options.target, options.threads) if timed and setting.backend == "tvm" else EagerBackend(options.threads),
        Workspace(folder, shared=True),
        Silent(),
        database=setting.timings / "tuning",
    )
    if timed:
        about_images = ("data", "seed")
        job.target_key = {k: v for k, v in job.target_key.items() if k not in about_images}
        job.target_key["classes"] = dataset.class_count
        if setting.backend == "tvm":
            job.watch = _watch(options.target, options.threads, setting.timings)
    return job


def _survey(task: Task) -> dict[str, Any]:
    job = _job(task.network, task.setting, "survey")
    stage = job.workspace.stage("survey", {**job.network_key, "rows": sources_digest(_ROW_SOURCES)})
    stored = stage.load()
    if stored is not None:
        return stored
    bill = job.workspace.stage("survey-bill", job.network_key)
    cpu = time.process_time()
    features = job.pooled()
    if not job.stages[-1].reused:
        bill.save({"cpu_seconds": time.process_time() - cpu})
    # None where an earlier start ended between the two: what its pass took is not known.
    passed: dict[str, float] | None = bill.load()
    cpu = time.process_time()
    _, quick = job.features()
    value: dict[str, Any] = {
        "traced_by": job.traced.traced_by,
        "images": len(job.dataset.images),
        "classes": job.dataset.class_count,
        "cpu_seconds": None if passed is None else passed["cpu_seconds"] + time.process_time() - cpu,
        # Where only pooling lies between a cut and the end, its head reads what the uncut network's does.
        "cuts": [
            {
                "name": frontier.name,
                "uncut": frontier.nodes == job.uncut.nodes,
                "kept_flops": frontier.kept_flops,
                "kept_params": frontier.kept_params,
                "quick": quick[frontier.name].accuracy.to_json(),
            }
            for frontier in job.frontiers
            if frontier is job.uncut or not np.array_equal(features[frontier.name], features[job.uncut.name])
        ],
    }
    stage.save(value)
    return value


def _train(task: Task) -> dict[str, Any]:
    job = _job(task.network, task.setting, "train")
    stage = job.workspace.stage("trained", {**_training_key(task), "rows": sources_digest(_ROW_SOURCES)})
    stored = stage.load()
    if stored is not None:
        return stored
    trained = _trained(task)
    answers = _probabilities(trained.traced, job.dataset, job.dataset.splits["test"])
    value: dict[str, Any] = {
        "validation": trained.validation.to_json(),
        "test": trained.test.to_json(),
        "validation_loss": trained.validation_loss,
        "angular_similarity": angular_similarity(answers, target_table(job.dataset)[job.dataset.splits["test"]]),
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "stopped": trained.stopped,
        "head_validation": trained.history[0]["validation_accuracy"],
        **_bill(trained),
    }
    stage.save(value)
    return value


def _labelled(task: Task) -> Dataset:
    """The images, with labels that a teacher softened where there is one."""
    dataset, setting = _job(task.network, task.setting, "train").dataset, task.setting
    if task.teacher is None:
        return dataset
    return distilled(dataset, _answers_of(task.teacher, setting), setting.distillation)


def _training_key(task: Task) -> dict[str, Any]:
    """All that decides what retraining a cut yields."""
    job = _job(task.network, task.setting, "train")
    taught_by = "" if task.teacher is None else task.teacher.name
    recipe = {**job.options.retrain.to_json(), "taught_by": taught_by, "share": task.setting.distillation}
    head = [job.options.head, *job.options.hidden]
    return {**job.network_key, "at": task.cut, "recipe": recipe, "head": head, "targets": _labelled(task).digest}


def _trained(task: Task) -> TrainedCandidate:
    """The retrained cut; finished epochs of an earlier start are only loaded."""
    job = _job(task.network, task.setting, "train")
    features = _features(task.network, task.setting, task.cut)
    return job.retrain(job.by_name(task.cut), features, _labelled(task))


def _features(network: NetworkSpec, setting: Setting, cut: str) -> NDArray[np.float32]:
    """Pooled features of one cut, as the survey stored them; test images, which no training looks at, have zeros."""
    table = _job(network, setting, "survey").pooled()[cut]
    dataset = _job(network, setting, "train").dataset
    whole = np.zeros((len(dataset.images), table.shape[1]), np.float32)
    whole[without_test(dataset)[1]] = table
    return whole


def _bill(trained: TrainedCandidate) -> dict[str, float]:
    """Seconds of all records, those of earlier starts included."""
    return {name: float(sum(record[name] for record in trained.history)) for name in ("seconds", "cpu_seconds")}


def _answers_of(teacher: NetworkSpec, setting: Setting) -> NDArray[np.float32]:
    """Probabilities of the trained uncut `teacher` for all images; its training is finished, so it is only loaded."""
    job = _job(teacher, setting, "train")
    stage = job.workspace.stage("answers", {**job.network_key, "recipe": job.options.retrain.to_json()})
    stored = stage.load_arrays()
    if stored is None:
        trained = job.retrain(job.uncut, _features(teacher, setting, job.uncut.name))
        every = np.arange(len(job.dataset.images))
        stored = {"probabilities": _probabilities(trained.traced, job.dataset, every)}
        stage.save_arrays(stored)
    return stored["probabilities"]


def _probabilities(network: TracedModule, dataset: Dataset, index: NDArray[np.int64]) -> NDArray[np.float32]:
    batch = 64
    parts = (index[start : start + batch] for start in range(0, len(index), batch))
    logits = [predict_logits(network.graph_module, dataset.preprocess.normalise(dataset.images[p])) for p in parts]
    return softmax(np.concatenate(logits), axis=1)


def _time(task: Task) -> dict[str, Any]:
    job = _job(task.network, task.setting, "time")
    stage = job.workspace.stage("timed", job.target_key)
    stored = stage.load()
    if stored is not None:
        return stored
    start, before = time.monotonic(), len(job.stages)
    calibration, measured = job.profile(job.trn(job.uncut))
    model = LatencyModel.of_calibration(calibration)
    priced = {n: model.price(k) for n, k in kernels_of_cuts(job.traced, job.frontiers, job.head).items()}
    value: dict[str, Any] = {
        "uncut": {"cut": job.uncut.name, "measured": measured.to_json()},
        "estimates": {
            name: {"ms": e.ms, "low_ms": e.low_ms, "high_ms": e.high_ms, "provenance": dict(e.provenance)}
            if e.is_known
            else {"missing": list(e.missing)}
            for name, e in priced.items()
        },
        "target": job.backend.target.fingerprint(),
        "seconds": time.monotonic() - start,
        "stages": {s.name: s.seconds for s in job.stages[before:]},
    }
    stage.save(value)
    return value


def _measure(task: Task) -> dict[str, Any]:
    job = _job(task.network, task.setting, "time")
    stage = job.workspace.stage("measured-row", {**job.target_key, "at": task.cut})
    stored = stage.load()
    if stored is not None:
        return stored
    start = time.monotonic()
    value = {"measured": job.measure(job.by_name(task.cut)).to_json(), "seconds": time.monotonic() - start}
    stage.save(value)
    return value


def _deliver(task: Task) -> dict[str, Any]:
    promise = task.promise
    assert promise is not None, "whoever asks for a delivery knows what was measured"
    timed, learned = (_job(task.network, task.setting, part) for part in ("time", "train"))
    folder = task.setting.folder / BUNDLES
    bundle = folder / file_name(f"{task.network.folder_name}-{task.cut}")
    told = {"deadline_ms": promise.deadline_ms, "measured": promise.measured.to_json(), "bundle": str(bundle)}
    stage = learned.workspace.stage("delivered", {**_training_key(task), **timed.target_key, **told})
    stored = stage.load()
    if stored is not None and bundle.exists():
        return stored
    trained = _trained(task)
    artefact = Artefact(
        task.cut,
        trained,
        timed.backend.compile(trained.traced, database=timed.database),
        promise.estimate,
        promise.measured,
        promise.deadline_ms,
        learned.dataset,
        timed.backend.target,
        learned.options,
    )
    folder.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    agreement = write_checked(artefact, bundle, notes.append)
    value: dict[str, Any] = {"agreement": agreement, "bundle": str(bundle), "notes": notes}
    stage.save(value)
    return value


_STEPS: Mapping[Kind, Callable[[Task], dict[str, Any]]] = {
    "survey": _survey,
    "train": _train,
    "time": _time,
    "measure": _measure,
    "deliver": _deliver,
}
