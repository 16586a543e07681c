"""A network as a file that others read: torch.export programs (``.pt2``) and ONNX."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from netcut_fx.atomic_files import atomic_write, report_storage_errors
from netcut_fx.bundle import network_beside
from netcut_fx.errors import BackendError, SpecError
from netcut_fx.example_inputs import find_tensors, plain_result
from netcut_fx.graph import TracedModule
from netcut_fx.quiet_torch import quiet_torch
from netcut_fx.spec_text import one_line

Format = Literal["onnx", "pt2"]

#: Largest difference of an answer, relative to the largest answer, between an exported file and torch.
TOLERANCE = 1e-3


def program_of(network: TracedModule, *, dynamic_batch: bool = False) -> ExportedProgram:
    """Export a traced network.

    Parameters
    ----------
    network : TracedModule
        With the weights it has.
    dynamic_batch : bool
        Leave the first dimension of every input open; otherwise shapes are those it was traced with.

    Raises
    ------
    BackendError
        If torch.export refuses it, for instance since the graph is bound to one batch size.
    """
    examples = [torch.zeros(spec.shape, dtype=spec.dtype) for spec in network.input_specs]
    return _exported(network.graph_module, examples, network.name, dynamic_batch)


def with_dynamic_batch(program: ExportedProgram) -> ExportedProgram:
    """The same program with the first dimension of every input open."""
    return _exported(program.module(check_guards=False), example_inputs(program), "the program", dynamic_batch=True)


def example_inputs(program: ExportedProgram) -> list[Tensor]:
    """Zeros of the shapes that a program was exported with, the batch of an open first dimension being 1."""
    specs = program.graph_signature.user_inputs
    shapes = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    found: list[Tensor] = []
    for name in specs:
        value: Tensor = shapes[cast(str, name)]
        found.append(torch.zeros([1 if isinstance(n, torch.SymInt) else n for n in value.shape], dtype=value.dtype))
    return found


def write_program(program: ExportedProgram, out: Path) -> None:
    """Write a ``.pt2`` file, whole or not at all."""
    # Torch's own writer aborts the process where the disk is full, so it writes to memory.
    data = io.BytesIO()
    torch.export.save(program, data)
    _put(out, data.getvalue())


def write_network_beside(network: TracedModule, bundle: Path, note: Callable[[str], None]) -> None:
    """Write the network itself beside its bundle; where torch.export refuses it, `note` hears why and none is left."""
    out = network_beside(bundle)
    try:
        write_program(program_of(network), out)
    except BackendError as error:
        out.unlink(missing_ok=True)
        note(f"{error}; the bundle {bundle} is complete")


def read_program(path: Path) -> ExportedProgram:
    """Read a ``.pt2`` file. Nothing in it is run: one that holds pickled objects or compiled code is refused.

    Raises
    ------
    SpecError
        If it is none, or holds such things.
    """
    try:
        data = path.read_bytes()
        _refuse_code(data)
        with _weights_only():
            return torch.export.load(io.BytesIO(data))
    except OSError as error:
        raise SpecError(f"cannot read the network {path}: {error.strerror}; give a .pt2 or .onnx file") from error
    except Exception as error:
        raise SpecError(
            f"{path} is no torch.export program ({one_line(error)}); write it with netcut export --format pt2"
        ) from error


def _refuse_code(data: bytes) -> None:
    """Torch unpickles what an archive says is pickled, and loads libraries that it holds."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        compiled = [name for name in names if "/aotinductor/" in name or name.endswith((".so", ".cpp"))]
        if compiled:
            raise ValueError(f"it holds compiled code, {compiled[0]}")
        for name in names:
            if name.endswith(("_weights_config.json", "_constants_config.json")):
                for entry in json.loads(archive.read(name))["config"].values():
                    if entry["use_pickle"] or not entry["path_name"].startswith(("weight_", "tensor_")):
                        raise ValueError(f"it holds a pickled object, {entry['path_name']}")


