"""Trace a model into a `TracedModule`: torch.fx with shapes on every node and names that stay the same."""

from __future__ import annotations

import copy
import operator
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn

from netcut_fx.errors import TraceError
from netcut_fx.graph import TensorSpec, TracedModule, spec_of

_OPERATOR_NAMES = {operator.iadd: "add_", operator.isub: "sub_", operator.imul: "mul_", operator.itruediv: "div_"}


def trace(model: nn.Module, example_inputs: Tensor | Sequence[Tensor], *, name: str | None = None) -> TracedModule:
    """Trace `model` symbolically; the model itself is left as it is.

    Parameters
    ----------
    model : torch.nn.Module
        Any traceable network. A deep copy is traced, in eval mode.
    example_inputs : Tensor or sequence of Tensor
        One input per positional argument of ``forward``; the first dimension is the batch.
    name : str, optional
        What to call the network; default is its class name.

    Returns
    -------
    TracedModule

    Raises
    ------
    TraceError
        If the model cannot be copied, control flow depends on values, an operation cannot be traced, or the example
        input does not fit.
    """
    examples = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    label = name or type(model).__name__
    try:
        own = copy.deepcopy(model).eval()
    # Whatever the attributes of a model raise: locks and open files TypeError, tensors of a computation RuntimeError.
    except Exception as error:
        raise TraceError(
            f"cannot copy {label}, which is traced as a copy: {_one_line(error)}; let it hold only what copy.deepcopy "
            "can copy: no open files, locks or generators, and no tensors that belong to a computation (detach them)"
        ) from error
    tracer = fx.Tracer()
    try:
        graph = tracer.trace(own)
    except Exception as error:
        raise TraceError(
            f"cannot trace {label}: {_one_line(error)} (at {_user_location(error)}); make the operation a leaf "
            "module, or move control flow that depends on tensor values out of forward"
        ) from error
    graph_module = fx.GraphModule(tracer.root, graph, label)
    wanted = len([n for n in graph.nodes if n.op == "placeholder"])
    _drop_optional_placeholders(graph_module, len(examples))
    given = len([n for n in graph.nodes if n.op == "placeholder"])
    if given != len(examples):
        raise TraceError(
            f"cannot trace {label}: forward takes {wanted} inputs but {len(examples)} example inputs were given; "
            "pass one tensor per argument"
        )
    graph_module.recompile()
    _name_nodes(graph_module)
    propagate_specs(graph_module, label, examples)
    return TracedModule(graph_module, label)


def retrace(graph_module: fx.GraphModule, name: str, input_specs: Sequence[TensorSpec]) -> TracedModule:
    """Wrap an edited graph: new nodes get names, every node gets its spec again.

    Nodes that have a ``qualname`` keep it. The network runs once on zeros, on the device of its weights: for a small
    input that takes less time than making a weightless copy to propagate shapes through, and works for every network.
    """
    graph_module.graph.lint()
    graph_module.recompile()
    _name_nodes(graph_module)
    device = next((p.device for p in graph_module.parameters()), torch.device("cpu"))
    propagate_specs(
        graph_module, name, [torch.zeros(spec.shape, dtype=spec.dtype, device=device) for spec in input_specs]
    )
    return TracedModule(graph_module, name)


class _SpecRecorder(fx.Interpreter):
    """Runs the graph once and leaves each node's `Spec` in its meta."""

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:
            raise _NodeFailure(n, error) from error
        n.meta["spec"] = spec_of(value)
        return value


class _NodeFailure(Exception):
    def __init__(self, node: fx.Node, cause: Exception) -> None:
        super().__init__(str(cause))
        self.node = node
        self.cause = cause


def propagate_specs(graph_module: fx.GraphModule, name: str, examples: Sequence[Tensor]) -> None:
    """Run `graph_module` on `examples` and record on every node what it yields.

    Raises
    ------
    TraceError
        Naming the node, what came in, and what went wrong, if the example does not fit the network.
    """
    shapes = ", ".join(str(spec_of(x)) for x in examples)
    recorder = _SpecRecorder(graph_module)
    recorder.extra_traceback = False
    try:
        # Tensors that forward itself makes land on the device of the example: the meta device for weightless networks.
        with torch.no_grad(), examples[0].device if examples else nullcontext():
            recorder.run(*examples)
    except _NodeFailure as failure:
        where = failure.node.meta.get("qualname", failure.node.name)
        raise TraceError(
            f"example input {shapes} does not fit {name}: {where} "
            f"failed with {_one_line(failure.cause)}; pass an input of the size the network expects"
        ) from failure.cause


def operation_name(node: fx.Node) -> str:
    """Short name of what a node does: ``conv``, ``add``, ``flatten``."""
    if node.op == "call_function":
        target: Any = node.target
        return _OPERATOR_NAMES.get(target) or str(getattr(target, "__name__", target)).strip("_")
    return str(node.target).rsplit(".", 1)[-1]


def module_path(node: fx.Node) -> str:
    """Path of the innermost module whose ``forward`` contains this node (for a module call, its caller)."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values()]
    if node.op == "call_module" and paths and paths[-1] == node.target:
        paths.pop()
    return paths[-1] if paths else ""


def _name_nodes(graph_module: fx.GraphModule) -> None:
    """Give each node without one a unique qualified name, in execution order so that names are stable."""
    used: Counter[str] = Counter(n.meta["qualname"] for n in graph_module.graph.nodes if "qualname" in n.meta)
    for node in graph_module.graph.nodes:
        if "qualname" in node.meta:
            continue
        path = module_path(node)
        node.meta["module_path"] = path
        if node.op in ("call_module", "get_attr") or node.op in ("placeholder", "output"):
            base = str(node.target)
        else:
            base = f"{path}.{operation_name(node)}" if path else operation_name(node)
        candidate, count = base, 1
        while used[candidate]:
            count += 1
            candidate = f"{base}#{count}"
        used[candidate] += 1
        node.meta["qualname"] = candidate


def _drop_optional_placeholders(graph_module: fx.GraphModule, given: int) -> None:
    """Inputs with a default that the example does not fill become constants."""
    placeholders = [n for n in graph_module.graph.nodes if n.op == "placeholder"]
    for node in placeholders[given:]:
        if node.args and (node.args[0] is None or not node.users):
            node.replace_all_uses_with(node.args[0])  # pyright: ignore[reportArgumentType]
            graph_module.graph.erase_node(node)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def _user_location(error: BaseException) -> str:
    """``file:line, in function`` of the innermost frame outside torch."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename.replace("\\", "/")]
    frames = [f for f in frames if not f.filename.endswith("netcut_fx/tracing.py")] or frames
    if not frames:
        return "unknown line"
    last = frames[-1]
    return f"{last.filename}:{last.lineno}: {(last.line or last.name).strip()}"
