"""Checkpoints: one safetensors file each, tensors and a JSON header, replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from netcut_fx.atomic_files import atomic_write
from netcut_fx.errors import NetcutError


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Parameters
    ----------
    key : str
        Digest of everything that decides the result; a checkpoint with another key belongs to another run.
    facts : mapping
        JSON values.
    tensors : mapping
        Name to tensor.
    """

    key: str
    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def checkpoint_path(folder: Path, key: str) -> Path:
    """Where the run with this key keeps its checkpoint; runs with other keys in the same folder do not disturb it."""
    return folder / f"retrain-{key[:16]}.safetensors"


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file so that after a crash at any moment either the old or the new one is there, whole.

    Raises
    ------
    NetcutError
        If it cannot be written (disk full, no permission). The previous checkpoint is kept.
    """
    # safetensors refuses tensors that share storage (tied weights) or are not contiguous.
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in checkpoint.tensors.items()}
    header = {"key": checkpoint.key, "facts": json.dumps(checkpoint.facts)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, save(tensors, header))
    except OSError as error:
        raise NetcutError(
            f"cannot write checkpoint {path}: {error.strerror or error}; make room there or choose another folder, "
            "finished epochs are kept"
        ) from error


def load_checkpoint(path: Path, key: str) -> Checkpoint | None:
    """The checkpoint of the run with this key, or None if there is none or it is damaged."""
    try:
        with cast(Any, safe_open)(path, framework="pt") as file:
            header: dict[str, str] = file.metadata() or {}
            if header.get("key") != key:
                return None
            names: list[str] = file.keys()
            return Checkpoint(key, json.loads(header["facts"]), {name: file.get_tensor(name) for name in names})
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
