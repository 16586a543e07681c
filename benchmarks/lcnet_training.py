"""Training for `benchmarks.lcnet_study` that two slow cores can afford: small images, bfloat16 where it is fast.

Images are cropped and mirrored whole batches at a time. A run that was stopped goes on with the epoch it was in.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netcut_fx.atomic_files import atomic_write
from netcut_fx.data import Dataset
from netcut_fx.evaluate import Accuracy, predict_logits
from netcut_fx.gating.gate_network import Gates
from netcut_fx.host import detect_host

#: A term of the loss, from what the network remembers of its last batch.
Extra = Callable[[nn.Module], Tensor]


#: Instruction sets with products of bfloat16; without any, PyTorch takes many times as long as for float32.
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    epochs : int
        Passes over the training images.
    lr : float
        Highest learning rate; it rises over the first tenth of the steps and falls to zero along a cosine.
    batch_size : int
        Images of a step.
    weight_decay : float
        Of convolutions and linear layers.
    distillation : float
        Share of the teacher's answer in the loss, where there is a teacher.
    softness : float
        Temperature of both answers there.
    gate_lr : float
        Learning rate of gate networks, which learn with Adam.
    adam : bool
        Whether everything else does, too: networks whose batch-norms are folded bear no larger steps.
    padding : int
        Pixels that an image is shifted by at most.
    mirrored : bool
        Whether half of the images are.
    seed : int
        Of order and augmentation.
    first : int
        Number of the first epoch. An epoch of some seed and number shows the same crops of the same images to all
        networks, so that a teacher answers them once.
    """

    epochs: int = 12
    lr: float = 0.05
    batch_size: int = 128
    weight_decay: float = 5e-4
    distillation: float = 0.7
    softness: float = 3.0
    gate_lr: float = 3e-3
    adam: bool = False
    padding: int = 4
    mirrored: bool = True
    seed: int = 0
    first: int = 0


class Images:
    """The training images, padded once; crops and mirrored copies of them a batch at a time."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        rows = data.splits["train"]
        border = (recipe.padding, recipe.padding)
        self.padded = np.pad(data.images[rows], ((0, 0), border, border, (0, 0)), mode="reflect")
        self.labels = torch.from_numpy(data.labels[rows])
        self.size, self.preprocess = data.preprocess.size[0], data.preprocess
        self.recipe = recipe
        self.turn(0)

    def __len__(self) -> int:
        return len(self.labels)

    def turn(self, epoch: int) -> None:
        """Choose the crops of an epoch."""
        random = np.random.default_rng([self.recipe.seed, self.recipe.first + epoch])
        self.order = random.permutation(len(self))
        self.corners = random.integers(0, 2 * self.recipe.padding + 1, (len(self), 2))
        self.mirrored = random.random(len(self)) < 0.5 * self.recipe.mirrored

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Augmented inputs (N, 3, H, W), channels last, and labels."""
        size = self.size
        out = np.empty((len(rows), size, size, 3), np.uint8)
        for i, row in enumerate(rows):
            top, left = self.corners[row]
            crop = self.padded[row, top : top + size, left : left + size]
            out[i] = crop[:, ::-1] if self.mirrored[row] else crop
        x = torch.from_numpy(self.preprocess.normalise(out))
        return x.contiguous(memory_format=torch.channels_last), self.labels[torch.from_numpy(rows)]


@dataclass(frozen=True)
class Teacher:
    """A network whose answers are learned, and the folder that keeps them.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    folder : Path
        A file of answers for each epoch.
    """

    network: nn.Module
    folder: Path

    def answers(self, images: Images, epoch: int) -> Tensor:
        """Logits (images, classes) for the crops of an epoch, which `images` has turned to."""
        recipe = images.recipe
        path = self.folder / f"{recipe.seed}-{recipe.first + epoch}.npy"
        if not path.is_file():
            with torch.no_grad():
                parts = [self.network(images.batch(rows.numpy())[0]) for rows in torch.arange(len(images)).split(256)]
            path.parent.mkdir(parents=True, exist_ok=True)
            file = io.BytesIO()
            np.save(file, torch.cat(parts).numpy(), allow_pickle=False)
            atomic_write(path, file.getvalue())
        return torch.from_numpy(np.load(path, allow_pickle=False))


