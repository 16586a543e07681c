"""Other runtimes, each with its best settings for one answer at a time in float32.

They are no dependency: the extra ``peers`` brings ONNX Runtime and OpenVINO, and torch comes with ``build``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from netcut_fx.errors import BackendError, SpecError
from netcut_fx.spec_text import did_you_mean, one_line


class Served(Protocol):
    """A network that answers; its input stays where it is between calls, as a device's would."""

    def answer(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of one batch of images, of the network's shape."""
        ...

    def call(self) -> object:
        """Run once on the last input."""
        ...


#: Name of a peer to the package that it needs.
PEERS: Mapping[str, str] = MappingProxyType(
    {"onnxruntime": "onnxruntime", "openvino": "openvino", "torch-compile": "torch", "torch-eager": "torch"}
)

_EXTRAS: Mapping[str, str] = MappingProxyType({"torch": "build"})


def chosen_peers(names: Sequence[str]) -> tuple[str, ...]:
    """Names of `PEERS`, each once; ``torch`` stands for both of torch's.

    Raises
    ------
    SpecError
        For a name that does not exist.
    BackendError
        If the package of one is not installed.
    """
    found: list[str] = []
    for name in names:
        both = [peer for peer in PEERS if name == "torch" and PEERS[peer] == "torch"]
        if not both and name not in PEERS:
            raise SpecError(f"there is no peer '{name}' to compare with; {did_you_mean(name, (*PEERS, 'torch'))}")
        found += both or [name]
    for name in found:
        require(PEERS[name], f"comparing with {name}")
    return tuple(dict.fromkeys(found))


def require(package: str, doing: str) -> None:
    """Raise `BackendError` if `package` is not installed, with the extra that brings it."""
    if importlib.util.find_spec(package) is None:
        extra = _EXTRAS.get(package, "peers")
        raise BackendError(
            f"{doing} needs {package}, which is not installed; install it with: pip install 'netcut-fx[{extra}]'"
        )


def version_of(name: str) -> str:
    """Version of a peer's package."""
    return importlib.metadata.version(PEERS[name])


def open_peer(name: str, network: Path, threads: int, shape: tuple[int, ...]) -> Served:
    """Load `network` in the peer called `name`; ``.onnx`` for ONNX Runtime and OpenVINO, ``.pt2`` for torch.

    Raises
    ------
    BackendError
        If the peer refuses the network.
    """
    try:
        if name == "onnxruntime":
            return OnnxRuntime(network, threads, shape)
        if name == "openvino":
            return OpenVino(network, threads, shape)
        torch_peers = importlib.import_module("netcut_fx.comparison.torch_peers")
        return cast(Served, torch_peers.TorchPeer(network, threads, shape, compiled=name == "torch-compile"))
    except Exception as error:
        raise BackendError(f"{name} does not run {network} ({one_line(error)}); leave it out of --against") from error


class OnnxRuntime:
    """All graph optimisations, one operator after the other; input and output are bound once."""

    def __init__(self, network: Path, threads: int, shape: tuple[int, ...]) -> None:
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads  # the calling thread is one of them
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for dimension, size in zip(_open_dimensions(network), shape, strict=False):
            if dimension:
                options.add_free_dimension_override_by_name(dimension, size)
        self._session = runtime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
        self._input = runtime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._session.get_inputs()[0].name, self._input)
        self._binding.bind_output(self._session.get_outputs()[0].name)

    def answer(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Served`."""
        self._input.update_inplace(np.ascontiguousarray(inputs))
        self.call()
        return np.array(self._binding.get_outputs()[0].numpy())

    def call(self) -> None:
        """See `Served`."""
        self._session.run_with_iobinding(self._binding)


class OpenVino:
    """Latency hint, float32 throughout, one stream, threads bound to cores."""

    def __init__(self, network: Path, threads: int, shape: tuple[int, ...]) -> None:
        openvino: Any = importlib.import_module("openvino")
        model = openvino.Core().read_model(str(network))
        model.reshape({model.inputs[0]: list(shape)})
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": True,
        }
        self._request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        self._input = np.zeros(shape, np.float32)
        self._request.set_input_tensor(openvino.Tensor(self._input, shared_memory=True))

    def answer(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Served`."""
        self._input[...] = inputs
        self.call()
        return np.array(self._request.get_output_tensor(0).data)

    def call(self) -> None:
        """See `Served`."""
        self._request.infer()


def _open_dimensions(network: Path) -> list[str]:
    """Names of the input's dimensions in an ONNX file, ``""`` where the size is given."""
    onnx: Any = importlib.import_module("onnx")
    given = onnx.load(str(network), load_external_data=False).graph.input[0].type.tensor_type.shape.dim
    return [str(dimension.dim_param) for dimension in given]
