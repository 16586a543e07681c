"""How to retrain a trimmed network."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from netcut_fx.augment import Augmentation
from netcut_fx.errors import SpecError


@dataclass(frozen=True)
class RetrainOptions:
    """Defaults suit small data (1,000 to 10,000 images) and a pretrained trunk.

    Parameters
    ----------
    epochs : int
        Of fine-tuning, at most; 0 trains the head only.
    head_epochs : int
        Of the head on cached features, at most; 0 starts fine-tuning with the head as it is.
    batch_size : int
        Images a step. 32 is also the fastest per image on a CPU.
    lr : float
        Peak learning rate (AdamW) of the trunk's last layer in fine-tuning.
    first_layer_factor : float
        The first layer's rate is `lr` times this; between them the rate rises geometrically: what the first layers see
        is the least specific to the task the network was trained for.
    head_factor : float
        The head's rate in fine-tuning is `lr` times this.
    gate_factor : float
        The rate of gate networks, where there are some, is `lr` times this: they start from nothing.
    head_lr : float
        Peak learning rate (AdamW) of the head on cached features.
    weight_decay : float
        Of weights; biases and norms do not decay.
    label_smoothing : float
        Share of each label spread over all classes.
    clip_norm : float
        Largest norm of the gradient in a step.
    patience, head_patience : int
        Stop after this many epochs without a better validation score.
    max_seconds : float
        For the whole retraining, on top of the final evaluation. Where fewer epochs fit than asked for, the schedule is
        shortened after the first. A run bounded by time depends on the machine's speed.
    seed : int
        Of order, augmentation and dropout.
    augment_shift_fraction : float
        Largest random shift, as a fraction of the image's side.
    augment_turn_degrees, augment_zoom_fraction, augment_contrast_fraction : float
        Largest random turn, change of size, and change of contrast and brightness; see `netcut_fx.augment`. Off: what
        they may be depends on the images.
    horizontal_flip : bool
        Mirror half of the images. Off: digits and signs have a handedness.
    freeze_batch_norm : bool
        Keep the pretrained statistics: small batches of few images estimate worse ones. Scales and biases still learn.
    """

    epochs: int = 8
    head_epochs: int = 100
    batch_size: int = 32
    lr: float = 1e-3
    first_layer_factor: float = 0.1
    head_factor: float = 1.0
    gate_factor: float = 10.0
    head_lr: float = 2e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    patience: int = 5
    head_patience: int = 15
    max_seconds: float = math.inf
    seed: int = 0
    augment_shift_fraction: float = 0.02
    augment_turn_degrees: float = 0.0
    augment_zoom_fraction: float = 0.0
    augment_contrast_fraction: float = 0.0
    horizontal_flip: bool = False
    freeze_batch_norm: bool = True

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 0),
            ("head_epochs", 0),
            ("batch_size", 1),
            ("patience", 1),
            ("head_patience", 1),
        ):
            if getattr(self, name) < least:
                raise SpecError(f"retraining with {name}={getattr(self, name)} is not possible; give at least {least}")
        for name in ("lr", "head_lr", "first_layer_factor", "head_factor", "gate_factor", "clip_norm", "max_seconds"):
            if not getattr(self, name) > 0:
                raise SpecError(f"retraining with {name}={getattr(self, name)} is not possible; give a positive number")
        if not 0 <= self.augment_turn_degrees <= 180:
            raise SpecError(
                f"retraining with augment_turn_degrees={self.augment_turn_degrees} is not possible; give 0 to 180"
            )
        for name in (
            *("weight_decay", "label_smoothing"),
            *("augment_shift_fraction", "augment_zoom_fraction", "augment_contrast_fraction"),
        ):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(
                    f"retraining with {name}={getattr(self, name)} is not possible; give 0 or more, below 1"
                )
        if self.epochs == 0 and self.head_epochs == 0:
            raise SpecError("retraining with epochs=0 and head_epochs=0 trains nothing; give one of them")

    @property
    def augmentation(self) -> Augmentation:
        """What training images may go through."""
        return Augmentation(
            self.augment_shift_fraction,
            self.augment_turn_degrees,
            self.augment_zoom_fraction,
            self.augment_contrast_fraction,
            self.horizontal_flip,
        )

    def to_json(self) -> dict[str, float]:
        """All options by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if math.isfinite(getattr(self, f.name))}
