"""Networks as commands name them: load, trace, cut, and say which places are not to be cut at."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from netcut_fx.cli.options import DEFAULT_SIZE, parse_size
from netcut_fx.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor

    from netcut_fx.graph import TracedModule
    from netcut_fx.ignored_scope import IgnoredScope
    from netcut_fx.passes.head import HeadKind
    from netcut_fx.pooling import PoolOption
    from netcut_fx.tracing import Via

_TYPES = (
    *("float32", "float64", "float16", "bfloat16"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)
_INPUT = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<type>\w+))?")
#: An example larger than this is a slip of the keyboard, and would fill the memory.
_MOST_ELEMENTS = 2**31


def traced_model(
    model: str,
    weights: Path | None,
    input_size: str | None,
    inputs: Sequence[str] | None,
    leaf_modules: Sequence[str] | None,
    via: str,
) -> TracedModule:
    """Load the network of a SPEC and trace it.

    Parameters
    ----------
    model : str
        SPEC.
    weights : Path or None
        Checkpoint.
    input_size : str or None
        Of one image, see `parse_size`; 224 by default.
    inputs : sequence of str or None
        Instead: see `example_inputs`.
    leaf_modules : sequence of str or None
        Modules that stay whole.
    via : str
        ``auto``, ``fx`` or ``export``.
    """
    import torch

    from netcut_fx.model_spec import load_model
    from netcut_fx.tracing import trace

    height, width = parse_size(input_size) or DEFAULT_SIZE
    if inputs and input_size is not None:
        raise SpecError("--input-size is for one image; give either that or --input")
    check_via(via)
    examples = example_inputs(inputs) if inputs else torch.zeros(1, 3, height, width)
    module = load_model(model, weights)
    return trace(module, examples, name=model, leaf_modules=tuple(leaf_modules or ()), via=cast("Via", via))


def cut_if_asked(network: TracedModule, at: str | None, classes: int | None, head: str, pool: str) -> TracedModule:
    """The cut at `at` with the head that the options say, bare without `classes`; without `at` the network itself.

    Raises
    ------
    SpecError
        If there are classes for a new head, but no cut to put it on.
    """
    from netcut_fx.cutting import cut
    from netcut_fx.passes.head import HeadPass

    if at is not None:
        new_head = None if classes is None else HeadPass(classes, cast("HeadKind", head), pool=cast("PoolOption", pool))
        return cut(network, at, head=new_head)
    if classes is not None:
        raise SpecError("--classes puts a new head on a cut; give --at as well")
    return network


def check_via(via: str) -> None:
    """Refuse a way of tracing that does not exist, before anything is loaded."""
    if via not in ("auto", "fx", "export"):
        raise SpecError(f"--via is auto, fx or export, got {via!r}")


def example_inputs(texts: Sequence[str]) -> list[Tensor] | dict[str, Tensor]:
    """Zeros of the shapes in `texts`, each ``[NAME=]SHAPE[:TYPE]``: a list, or a mapping where names are given.

    Raises
    ------
    SpecError
        If one cannot be read, only some have names, or a name is given twice.
    """
    import torch

    found: list[tuple[str | None, Tensor]] = []
    for text in texts:
        match = _INPUT.fullmatch(text.strip())
        sizes = [int(n) for n in match["shape"].split("x")] if match else []
        if match is None or 0 in sizes:
            raise SpecError(f"--input is [NAME=]SHAPE[:TYPE] with sizes above 0, as in 1x3x224x224, got {text!r}")
        dtype = match["type"] or "float32"
        if dtype not in _TYPES:
            raise SpecError(f"--input {text}: there is no type {dtype!r}; use one of {', '.join(_TYPES)}")
        if math.prod(sizes) > _MOST_ELEMENTS:
            raise SpecError(f"--input {text} has {math.prod(sizes):,} elements; give the shape of one example")
        found.append((match["name"], torch.zeros(sizes, dtype=getattr(torch, dtype))))
    named = {name: tensor for name, tensor in found if name is not None}
    if not named:
        return [tensor for _, tensor in found]
    if len(named) < len(found):
        raise SpecError("give each --input a name of its own, as in ids=1x16:int64, or none of them")
    return named


def ignored_scope(
    names: Sequence[str] | None, modules: Sequence[str] | None, operations: Sequence[str] | None
) -> IgnoredScope:
    """What ``--ignore-name``, ``--ignore-module`` and ``--ignore-op`` say together."""
    from netcut_fx.ignored_scope import IgnoredScope

    return IgnoredScope(tuple(names or ()), tuple(modules or ()), tuple(operations or ()))
