"""The two stages of training: the head on cached features, then the whole network on images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from netcut_fx.augment import augmented
from netcut_fx.data import Dataset
from netcut_fx.evaluate import predict_logits
from netcut_fx.retraining_options import RetrainOptions
from netcut_fx.student import Student

# Few images make small batches, so that an epoch of the head is at least some steps.
_HEAD_BATCHES_PER_EPOCH, _LEAST_HEAD_BATCH, _MOST_HEAD_BATCH = 16, 8, 64
_EVALUATION_BATCH = 32

# Streams of random numbers, so that an epoch draws the same whatever ran before it.
_HEAD_STREAM, _FINE_TUNING_STREAM = 1, 2


#: A term of the loss beside the labels: from the network that has just computed a batch.
Penalty = Callable[[nn.Module], Tensor]


class NotFiniteError(Exception):
    """Loss, gradient or prediction is NaN or infinite."""


@dataclass(frozen=True)
class Score:
    """How good a network is on validation: more correct answers win, then the lower loss."""

    correct: int
    loss: float

    def beats(self, other: Score | None) -> bool:
        """Whether this is better; anything is better than None."""
        return other is None or (self.correct, -self.loss) > (other.correct, -other.loss)


def score_of(logits: Tensor, labels: Tensor, aims: Tensor | None = None) -> Score:
    """Score of logits (n, classes) by labels (n,) and, for the loss, what training aims at (`Dataset.aims`).

    Raises
    ------
    NotFiniteError
        If a logit is NaN or infinite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise NotFiniteError
    return Score(
        int((logits.argmax(1) == labels).sum()), float(cross_entropy(logits, labels if aims is None else aims))
    )


@dataclass
class Best:
    """The best weights so far."""

    score: Score | None = None
    epoch: int = 0
    state: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def offer(self, score: Score, epoch: int, module: nn.Module, *, newest: bool = False) -> bool:
        """Take the module's present weights if their score is better, or the `newest` are wanted; whether it did."""
        if not newest and not score.beats(self.score):
            return False
        self.score, self.epoch = score, epoch
        self.state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        return True


def train_head(
    student: Student, features: NDArray[np.float32], dataset: Dataset, options: RetrainOptions
) -> tuple[Score, int]:
    """Train the head on pooled features; its best weights on validation are left in the student.

    Returns
    -------
    tuple
        Score on validation, and the number of epochs run.

    Raises
    ------
    NotFiniteError
        If the loss became NaN before any epoch was finished.
    """
    head = student.head
    assert head is not None
    train, validation = torch.tensor(dataset.splits["train"]), torch.tensor(dataset.splits["validation"])
    table = student.standardised(features, dataset.splits["train"])
    aims = torch.tensor(dataset.aims(np.arange(len(dataset.labels))))
    held_labels = torch.tensor(dataset.labels)[validation]
    inputs = (table[train], aims[train], table[validation], held_labels, aims[validation])
    optimizer = torch.optim.AdamW(head.parameters(), lr=options.head_lr, weight_decay=options.weight_decay)
    best, epochs = Best(), 0
    for epoch in range(1, options.head_epochs + 1):
        rate = options.head_lr * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / options.head_epochs))
        for group in optimizer.param_groups:
            group["lr"] = rate
        try:
            score = _head_epoch(head, optimizer, inputs, options, epoch)
        except NotFiniteError:
            if best.score is None:
                raise
            break
        epochs = epoch
        best.offer(score, epoch, head)
        if epoch - best.epoch >= options.head_patience:
            break
    assert best.score is not None
    head.load_state_dict(best.state)
    return best.score, epochs


