"""Our kernels against those TVM really makes: the same workloads, each as often, for whole networks and fragments."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import pytest
import torch

from cost_models.kernel import kernel_key
from netcut_fx.frontier import frontiers
from netcut_fx.graph import TracedModule
from netcut_fx.kernels import kernels
from netcut_fx.ops import normalise_op_name
from netcut_fx.passes import CutPass, HeadPass, Pipeline, prepare_pipeline
from netcut_fx.tracing import trace
from tests.fragments import FRAGMENTS, Applied
from tests.zoo import ZOO

tvm = pytest.importorskip("tvm")
relax = pytest.importorskip("tvm.relax")


def tvm_keys(traced: TracedModule) -> Counter[str]:
    """Workloads of all kernel calls in ``main`` after TVM has lifted weights, fused, and made views of reshapes."""
    from tvm.relax.frontend.torch import from_exported_program

    transform = relax.transform
    prepared = prepare_pipeline()(traced)
    examples = tuple(torch.zeros(spec.shape, dtype=spec.dtype) for spec in prepared.input_specs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(prepared.graph_module, examples)
        module = from_exported_program(exported, keep_params_as_input=True, unwrap_unit_return_tuple=True)
    module, _ = relax.frontend.detach_params(module)
    passes = [
        transform.DecomposeOpsForInference(),
        transform.CanonicalizeBindings(),
        transform.LegalizeOps(),
        transform.LiftTransformParams(),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
        transform.RewriteDataflowReshape(),
    ]
    with tvm.target.Target({"kind": "llvm", "mcpu": "core-avx2"}):
        module = tvm.transform.Sequential(passes)(module)
    return Counter(key for block in module["main"].body.blocks for b in block.bindings for key in key_of(b.value))


def key_of(value: Any) -> list[str]:
    """The key of a kernel call; nothing for views and for packing and unpacking of tuples."""
    if not isinstance(value, relax.Call):
        assert isinstance(value, relax.Var | relax.Tuple | relax.TupleGetItem), value
        return []
    if value.op.name == "relax.reshape":
        return []
    assert value.op.name == "relax.call_tir", value
    out = value.ty_args[0]
    outputs = list(out.fields) if hasattr(out, "fields") else [out]
    inputs = tuple(shape(argument.ty) for argument in value.args[1].fields)
    ops = normalise_op_name(str(value.args[0].name_hint))
    return [kernel_key(ops, inputs, tuple(shape(o) for o in outputs), str(outputs[0].dtype))]


def shape(tensor_type: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in tensor_type.shape)


def assert_same_kernels(traced: TracedModule) -> None:
    ours, theirs = Counter(k.key for k in kernels(traced)), tvm_keys(traced)
    assert ours, "a network without kernels proves nothing"
    assert (ours - theirs, theirs - ours) == (Counter(), Counter())


@pytest.mark.parametrize("name", ZOO)
def test_networks(name: str) -> None:
    module, examples = ZOO[name]()
    assert_same_kernels(trace(module, examples))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments(name: str) -> None:
    function, size, layers = FRAGMENTS[name]
    assert_same_kernels(trace(Applied(function, *layers), torch.zeros(size)))


def test_efficientnet_lite() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    network = package.EfficientNet.from_name("efficientnet-lite0")
    assert_same_kernels(trace(network, torch.zeros(1, 3, 96, 96)))


@pytest.mark.parametrize("name", ["inverted_residual", "dense", "transformer"])
def test_a_cut_with_a_head(name: str) -> None:
    module, examples = ZOO[name]()
    traced = trace(module, examples)
    found = frontiers(traced, max_width=4)
    cut = Pipeline((CutPass(at=found[len(found) // 2].name), HeadPass(classes=3)))(traced)
    assert_same_kernels(cut)
