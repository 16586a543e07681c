"""An exported program as a graph over the model's own modules.

Parameters and buffers are fetched under their own paths where they are used, calls of leaves become calls of the
modules themselves, and what only guards or asserts goes. What depends on no input and no weight (positions, masks) is
computed once and kept as a constant, as torch.fx does. Sizes are asked for as torch.fx does, by ``x.size(0)``. All else
stays a call of an ATen overload, on the device of the input.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from netcut_fx.example_inputs import replace_tensors
from netcut_fx.fixed_values import fixed_nodes
from netcut_fx.opaque_calls import OPAQUE_CALL, OpaqueCall

#: Under which name the exported module holds the model.
MODEL = "model"

_CHECKS = ("_assert", "sym_constrain_range", "_assert_async", "_assert_scalar", "_assert_tensor_metadata")
_SIZES: dict[Any, str] = {
    torch.ops.aten.sym_size.int: "size",
    torch.ops.aten.sym_stride.int: "stride",
    torch.ops.aten.sym_numel.default: "numel",
}
#: Regions that torch.export keeps as graphs of their own, and where that graph stands among the arguments.
_REGIONS = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}


def own_graph(
    exported: ExportedProgram, calls: Sequence[OpaqueCall], names: Sequence[str], result: Any, model: nn.Module
) -> fx.Graph:
    """Translate `exported`.

    Parameters
    ----------
    exported : torch.export.ExportedProgram
        Of a module that holds the model as `MODEL` and has flat inputs and outputs.
    calls : sequence of OpaqueCall
        What each opaque call of the graph stands for.
    names : sequence of str
        Names of the inputs.
    result : nested tensors
        What the model returned; its tensors are the outputs, in order.
    model : torch.nn.Module
        Gets constants of the graph as buffers; its own weights are only referred to.
    """
    return _Translation(exported, calls, model).graph_with(names, result)


class _Translation:
    def __init__(self, exported: ExportedProgram, calls: Sequence[OpaqueCall], model: nn.Module) -> None:
        self.exported = exported
        self.calls = calls
        self.model = model
        self.graph = fx.Graph()
        #: Path of what a placeholder of the exported graph stands for, until it is first used.
        self.attributes: dict[fx.Node, str] = {}
        #: Nodes of the exported graph whose value never changes.
        self.fixed: set[fx.Node] = set()
        #: Path of a constant, by tensor and how often it was written to.
        self.constants: dict[tuple[int, int], str] = {}
        self.alive: list[Tensor] = []
        self.device: fx.Node | None = None

    def graph_with(self, names: Sequence[str], result: Any) -> fx.Graph:
        source = self.exported.graph
        values = self._inputs(names)
        self.fixed = fixed_nodes(source, [node for node, value in values.items() if isinstance(value, Tensor)])
        returned = self._run(source, values)
        kinds = [spec.kind for spec in self.exported.graph_signature.output_specs]
        mutated = {OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION} & set(kinds)
        if mutated:
            raise NotImplementedError("the exported graph writes to its inputs or buffers at its end")
        outputs = iter(value for value, kind in zip(returned, kinds, strict=True) if kind is OutputKind.USER_OUTPUT)
        self.graph.output(replace_tensors(result, lambda _: next(outputs)))
        return self.graph

    def _inputs(self, names: Sequence[str]) -> dict[fx.Node, Any]:
        values: dict[fx.Node, Any] = {}
        remaining = iter(names)
        specs = {spec.arg.name: spec for spec in self.exported.graph_signature.input_specs}
        for node in self.exported.graph.nodes:
            if node.op != "placeholder":
                continue
            spec = specs[node.name]
            if spec.kind is InputKind.USER_INPUT:
                values[node] = self.graph.placeholder(next(remaining))
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                self.attributes[node] = str(spec.target).removeprefix(f"{MODEL}.")
            elif spec.kind is InputKind.CONSTANT_TENSOR:
                values[node] = _constant_tensor(self.exported, str(spec.target))
            else:
                raise NotImplementedError(f"the exported graph has an input of kind {spec.kind}")
        return values

    def _constant(self, value: Tensor, user: fx.Node) -> fx.Node:
        """Fetch a constant, which becomes a buffer of the model as it is now."""
        key = id(value), value._version
        if key not in self.constants:
            number = len(self.constants)
            while hasattr(self.model, name := f"_tensor_constant{number}"):
                number += 1
            self.model.register_buffer(name, value.clone())
            self.constants[key] = name
            self.alive.append(value)
        return self._made(self.graph.get_attr(self.constants[key]), user, inside=user.target is not OPAQUE_CALL)

    def _run(self, source: fx.Graph, values: dict[fx.Node, Any]) -> list[Any]:
        """Copy the nodes of `source`; return the values of its outputs."""

        def value_of(node: fx.Node) -> Any:
            if node in self.attributes and node not in values:
                path = self.attributes[node]
                values[node] = self._made(self.graph.get_attr(path), user, inside=user.target is not OPAQUE_CALL)
            value = values[node]
            return self._constant(value, user) if isinstance(value, Tensor) else value

        for node in source.nodes:
            user = node
            if node.op == "output":
                return list(fx.map_arg(node.args[0], value_of))
            if node.op != "call_function" or _is_check(node):
                continue
            name = str(getattr(node.target, "__name__", ""))
            if node in self.fixed:
                args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
            elif node.target is OPAQUE_CALL:
                values[node] = self._opaque(node, [value_of(n) for n in node.args[0]])
            elif name in _REGIONS:
                values[node] = self._region(node, _REGIONS[name], value_of)
            elif node.target is operator.getitem and isinstance(values[node.args[0]], (list, tuple)):
                values[node] = values[node.args[0]][node.args[1]]
            elif isinstance(node.target, HigherOrderOperator):
                raise NotImplementedError(f"torch.export keeps {name} as a graph of its own")
            else:
                args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), value_of)
                if kwargs.get("device") is not None:
                    kwargs = {**kwargs, "device": self._device()}
                values[node] = self._made(self._call(node.target, args, kwargs), node)
        return []

    def _call(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        """One call; sizes are asked for as torch.fx does, so that what only needs a shape is seen as such."""
        # A copy that was not needed where memory lay otherwise while exporting has left no node. Then no view fits.
        if target is torch.ops.aten.view.default:
            target = torch.ops.aten.reshape.default
        method = _SIZES.get(target)
        if method is not None:
            return self.graph.call_method(method, args, kwargs)
        return self.graph.call_function(target, args, kwargs)

    def _device(self) -> fx.Node:
        """The device of the first input, for tensors that the network makes itself."""
        if self.device is None:
            inputs = [node for node in self.graph.nodes if node.op == "placeholder"]
            with self.graph.inserting_after(inputs[-1]):
                self.device = self.graph.call_function(getattr, (inputs[0], "device"))
        return self.device

    def _opaque(self, node: fx.Node, inputs: list[fx.Node]) -> list[fx.Node]:
        number: Any = node.args[1]
        call = self.calls[number]
        args, kwargs = call.arguments(inputs)
        if isinstance(call.target, str):
            made = self._made(self.graph.call_module(call.target, args, kwargs), node)
            stack = made.meta["nn_module_stack"]
            # A module with several names is called under one of them.
            key, (_, kind) = next(reversed(stack.items()))
            stack[key] = (call.target, kind)
        else:
            made = self._made(self.graph.call_function(call.target, args, kwargs), node)
        results: list[fx.Node] = []
        for way in call.ways:
            value = made
            for key in way:
                value = self._made(self.graph.call_function(operator.getitem, (value, key)), node)
            results.append(value)
        return results

    def _region(self, node: fx.Node, position: int, value_of: Any) -> list[Any]:
        """Nodes of a region (without gradients, say) as part of the graph."""
        arguments: Any = node.args
        inner: Any = getattr(self.exported.graph_module, str(arguments[position].target))
        inputs = [n for n in inner.graph.nodes if n.op == "placeholder"]
        given = [fx.map_arg(argument, value_of) for argument in arguments[position + 1 :]]
        return self._run(inner.graph, dict(zip(inputs, given, strict=True)))

    def _made(self, made: fx.Node, source: fx.Node, *, inside: bool = True) -> fx.Node:
        stack = _module_stack(source)
        if not inside:
            stack.popitem()
        if stack:
            made.meta["nn_module_stack"] = stack
        return made


def _constant_tensor(exported: ExportedProgram, name: str) -> Tensor:
    value = exported.constants[name]
    if not isinstance(value, Tensor):
        raise NotImplementedError(f"the constant {name} of the exported graph is a {type(value).__name__}")
    return value.detach()


def _module_stack(node: fx.Node) -> dict[str, tuple[str, Any]]:
    """What torch.fx would have recorded: call -> (path in the model, class), outermost first."""
    found: dict[str, tuple[str, Any]] = {}
    for key, (path, kind) in (node.meta.get("nn_module_stack") or {}).items():
        if path == MODEL or str(path).startswith(f"{MODEL}."):
            own = str(path)[len(MODEL) + 1 :]
            # The model itself is the root, which has no entry.
            if own:
                count = f"@{key.rpartition('@')[2]}" if "@" in key else ""
                found[f"{own}{count}"] = (own, kind)
    return found


def _is_check(node: fx.Node) -> bool:
    name = str(getattr(node.target, "__name__", node.target))
    return any(name.startswith(check) for check in _CHECKS)
