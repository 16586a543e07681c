"""Trace a model into a `TracedModule`: torch.fx or torch.export, shapes on every node and names that stay the same."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx, nn

from netcut_fx.errors import TraceError
from netcut_fx.example_inputs import Examples, bind_examples
from netcut_fx.exporting import trace_by_export
from netcut_fx.graph import TRACED_BY, TensorSpec, TracedModule, spec_of
from netcut_fx.leaf_rules import LeafRule, leaf_rule
from netcut_fx.mode_merging import merge_training
from netcut_fx.modes import in_training, watching_mode
from netcut_fx.node_names import module_path, name_nodes, operation_name
from netcut_fx.symbolic import trace_symbolically

__all__ = ["Via", "module_path", "operation_name", "propagate_specs", "retrace", "trace"]

Via = Literal["auto", "fx", "export"]
_Tracer = Callable[[nn.Module, Examples, LeafRule, Sequence[Callable[..., Any]], str], fx.GraphModule]
_TRACERS: dict[str, _Tracer] = {"fx": trace_symbolically, "export": trace_by_export}


def trace(
    model: nn.Module,
    example_inputs: Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    name: str | None = None,
    leaf_modules: Sequence[type[nn.Module] | str] = (),
    wrapped_functions: Sequence[Callable[..., Any]] = (),
    concrete_args: Mapping[str, Any] | None = None,
    via: Via = "auto",
) -> TracedModule:
    """Trace `model` symbolically; the model itself is left as it is.

    Which modules stay whole is written in `netcut_fx.leaf_rules`. What a model does differently in training is kept
    where only numbers and flags differ (`netcut_fx.modes`): the result trains as the source does.

    Parameters
    ----------
    model : torch.nn.Module
        Any network. A deep copy is traced, in eval mode.
    example_inputs : Tensor, sequence or mapping
        The arguments of ``forward``: one tensor, those by position, or those by name. Each may be tensors nested in
        tuples, lists and dicts; the traced network takes all tensors one after the other. Arguments with defaults may
        be left out. The first dimension is the batch.
    name : str, optional
        What to call the network; default is its class name.
    leaf_modules : sequence of types or str, optional
        Modules that stay whole: classes, class names, or paths.
    wrapped_functions : sequence of callables, optional
        Functions each call of which is one node, not traced through.
    concrete_args : mapping, optional
        Arguments of ``forward`` that are no tensors, by name: ``{"return_dict": False}``.
    via : {"auto", "fx", "export"}
        How: torch.fx and, where that fails, torch.export; or only one of them.

    Returns
    -------
    TracedModule
        Results of the model's own classes (named tuples, ``ModelOutput``) become plain tuples and dicts.

    Raises
    ------
    TraceError
        If the model cannot be copied, control flow depends on values, an operation cannot be traced, or the example
        input does not fit.
    """
    label = name or type(model).__name__
    if via not in get_args(Via):
        raise TraceError(f"cannot trace {label} via {via!r}; use one of {', '.join(get_args(Via))}")
    examples = bind_examples(model, example_inputs, concrete_args, label)
    leaves = leaf_rule(model, leaf_modules, label)
    failures: dict[str, str] = {}
    cause: Exception | None = None
    for way in ("fx", "export") if via == "auto" else (via,):
        own = _copied(model, label)
        try:
            graph_module = _in_both_modes(_TRACERS[way], own, examples, leaves, wrapped_functions, label)
        except Exception as error:
            cause = error
            failures[way] = f"{_one_line(error)} (at {_user_location(error)})"
            continue
        graph_module.meta[TRACED_BY] = way
        name_nodes(graph_module)
        try:
            propagate_specs(graph_module, label, examples.tensors)
        except TraceError as error:
            # An example that does not fit, or a path through the code that only proxies take.
            if via != "auto" or way != "fx" or not _runs(own, examples):
                raise
            cause, failures[way] = error, _one_line(error)
            continue
        return TracedModule(graph_module, label)
    raise TraceError(_explained(label, failures)) from cause


def retrace(graph_module: fx.GraphModule, name: str, input_specs: Sequence[TensorSpec]) -> TracedModule:
    """Wrap an edited graph: new nodes get names, every node gets its spec again.

    Nodes that have a ``qualname`` keep it. The network runs once on zeros, on the device of its weights: for a small
    input that takes less time than making a weightless copy to propagate shapes through, and works for every network.
    """
    graph_module.graph.lint()
    graph_module.recompile()
    name_nodes(graph_module)
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


def _in_both_modes(
    tracer: _Tracer,
    own: nn.Module,
    examples: Examples,
    leaves: LeafRule,
    wrapped_functions: Sequence[Callable[..., Any]],
    label: str,
) -> fx.GraphModule:
    """Trace in eval mode and, if the model asks for its mode, in training mode: see `netcut_fx.modes`."""
    with watching_mode() as watch:
        graph_module = tracer(own, examples, leaves, wrapped_functions, label)
    if watch.asked:
        try:
            training = tracer(in_training(own), examples, leaves, wrapped_functions, label)
        except Exception:  # what only training does need not be traceable
            return graph_module
        merge_training(graph_module, training)
    return graph_module


def _copied(model: nn.Module, label: str) -> nn.Module:
    try:
        return copy.deepcopy(model).eval()
    # Whatever the attributes of a model raise: locks and open files TypeError, tensors of a computation RuntimeError.
    except Exception as error:
        raise TraceError(
            f"cannot copy {label}, which is traced as a copy: {_one_line(error)}; let it hold only what copy.deepcopy "
            "can copy: no open files, locks or generators, and no tensors that belong to a computation (detach them)"
        ) from error


def _runs(model: nn.Module, examples: Examples) -> bool:
    try:
        with torch.no_grad():
            examples.call(model, examples.tensors)
    except Exception:  # whatever a model raises: the question is only whether it does
        return False
    return True


def _explained(label: str, failures: Mapping[str, str]) -> str:
    reasons = "; ".join(f"torch.{way}: {reason}" if len(failures) > 1 else reason for way, reason in failures.items())
    other = " or let the other tracer try (via='auto')" if len(failures) == 1 else ""
    return (
        f"cannot trace {label}: {reasons}; keep the module whole (leaf_modules) or the function (wrapped_functions), "
        f"give arguments that are no tensors as concrete_args, move control flow that depends on tensor values out of "
        f"forward{other}"
    )


def _one_line(error: BaseException) -> str:
    # Hints for debugging torch itself follow such a line.
    text = " ".join(str(error).partition("\n\n")[0].split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def _user_location(error: BaseException) -> str:
    """``file:line: code`` of the innermost frame outside torch and this package."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename.replace("\\", "/")]
    frames = [f for f in frames if "/netcut_fx/" not in f.filename.replace("\\", "/")] or frames
    if not frames:
        return "unknown line"
    last = frames[-1]
    return f"{last.filename}:{last.lineno}: {(last.line or last.name).strip()}"