@contextmanager
def _weights_only() -> Generator[None]:
    """Every ``torch.load`` below reads tensors only, whatever it asks for itself."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def write_onnx(program: ExportedProgram, out: Path) -> None:
    """Write an ONNX file, weights included, that onnx.checker accepts.

    Raises
    ------
    BackendError
        If onnx or onnxscript is missing, or an operation has no ONNX form.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise BackendError(
                f"writing ONNX needs {package}, which is not installed; install it with: pip install 'netcut-fx[peers]'"
            )
    try:
        with quiet_torch():
            converted: Any = torch.onnx.export(program, (), dynamo=True, verbose=False)
        model: Any = converted.model_proto
        cast(Any, importlib.import_module("onnx")).checker.check_model(model, full_check=True)
    except Exception as error:
        raise BackendError(f"this network has no ONNX form ({one_line(error)}); export it with --format pt2") from error
    _put(out, model.SerializeToString())


def onnx_error(out: Path, program: ExportedProgram, *, batches: Sequence[int] = ()) -> float | None:
    """Largest relative difference between ONNX Runtime's answers to `out` and torch's; None without ONNX Runtime.

    Parameters
    ----------
    out : Path
        The ONNX file.
    program : ExportedProgram
        What it was made from.
    batches : sequence of int
        Sizes to try for an open first dimension, beside those of `example_inputs`.

    Raises
    ------
    BackendError
        If it is above `TOLERANCE`.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    session: Any = cast(Any, importlib.import_module("onnxruntime")).InferenceSession(
        str(out), providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]
    module, examples, worst = program.module(), example_inputs(program), 0.0
    generator = torch.Generator().manual_seed(0)
    for batch in (None, *batches):
        shapes = [x.shape if batch is None else (batch, *x.shape[1:]) for x in examples]
        inputs = [_random(shape, x.dtype, generator) for shape, x in zip(shapes, examples, strict=True)]
        with torch.inference_mode():
            expected = tuple(find_tensors(plain_result(module(*inputs))))
        answers = session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})
        worst = max(worst, *(relative_error(a, e.numpy()) for a, e in zip(answers, expected, strict=True)))
    if not worst <= TOLERANCE:
        raise BackendError(
            f"ONNX Runtime answers otherwise than torch from {out}: relative error {worst:.1e} (allowed "
            f"{TOLERANCE:.0e}); export with --format pt2"
        )
    return worst


def relative_error(answer: Any, expected: Any) -> float:
    """Largest difference of two arrays, relative to the largest entry of `expected`; infinite for NaN, other shapes."""
    found, wanted = np.asarray(answer, np.float64), np.asarray(expected, np.float64)
    if found.shape != wanted.shape:
        return float("inf")
    error = float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float64).tiny))
    return float("inf") if math.isnan(error) else error


def _exported(module: nn.Module, examples: Sequence[Tensor], name: str, dynamic_batch: bool) -> ExportedProgram:
    shapes: Any = None
    if dynamic_batch:
        # Torch takes a dimension of 1 for a constant.
        examples = [torch.zeros((2, *x.shape[1:]), dtype=x.dtype) for x in examples]
        # A graph module takes its inputs as *args, one tuple, where it has no signature of its own.
        shapes = tuple({0: Dim("batch")} for _ in examples)
    try:
        with quiet_torch():
            return torch.export.export(module, tuple(examples), dynamic_shapes=shapes)
    except Exception as error:
        hint = "leave --dynamic-batch out: the graph may be bound to one batch size" if dynamic_batch else "report it"
        raise BackendError(f"torch.export refuses {name} ({one_line(error, longest=160)}); {hint}") from error


def _put(out: Path, data: bytes) -> None:
    with report_storage_errors(f"write {out}", safe="nothing else was changed"):
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, data)


def _random(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Whole numbers are indices or masks: 0 and 1 are valid as either."""
    if dtype.is_floating_point:
        return torch.randn(tuple(shape), generator=generator).to(dtype)
    return torch.randint(0, 2, tuple(shape), generator=generator).to(dtype)
