"""From a traced network to Relax: one fused kernel per call, weights apart and packed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch

from cost_models.kernel import kernel_key
from netcut_fx.backends.tvm.joined_padding import join_padding
from netcut_fx.backends.tvm.kernel_detail import kernel_detail
from netcut_fx.backends.tvm.layout import lay_out
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.toolchain import host_target, import_tvm, tvm_target
from netcut_fx.errors import BackendError
from netcut_fx.graph import TracedModule
from netcut_fx.ops import Pattern, normalise_op_name
from netcut_fx.passes import prepare_pipeline
from netcut_fx.target import Target


@dataclass(frozen=True)
class LoweredCall:
    """One kernel call in ``main``: TVM's function name and our workload key."""

    function: str
    key: str


@dataclass(frozen=True)
class LoweredModule:
    """A network in Relax.

    Parameters
    ----------
    module : tvm.IRModule
        ``main(input, *weights)`` and its fused kernels, not scheduled, tensors in the order of `lay_out`.
    weights : list of tvm.runtime.Tensor
        Arguments of ``main`` after the input, parameter-only operations (transposes, reshapes, packing) already done.
    calls : tuple of LoweredCall
        Kernel calls in execution order, views left out.
    """

    module: Any
    weights: list[Any]
    calls: tuple[LoweredCall, ...]


def lower(traced: TracedModule, target: Target) -> LoweredModule:
    """Prepare, export, import into Relax, fuse.

    Parameter-only computation is lifted out *before* fusion, so that a bias reshape or a weight transpose never becomes
    part of a kernel, and is evaluated here.

    Raises
    ------
    BackendError
        If the network cannot be exported, or uses an operation that TVM's importer does not know.
    """
    tvm = import_tvm()
    from tvm import relax
    from tvm.relax import transform
    from tvm.relax.frontend.torch import from_exported_program

    prepared = prepare_pipeline()(traced)
    examples = tuple(torch.zeros(spec.shape, dtype=spec.dtype) for spec in prepared.input_specs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(prepared.graph_module, examples)
            module = from_exported_program(exported, keep_params_as_input=True, unwrap_unit_return_tuple=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise BackendError(
            f"TVM cannot import {traced.name}: {reason}; rewrite that operation with ones it knows, or cut before it"
        ) from error
    module, parameters = relax.frontend.detach_params(module)
    module = join_padding(module)
    with tvm_target(target):
        module = tvm.transform.Sequential(
            [
                transform.DecomposeOpsForInference(),
                transform.CanonicalizeBindings(),
                transform.LegalizeOps(),
                transform.LiftTransformParams(),
                transform.AnnotateTIROpPattern(),
            ]
        )(module)
        module = _fuse_no_padding(module)
        module = tvm.transform.Sequential(
            [
                transform.FoldConstant(),
                transform.FuseOps(),
                transform.FuseTIR(),
                transform.DeadCodeElimination(),
                transform.RewriteDataflowReshape(),
            ]
        )(module)
    weights = run_weight_function(module, list(parameters.get("main", [])), target)
    del module["main_transform_params"]
    module = transform.DeadCodeElimination(["main"])(module)
    # Kernels are told apart by their logical shapes: their keys must not depend on how tensors lie in memory.
    keys = [call.key for call in kernel_calls(module)]
    machine = Machine.for_schedules(target)
    if machine is not None:
        module, weights = lay_out(module, weights, machine)
    calls = (LoweredCall(call.function, key) for call, key in zip(kernel_calls(module), keys, strict=True))
    return LoweredModule(module, weights, tuple(calls))


def _fuse_no_padding(module: Any) -> Any:
    """Leave paddings out of fusion: code for a tile of a convolution that ends in one loses the padded border."""
    tvm = import_tvm()
    changed = tvm.IRModule(dict(module.functions.items()), attrs=module.attrs)
    for var, function in module.functions.items():
        if normalise_op_name(str(var.name_hint)) == ("pad",):
            changed[var] = function.with_attr("op_pattern", int(Pattern.OPAQUE))
    return changed


def run_weight_function(module: Any, parameters: list[Any], target: Target) -> list[Any]:
    """Compile and run ``main_transform_params`` of `module` alone."""
    tvm = import_tvm()
    from tvm import relax
    from tvm.relax import transform

    alone = tvm.IRModule(dict(module.functions.items()))
    del alone["main"]
    alone = transform.DeadCodeElimination(["main_transform_params"])(alone)
    with host_target(target):
        executable = tvm.compile(alone, target=host_target(target))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return list(machine["main_transform_params"](parameters))


def kernel_calls(module: Any) -> tuple[LoweredCall, ...]:
    """Calls of fused kernels in ``main``, in execution order, those that became views left out."""
    import_tvm()
    from tvm import relax

    calls: list[LoweredCall] = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if not isinstance(value, relax.Call) or getattr(value.op, "name", "") != "relax.call_tir":
                continue
            function = str(value.args[0].name_hint)
            ops = normalise_op_name(function)
            inputs = tuple(_shape(arg.ty) for arg in value.args[1].fields)
            out = value.ty_args[0]
            outputs = tuple(_shape(f) for f in out.fields) if hasattr(out, "fields") else (_shape(out),)
            dtype = str(out.fields[0].dtype if hasattr(out, "fields") else out.dtype)
            detail = kernel_detail(ops, module[value.args[0]])
            calls.append(LoweredCall(function, kernel_key(ops, inputs, outputs, dtype, detail)))
    return tuple(calls)


def _shape(tensor_type: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in tensor_type.shape)