def _head_epoch(
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    options: RetrainOptions,
    epoch: int,
) -> Score:
    table, aims, held_table, held_labels, held_aims = inputs
    size = min(max(len(table) // _HEAD_BATCHES_PER_EPOCH, _LEAST_HEAD_BATCH), _MOST_HEAD_BATCH)
    with _seeded(options.seed, _HEAD_STREAM, epoch) as generator:
        head.train()
        for part in _random_batches(len(table), size, generator):
            index = torch.from_numpy(part)
            _step(head, optimizer, table[index], aims[index], options)
    head.eval()
    with torch.no_grad():
        return score_of(head(held_table), held_labels, held_aims)


@dataclass(frozen=True)
class Epoch:
    """What one epoch of fine-tuning yielded."""

    loss: float
    score: Score
    cut_short: bool


class FineTuning:
    """Training of the whole student on images, an epoch at a time; its state can be saved and restored to the bit.

    The learning rates rise linearly over the first tenth of all steps, then fall along a cosine to zero.
    """

    def __init__(
        self, student: Student, dataset: Dataset, options: RetrainOptions, penalty: Penalty | None = None
    ) -> None:
        self.student, self.dataset, self.options, self.penalty = student, dataset, options, penalty
        #: How many epochs the schedule spans; less than asked for where the time does not suffice.
        self.planned_epochs = options.epochs
        groups = student.parameter_groups(
            options.lr, options.first_layer_factor, options.head_factor, options.weight_decay, options.gate_factor
        )
        self.optimizer = torch.optim.AdamW(cast(Any, groups))
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    def validate(self) -> Score:
        """Score of the present weights on validation."""
        return self._score("validation")

    def run_epoch(self, epoch: int, seconds_left: float) -> Epoch:
        """Train one epoch (counted from 1) and validate.

        Parameters
        ----------
        epoch : int
            Decides the random numbers and the learning rates.
        seconds_left : float
            The epoch ends early when they are over.

        Raises
        ------
        NotFiniteError
            If loss, gradient or a prediction on validation is NaN or infinite.
        """
        options, dataset = self.options, self.dataset
        train = dataset.splits["train"]
        deadline = time.monotonic() + seconds_left
        losses: list[float] = []
        cut_short = False
        with _seeded(options.seed, _FINE_TUNING_STREAM, epoch) as generator:
            self.student.train(freeze_batch_norm=options.freeze_batch_norm)
            batches = list(_random_batches(len(train), options.batch_size, generator))
            for number, part in enumerate(batches):
                index = train[part]
                pixels = augmented(dataset.images[index], options.augmentation, generator)
                self._set_rates(epoch - 1 + number / len(batches), 1 / len(batches))
                inputs = torch.from_numpy(dataset.preprocess.normalise(pixels))
                aims = torch.from_numpy(dataset.aims(index))
                losses.append(_step(self.student.module, self.optimizer, inputs, aims, options, self.penalty))
                if time.monotonic() > deadline:
                    cut_short = number + 1 < len(batches)
                    break
        return Epoch(float(np.mean(losses)), self.validate(), cut_short)

    def _set_rates(self, epochs_done: float, step: float) -> None:
        warm_up = 0.1 * self.planned_epochs
        if epochs_done < warm_up:
            share = min(1.0, (epochs_done + step) / warm_up)
        else:
            share = 0.5 * (1 + math.cos(math.pi * min(1.0, (epochs_done - warm_up) / (self.planned_epochs - warm_up))))
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share

    def _score(self, split: str) -> Score:
        logits = [
            predict_logits(self.student.module, inputs, _EVALUATION_BATCH)
            for inputs, _ in self.dataset.batches(split, _EVALUATION_BATCH)
        ]
        index = self.dataset.splits[split]
        labels, aims = torch.tensor(self.dataset.labels[index]), torch.tensor(self.dataset.aims(index))
        return score_of(torch.from_numpy(np.concatenate(logits)), labels, aims)

    def state(self) -> dict[str, Tensor]:
        """Weights and the optimizer's moments, by name."""
        tensors = {f"module/{name}": tensor for name, tensor in self.student.module.state_dict().items()}
        for name, parameter in self.student.module.named_parameters():
            moments: Mapping[str, Tensor] = self.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer/{name}/{key}": tensor for key, tensor in moments.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `state` gave. Moments get the memory layout of their weight, so that sums round the same way."""
        module = self.student.module
        module.load_state_dict(
            {name.removeprefix("module/"): tensor for name, tensor in tensors.items() if name.startswith("module/")}
        )
        for name, parameter in module.named_parameters():
            prefix = f"optimizer/{name}/"
            moments = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
            for key, tensor in moments.items():
                own = torch.empty_like(parameter) if tensor.shape == parameter.shape else torch.empty_like(tensor)
                self.optimizer.state[parameter][key] = own.detach().copy_(tensor)


def _step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    aims: Tensor,
    options: RetrainOptions,
    penalty: Penalty | None = None,
) -> float:
    """One step; returns the loss."""
    loss = cross_entropy(module(inputs), aims, label_smoothing=options.label_smoothing)
    if penalty is not None:
        loss = loss + penalty(module)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), options.clip_norm)
    value = float(loss.detach())
    if not math.isfinite(value) or not math.isfinite(float(norm)):
        raise NotFiniteError
    optimizer.step()
    return value


def _random_batches(count: int, size: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """All of ``range(count)`` in random order, in batches that differ by at most one in size: none is left with one."""
    order = generator.permutation(count)
    yield from np.array_split(order, max(1, math.ceil(count / size)))


@contextmanager
def _seeded(seed: int, stream: int, epoch: int) -> Generator[np.random.Generator]:
    """A generator of its own, and torch's global state (dropout) set inside and put back afterwards."""
    generator = np.random.default_rng([seed, stream, epoch])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**63)))
        yield generator