def train(
    network: nn.Module,
    data: Dataset,
    recipe: Recipe,
    checkpoint: Path,
    *,
    teacher: Teacher | None = None,
    extra: Extra | None = None,
    told: str = "",
) -> None:
    """Train `network` in place; in evaluation mode when done.

    Parameters
    ----------
    network : nn.Module
        Of inputs (N, 3, H, W); may answer with several logits, the last ones being its own and the others of exits.
    data : Dataset
        Its training images are used.
    recipe : Recipe
        How.
    checkpoint : Path
        State after each epoch; a finished one is loaded and nothing is trained.
    teacher : Teacher, optional
        Whose answers are learned besides the labels.
    extra : callable, optional
        A further term of the loss, from what the network remembers of the batch.
    told : str
        Begins each line of progress.
    """
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizers = _optimizers(network, recipe)
    done = _restore(checkpoint, network, optimizers)
    if done >= recipe.epochs:
        network.eval()
        return
    images = Images(data, recipe)
    steps = len(images) // recipe.batch_size
    fast = not _BFLOAT16.isdisjoint(detect_host().features)
    for epoch in range(done, recipe.epochs):
        start = time.perf_counter()
        images.turn(epoch)
        wanted = None if teacher is None else teacher.answers(images, epoch)
        torch.manual_seed(1000 * recipe.seed + recipe.first + epoch)
        network.train()
        losses, right = 0.0, 0
        for step in range(steps):
            share = _share((epoch * steps + step) / (recipe.epochs * steps))
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = group["highest"] * share
            rows = images.order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            x, y = images.batch(rows)
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                answers = network(x)
            each = [part.float() for part in (answers if isinstance(answers, tuple) else (answers,))]
            logits, target = each[-1], None if wanted is None else wanted[torch.from_numpy(rows)]
            loss = sum((_loss(part, y, target, recipe) for part in each), torch.zeros(()))
            if extra is not None:
                loss = loss + extra(network)
            network.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            for optimizer in optimizers:
                optimizer.step()
            losses += float(loss.detach())
            right += int((logits.detach().argmax(1) == y).sum())
        _store(checkpoint, network, optimizers, epoch + 1)
        print(
            f"{told} epoch {epoch + 1}/{recipe.epochs}: loss {losses / steps:.4f}, "
            f"{right / (steps * recipe.batch_size):.4f} right, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
    network.eval()


def accuracy(network: nn.Module, data: Dataset, split: str) -> Accuracy:
    """How many images of a split are answered right, in float32."""
    inputs, labels = data.inputs(split), data.labels[data.splits[split]]
    return Accuracy.from_predictions(predict_logits(network, inputs), labels)


def _optimizers(network: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    gates = [p for m in network.modules() if isinstance(m, Gates) for p in m.parameters()]
    rest = [p for p in network.parameters() if all(p is not q for q in gates)]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": recipe.weight_decay, "highest": recipe.lr},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0, "highest": recipe.lr},
    ]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, recipe.lr) if recipe.adam else torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    ]
    if gates:
        found.append(torch.optim.Adam([{"params": gates, "highest": recipe.gate_lr}], recipe.gate_lr))
    return found


def _share(progress: float) -> float:
    """Of the highest learning rate."""
    rise = 0.1
    return progress / rise if progress < rise else 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def _loss(logits: Tensor, labels: Tensor, wanted: Tensor | None, recipe: Recipe) -> Tensor:
    hard = F.cross_entropy(logits, labels)
    if wanted is None:
        return hard
    t = recipe.softness
    soft = F.kl_div(F.log_softmax(logits / t, 1), F.log_softmax(wanted / t, 1), log_target=True, reduction="batchmean")
    return (1 - recipe.distillation) * hard + recipe.distillation * t * t * soft


def _store(path: Path, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer], epochs: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"network": network.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "epochs": epochs}
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _restore(path: Path, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    if not path.is_file():
        return 0
    state: dict[str, Any] = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    for optimizer, held in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(held)
    return int(state["epochs"])
