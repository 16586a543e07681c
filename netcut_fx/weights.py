"""Load a checkpoint into a network, refusing what does not fit and what is not finite."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from netcut_fx.errors import SpecError
from netcut_fx.spec_text import one_line

#: Where training scripts put the weights inside a checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model")

#: What `torch.nn.DataParallel` and `torch.compile` put in front of every name.
_PREFIXES = ("module.", "_orig_mod.")

_NAMED = 3


def load_weights(module: nn.Module, path: Path) -> None:
    """Load weights into `module`, in place, each cast to the type of the parameter.

    Parameters
    ----------
    module : torch.nn.Module
    path : Path
        ``.safetensors``, or a torch checkpoint, which is read with ``weights_only=True``: a state dict, or a dict with
        one under ``state_dict``, ``model_state_dict`` or ``model``. A prefix ``module.`` or ``_orig_mod.`` that all
        names share is dropped. Batch-norm's ``num_batches_tracked`` and the second name of a shared tensor may be
        missing.

    Raises
    ------
    SpecError
        If the file cannot be read, or names or shapes differ: the first few are named.
    """
    given = _unprefixed(read_checkpoint(path))
    own: dict[str, Tensor] = module.state_dict()
    missing = [n for n in own if n not in given and not n.endswith("num_batches_tracked")]
    twins = {name: _twin(name, own, given) for name in missing}
    missing = [n for n in missing if twins[n] is None]
    unexpected = [n for n in given if n not in own]
    if missing or unexpected:
        parts = [
            f"{label} {_few(names)}" for label, names in (("missing", missing), ("unexpected", unexpected)) if names
        ]
        raise SpecError(
            f"weights {path} do not fit {type(module).__name__}: {'; '.join(parts)}; "
            "check the model's options, or give weights of this network"
        )
    unfit = [
        f"{n} is {_shape(given[n])}, expected {_shape(own[n])}"
        for n in own
        if n in given and given[n].shape != own[n].shape
    ]
    if unfit:
        raise SpecError(
            f"weights {path} do not fit {type(module).__name__}: {_few(unfit)}; "
            "check the model's options, or give weights of this network"
        )
    fitted = {n: given[twins.get(n) or n].to(own[n].dtype) if (twins.get(n) or n) in given else own[n] for n in own}
    module.load_state_dict(fitted)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a file, unwrapped, on the CPU.

    Raises
    ------
    SpecError
        If the file does not exist, is damaged, or holds anything but named tensors.
    """
    if not path.is_file():
        raise SpecError(f"there is no weights file {path}; check the path")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)  # pyright: ignore[reportUnknownMemberType]
    except pickle.UnpicklingError as error:
        raise SpecError(
            f"weights {path} are damaged or hold Python objects, which are not read; "
            "save tensors only: torch.save(model.state_dict(), path)"
        ) from error
    # A damaged file raises whatever its reader stumbles over: RuntimeError, EOFError, KeyError, ValueError ...
    except (SafetensorError, Exception) as error:
        raise SpecError(f"cannot read weights {path} ({one_line(error)}); get the file again") from error
    while isinstance(content, Mapping):
        mapping = cast(Mapping[str, Any], content)
        inner = next((w for w in _WRAPPERS if isinstance(mapping.get(w), Mapping)), None)
        if inner is None:
            break
        content = mapping[inner]
    if not isinstance(content, Mapping) or not content:
        raise SpecError(f"weights {path} hold no state dict; save one: torch.save(model.state_dict(), path)")
    state = {str(k): v for k, v in cast(Mapping[Any, Any], content).items() if k != "_metadata"}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise SpecError(
                f"weights {path} hold a {type(value).__name__} under '{name}', expected tensors only; "
                "save model.state_dict(), or put it under 'state_dict'"
            )
    return state


def check_finite(module: nn.Module, source: str = "the model") -> None:
    """Refuse NaN and infinite values in parameters and buffers.

    Raises
    ------
    SpecError
        Naming `source`, the first such tensor, how many of its values are bad and which kind.
    """
    tensors: dict[str, Tensor] = module.state_dict()
    for name, tensor in tensors.items():
        if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "infinite"
            raise SpecError(
                f"{source}: tensor '{name}' holds {kind} values ({bad} of {tensor.numel()} are not finite); "
                "use weights of a training that did not diverge"
            )


def _unprefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES * 2:  # both may be there, in either order
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _twin(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """Another name, present in the checkpoint, of the very same tensor of the model."""
    tensor = own[name]
    if tensor.numel() == 0:
        return None
    return next(
        (n for n, t in own.items() if n in given and t.shape == tensor.shape and t.data_ptr() == tensor.data_ptr()),
        None,
    )


def _few(items: list[str]) -> str:
    rest = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + rest


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "scalar"
