"""A text form of a traced network that is stable from run to run and diffs well.

One line for each node, addressed by qualified name, as in::

    network SmallNet(x: float32[1, 3, 8, 8]) -> float32[1, 4]
      conv = Conv2d{3, 4, kernel_size=(3, 3), stride=(1, 1)}(x) -> float32[1, 4, 6, 6]
      relu = torch.relu(conv) -> float32[1, 4, 6, 6]
      ...
      return fc
    weights: 4 tensors, 368 parameters
      conv.bias: float32[4]
      ...

Names that fx invents, addresses and weight values never appear, so a golden text only changes when the network does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from netcut_fx.graph import Spec, TracedModule, spec_of


def to_text(traced: TracedModule, *, types: bool = True) -> str:
    """Write `traced` as text, ending in a newline.

    Parameters
    ----------
    traced : TracedModule
        The network.
    types : bool
        Append ``-> dtype[shape]`` to each line, and list the weights.
    """
    return "\n".join(_lines(traced, types)) + "\n"


def spec_text(spec: Spec) -> str:
    """``float32[1, 3]``; several in parentheses; ``value`` for what is no tensor."""
    if isinstance(spec, tuple):
        return f"({', '.join(spec_text(part) for part in spec)})"
    return "value" if spec is None else str(spec)


def _lines(traced: TracedModule, types: bool) -> Iterator[str]:
    inputs = ", ".join(_typed(node, f"{_name(node)}: ", types) for node in traced.inputs)
    result = f" -> {spec_text(traced.output.meta['spec'])}" if types else ""
    yield f"network {traced.name}({inputs}){result}"
    for node in traced.nodes:
        if node.op == "output":
            yield f"  return {_value(node.args[0])}"
        elif node.op != "placeholder":
            arrow = f" -> {spec_text(node.meta['spec'])}" if types else ""
            yield f"  {_name(node)} = {_operation(traced, node)}{arrow}"
    if types:
        yield from _weights(traced)


def _typed(node: fx.Node, prefix: str, types: bool) -> str:
    return f"{prefix}{spec_text(node.meta['spec'])}" if types else _name(node)


def _operation(traced: TracedModule, node: fx.Node) -> str:
    if node.op == "get_attr":
        return f"weight {node.target}"
    arguments = ", ".join([*map(_value, node.args), *(f"{key}={_value(value)}" for key, value in node.kwargs.items())])
    if node.op == "call_method":
        return f".{node.target}({arguments})"
    if node.op == "call_function":
        return f"{_function(node.target)}({arguments})"
    module = traced.graph_module.get_submodule(str(node.target))
    options = " ".join(module.extra_repr().split())
    # The name says which module it is, but for a second call of the same one.
    reused = "" if _name(node) == node.target else f"@{node.target}"
    return f"{type(module).__name__}{reused}{'{' + options + '}' if options else ''}({arguments})"


def _weights(traced: TracedModule) -> Iterator[str]:
    named = sorted(traced.graph_module.state_dict().items())
    numbers = sum(p.numel() for p in traced.graph_module.parameters())
    yield f"weights: {len(named)} tensors, {numbers} parameters"
    for name, tensor in named:
        yield f"  {name}: {spec_text(spec_of(tensor))}"


def _name(node: fx.Node) -> str:
    return str(node.meta.get("qualname", node.name))


def _value(value: Any) -> str:
    if isinstance(value, fx.Node):
        return _name(value)
    if isinstance(value, (tuple, list)):
        inner = [_value(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
        return f"({', '.join(inner)}{',' if len(inner) == 1 else ''})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(part)}" for key, part in value.items()) + "}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, slice):
        parts = [value.start, value.stop, *([value.step] if value.step is not None else [])]
        return ":".join("" if part is None else _value(part) for part in parts)
    if value is Ellipsis:
        return "..."
    if isinstance(value, (torch.dtype, torch.memory_format)):
        return str(value).removeprefix("torch.")
    if callable(value):
        return _function(value)
    return repr(value)


def _function(target: Any) -> str:
    """``torch.conv2d``, ``operator.add``: where users find it, not where the interpreter keeps it."""
    name = str(getattr(target, "__name__", target))
    module = str(getattr(target, "__module__", None) or "")
    if module in ("_operator", "operator"):
        return f"operator.{name.strip('_')}"
    if getattr(torch, name, None) is target:
        return f"torch.{name}"
    if getattr(torch.nn.functional, name, None) is target:
        return f"functional.{name}"
    return f"{module}.{name}" if module and module != "builtins" else name
