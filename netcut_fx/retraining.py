"""Retrain a trimmed network: head on cached features, then everything on images; resumes where it was killed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from netcut_fx.checkpoint import Checkpoint, checkpoint_path, load_checkpoint, save_checkpoint
from netcut_fx.data import Dataset
from netcut_fx.errors import NetcutError
from netcut_fx.evaluate import Accuracy, accuracy
from netcut_fx.features import node_features
from netcut_fx.graph import TracedModule
from netcut_fx.quick import check_features
from netcut_fx.retraining_key import check_fit, retrain_key
from netcut_fx.retraining_options import RetrainOptions
from netcut_fx.student import Student
from netcut_fx.training import Best, FineTuning, NotFiniteError, Score, train_head

__all__ = ["Objective", "Progress", "RetrainOptions", "TrainedCandidate", "retrain"]

#: Called with the record of each stage or epoch as it is added to `TrainedCandidate.history`.
Progress = Callable[[Mapping[str, Any]], None]


class Objective(Protocol):
    """What is trained for beside the labels.

    With one, the newest weights are taken, not those with the best accuracy: accuracy is only half of what is wanted.
    """

    def __call__(self, module: nn.Module, /) -> Tensor:
        """A term of the loss, for the batch that the network has just computed."""
        ...

    def to_json(self) -> dict[str, Any]:
        """All that decides it."""
        ...


@dataclass(frozen=True)
class TrainedCandidate:
    """A retrained network.

    Parameters
    ----------
    traced : TracedModule
        With the weights of the best epoch, in eval mode.
    validation : Accuracy
        What the choice among candidates rests on; the best of all epochs, hence a little optimistic.
    validation_loss : float
        Cross-entropy on validation, of the same weights.
    test : Accuracy
        Evaluated once, at the end.
    epochs : int
        Finished epochs of fine-tuning, all starts together.
    best_epoch : int
        Whose weights these are; 0 is the frozen trunk with the trained head.
    history : tuple of dict
        A record for the head and for each epoch of fine-tuning: stage, epoch, seconds, CPU seconds, losses, accuracy.
    stopped : str
        Why it ended: ``"all epochs"``, ``"patience"``, ``"time"`` or ``"loss not finite"``.
    seconds : float
        Of training, all starts together.
    resumed : bool
        Whether work of an earlier start was used.
    """

    traced: TracedModule
    validation: Accuracy
    validation_loss: float
    test: Accuracy
    epochs: int
    best_epoch: int
    history: tuple[dict[str, Any], ...]
    stopped: str
    seconds: float
    resumed: bool


def retrain(
    trn: TracedModule,
    dataset: Dataset,
    *,
    options: RetrainOptions | None = None,
    checkpoint_dir: Path | None = None,
    features: NDArray[np.float32] | None = None,
    progress: Progress | None = None,
    objective: Objective | None = None,
) -> TrainedCandidate:
    """Train a copy of `trn`, choose its best epoch on validation, and evaluate that on test.

    Parameters
    ----------
    trn : TracedModule
        A cut network with a head for the classes of `dataset`; its weights stay as they are.
    dataset : Dataset
        At the size that the network reads.
    options : RetrainOptions, optional
        Default: ``RetrainOptions()``.
    checkpoint_dir : Path, optional
        Where a checkpoint is kept after each epoch. A later call with the same arguments, code and torch goes on from
        there and ends with the same weights to the bit (with the same number of threads); a finished run is not
        repeated.
    features : float32 array (N, C), optional
        Pooled features of this cut for all images, from `pooled_features`; else they are computed first.
    progress : callable, optional
        Called with each record of the history.
    objective : Objective, optional
        What to train for beside the labels.

    Returns
    -------
    TrainedCandidate

    Raises
    ------
    NetcutError
        If network, data and features do not fit each other, training diverges before anything was learnt, or a
        checkpoint cannot be written.
    """
    chosen = options or RetrainOptions()
    check_fit(trn, dataset)
    if features is not None:
        check_features(trn.name, features, len(dataset.labels))
    key = retrain_key(trn, dataset, chosen, features, None if objective is None else objective.to_json())
    run = _Run(trn, dataset, chosen, folder=checkpoint_dir, progress=progress, key=key, objective=objective)
    return run.to_the_end(features)


class _Run:
    """One retraining, from its checkpoint if there is one."""

    def __init__(
        self,
        trn: TracedModule,
        dataset: Dataset,
        options: RetrainOptions,
        *,
        folder: Path | None,
        progress: Progress | None,
        key: str,
        objective: Objective | None,
    ) -> None:
        self.objective = objective
        self.trn, self.dataset, self.options, self.progress, self.key = trn, dataset, options, progress, key
        self.path = None if folder is None else checkpoint_path(folder, key)
        self.student = Student(trn)
        self.tuning = FineTuning(self.student, dataset, options, objective)
        self.best = Best()
        self.history: list[dict[str, Any]] = []
        self.epoch = 0
        self.stopped = ""
        self.accuracies: dict[str, Accuracy] = {}
        self.seconds_before = 0.0
        self.start = time.monotonic()
        self.cpu_start = time.process_time()
        self.resumed = self._restore()

    @property
    def seconds(self) -> float:
        """Spent on training so far, by all starts."""
        return self.seconds_before + time.monotonic() - self.start

    def to_the_end(self, features: NDArray[np.float32] | None) -> TrainedCandidate:
        if not self.resumed:
            self._train_head(features)
        while not self.stopped:
            self._fine_tune()
        seconds = self.seconds
        self.student.module.load_state_dict(self.best.state)
        traced = self.student.finished()
        if not self.accuracies:
            self.accuracies = {s: accuracy(traced.graph_module, self.dataset, s) for s in ("validation", "test")}
            self._save(finished=True)
        score = self.best.score
        assert score is not None  # training ends with an error where nothing was ever scored
        return TrainedCandidate(
            traced,
            self.accuracies["validation"],
            score.loss,
            self.accuracies["test"],
            self.epoch,
            self.best.epoch,
            tuple(self.history),
            self.stopped,
            seconds,
            self.resumed,
        )

    def _train_head(self, features: NDArray[np.float32] | None) -> None:
        node = self.student.features_node
        if node is not None and self.options.head_epochs:
            if features is None:
                features = node_features(self.trn, {self.trn.name: (node,)}, self.dataset)[self.trn.name]
                check_features(self.trn.name, features, len(self.dataset.labels))
            width = self.trn.by_name[node].meta["spec"].shape[1]
            if features.shape[1] != width:
                raise NetcutError(
                    f"{features.shape[1]} features were given for {self.trn.name}, whose head reads {width}; "
                    "give the features of the frontier where it was cut"
                )
            try:
                score, epochs = train_head(self.student, features, self.dataset, self.options)
            except NotFiniteError:
                raise NetcutError(
                    f"the head of {self.trn.name} diverged in its first epoch with head_lr={self.options.head_lr:g}; "
                    "lower the learning rate head_lr"
                ) from None
            self.best.offer(score, 0, self.student.module)
            self._record(stage="head", epoch=epochs, score=score)
        if self.options.epochs == 0:
            if self.best.score is None:
                raise NetcutError(
                    f"{self.trn.name} has no head that reads pooled features, and epochs=0 trains nothing else; "
                    "put a head on it, or set epochs"
                )
            self.stopped = "all epochs"
        self._save()

    def _fine_tune(self) -> None:
        """One more epoch."""
        options, start = self.options, time.monotonic()
        left = options.max_seconds - self.seconds
        if left <= 0 and self.best.score is not None:
            self.stopped = "time"
            return
        try:
            result = self.tuning.run_epoch(self.epoch + 1, left)
        except NotFiniteError:
            if self.best.score is None:
                raise NetcutError(
                    f"fine-tuning {self.trn.name} diverged in epoch {self.epoch + 1} with lr={options.lr:g}; "
                    "lower the learning rate lr"
                ) from None
            self.stopped = "loss not finite"
            return
        self.epoch += 1
        self.best.offer(result.score, self.epoch, self.student.module, newest=self.objective is not None)
        self._record(stage="fine-tuning", epoch=self.epoch, score=result.score, train_loss=result.loss, start=start)
        if self.epoch == 1:
            fitting = math.floor(min(1e6, (options.max_seconds - self.seconds) / (time.monotonic() - start)))
            self.tuning.planned_epochs = max(1, min(options.epochs, 1 + fitting))
        if result.cut_short:
            self.stopped = "time"
        elif self.epoch >= self.tuning.planned_epochs:
            self.stopped = "all epochs" if self.tuning.planned_epochs == options.epochs else "time"
        elif self.objective is None and self._epochs_without_gain() >= options.patience:
            self.stopped = "patience"
        self._save()

    def _epochs_without_gain(self) -> int:
        """Since the best epoch of fine-tuning, which may at first be worse than the head on the frozen trunk."""
        tuned = [h for h in self.history if h["stage"] == "fine-tuning"]
        best = max(tuned, key=lambda h: (h["validation_accuracy"], -h["validation_loss"]))
        return self.epoch - best["epoch"]

    def _record(self, *, stage: str, epoch: int, score: Score, start: float | None = None, **more: float) -> None:
        total = len(self.dataset.splits["validation"])
        record = {
            "stage": stage,
            "epoch": epoch,
            **more,
            "validation_loss": score.loss,
            "validation_accuracy": score.correct / total,
            "seconds": time.monotonic() - (self.start if start is None else start),
            "cpu_seconds": time.process_time() - self.cpu_start,
        }
        self.cpu_start = time.process_time()
        self.history.append(record)
        if self.progress is not None:
            self.progress(record)

    def _save(self, *, finished: bool = False) -> None:
        if self.path is None:
            return
        facts = {
            "epoch": self.epoch,
            "planned_epochs": self.tuning.planned_epochs,
            "best_epoch": self.best.epoch,
            "best_score": None if self.best.score is None else [self.best.score.correct, self.best.score.loss],
            "history": self.history,
            "stopped": self.stopped,
            "seconds": self.seconds,
            "accuracies": {split: value.to_json() for split, value in self.accuracies.items()},
        }
        tensors = {f"best/{name}": tensor for name, tensor in self.best.state.items()}
        if not finished:  # afterwards only the result is worth its space
            tensors |= self.tuning.state()
        save_checkpoint(self.path, Checkpoint(self.key, facts, tensors))

    def _restore(self) -> bool:
        checkpoint = None if self.path is None else load_checkpoint(self.path, self.key)
        if checkpoint is None:
            return False
        facts, tensors = checkpoint.facts, checkpoint.tensors
        score = facts["best_score"]
        best = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
        self.best = Best(None if score is None else Score(*score), facts["best_epoch"], best)
        self.epoch, self.stopped, self.history = facts["epoch"], facts["stopped"], facts["history"]
        self.tuning.planned_epochs = facts["planned_epochs"]
        self.accuracies = {split: Accuracy.from_json(value) for split, value in facts["accuracies"].items()}
        self.seconds_before = facts["seconds"]
        if not self.accuracies:
            self.tuning.restore(tensors)
        return True
