"""What a traced network asks of torch's dispatcher: each fx node as a sequence of ATen calls.

A node may be a module, a function, an operator or a tensor method, in place or not; torch's own dispatcher turns all of
these into the same few ATen operators. So each node is run once on tensors without storage (device ``meta``), under a
dispatch mode that applies the decompositions ``torch.export`` applies and writes down what remains. Nothing is computed
and no weight is read: a network whose weights were never allocated is lowered just the same.

What one node does depends only on its target, its options and the layout of its inputs, so recordings are kept and
reused for every further node, and every further network, that looks the same.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.lowering.attention import AttentionAsExported
from netcut_fx.lowering.options import hashable, module_options, without_weights
from netcut_fx.lowering.recorder import Recorder
from netcut_fx.lowering.tracks import Layout, Recording, Slot, map_nested
from netcut_fx.lowering.values import AtenCall, AtenProgram, Value
from netcut_fx.tracing import operation_name

#: How many recordings of distinct nodes are kept.
_CACHE_SIZE = 4096
_recordings: OrderedDict[Any, Recording] = OrderedDict()


def record(traced: TracedModule) -> AtenProgram:
    """Run `traced` without computing anything and write down the ATen calls of every node."""
    return _Run(traced).program()


class _Run:
    """One pass over a traced network."""

    def __init__(self, traced: TracedModule) -> None:
        self.traced = traced
        self.values: dict[int, Value] = {}
        self.alive: list[Tensor] = []
        self.calls: list[AtenCall] = []
        self.env: dict[fx.Node, Any] = {}
        #: Tensors that share memory, by id of each of them.
        self.sharing: dict[int, list[Tensor]] = {}
        self.recorder: Recorder | None = None

    def program(self) -> AtenProgram:
        outputs: tuple[Value, ...] = ()
        node_values: dict[str, tuple[Value, ...]] = {}
        for node in self.traced.nodes:
            if node.op == "placeholder":
                self.env[node] = self.fresh(node.meta["spec"], "activation")
            elif node.op == "get_attr":
                self.env[node] = self.attribute(str(node.target))
            elif node.op == "output":
                outputs = self.values_in(self.arguments(node.args))
            else:
                self.env[node] = self.call(node)
            node_values[node.name] = self.values_in(self.env.get(node))
        return AtenProgram(tuple(self.calls), outputs, node_values)

    def values_in(self, result: Any) -> tuple[Value, ...]:
        found: list[Value] = []
        map_nested(result, Tensor, lambda t: found.append(self.values[id(t)]))
        return tuple(found)

    def arguments(self, args: Any) -> Any:
        return map_nested(args, fx.Node, lambda n: self.env[n])

    def bind(self, tensor: Tensor, role: str) -> Tensor:
        self.values[id(tensor)] = Value(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), role)
        self.alive.append(tensor)
        return tensor

    def fresh(self, spec: Any, role: str) -> Any:
        if isinstance(spec, TensorSpec):
            return self.bind(torch.empty(spec.shape, dtype=spec.dtype, device="meta"), role)
        return tuple(self.fresh(part, role) for part in spec) if isinstance(spec, tuple) else spec  # pyright: ignore[reportUnknownVariableType]

    def attribute(self, target: str) -> Any:
        owner_path, _, name = target.rpartition(".")
        attribute = getattr(self.traced.graph_module.get_submodule(owner_path), name)
        if not isinstance(attribute, Tensor):
            return attribute
        return self.bind(Layout.of(attribute).tensor(), _role(attribute))

    def call(self, node: fx.Node) -> Any:
        args, kwargs = self.arguments(node.args), self.arguments(node.kwargs)
        module = self.traced.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
        tensors: dict[int, Tensor] = {}
        map_nested((args, kwargs), Tensor, lambda t: tensors.setdefault(id(t), t))
        inputs = {key: Slot(i) for i, key in enumerate(tensors)}
        describe = lambda t: (inputs[id(t)], Layout.of(t))  # noqa: E731
        key = hashable(
            (
                node.op,
                node.target if module is None else module_options(module),
                map_nested(args, Tensor, describe),
                map_nested(kwargs, Tensor, describe),
            )
        )
        recording = _recordings.get(key) if key is not None else None
        if recording is None:
            recording = self.record_node(node, module, args, kwargs, tuple(tensors.values()))
            if recording is None:
                return self.unknown(node, tuple(tensors.values()))
            if key is not None:
                _recordings[key] = recording
                if len(_recordings) > _CACHE_SIZE:
                    _recordings.popitem(last=False)
        return self.replay(node, module, tuple(tensors.values()), recording)

    def record_node(
        self, node: fx.Node, module: nn.Module | None, args: Any, kwargs: Any, tensors: tuple[Tensor, ...]
    ) -> Recording | None:
        """Run `node` under the recorder; None if torch cannot run it without storage."""
        weights: dict[int, str] = {}
        function: Any = node.target
        if module is not None:
            function = without_weights(module, "", weights, self.alive)
        elif node.op == "call_method":
            function = lambda x, *more, **named: getattr(x, str(node.target))(*more, **named)  # noqa: E731
        self.recorder = self.recorder or Recorder()
        self.recorder.start({id(t): Slot(i) for i, t in enumerate(tensors)}, weights)
        with _quiet(), torch.no_grad(), torch.device("meta"), AttentionAsExported(), self.recorder:
            try:
                result = function(*args, **kwargs)
            except Exception:  # whatever an operator without a shape rule raises: it stays one unknown call
                return None
        return self.recorder.finish(result, tensors)

    def unknown(self, node: fx.Node, tensors: tuple[Tensor, ...]) -> Any:
        """Emit one call of unknown kind, with the traced result, for a node torch cannot run without storage."""
        role = "activation" if any(self.values[id(t)].role == "activation" for t in tensors) else "parameter"
        result = self.fresh(node.meta["spec"], role)
        name = "?" + (type_name(self.traced, node) if node.op == "call_module" else operation_name(node))
        inputs = tuple(self.values[id(t)] for t in tensors)
        self.calls.append(AtenCall(name, inputs, {}, self.values_in(result), node.name))
        return result

    def replay(self, node: fx.Node, module: nn.Module | None, tensors: tuple[Tensor, ...], recording: Recording) -> Any:
        slots: dict[int, Tensor] = dict(enumerate(tensors))
        values: dict[int, Value] = {i: self.values[id(t)] for i, t in slots.items()}

        def tensor_of(slot: Slot) -> Tensor:
            if slot.index not in slots:
                slots[slot.index] = tensor = recording.layouts[slot.index].tensor()
                self.values[id(tensor)] = values[slot.index]
                self.alive.append(tensor)
            return slots[slot.index]

        for slot, path in recording.weights:
            role = "constant" if path is None or module is None else _role(_weight(module, path))
            values[slot.index] = _value(recording.layouts[slot.index], role)
        for call in recording.calls:
            for slot in call.outputs:
                values[slot.index] = _value(recording.layouts[slot.index], "activation")
            self.calls.append(
                AtenCall(
                    call.op,
                    map_nested(call.args, Slot, lambda s: values[s.index]),
                    map_nested(call.kwargs, Slot, lambda s: values[s.index]),
                    tuple(values[s.index] for s in call.outputs),
                    node.name,
                )
            )
        for old, new in recording.rebound:
            slots[new.index] = slots[old.index]
        result = map_nested(recording.result, Slot, tensor_of)
        for new, old in recording.aliases:
            if slots[new.index] is not slots[old.index]:
                group = self.sharing.setdefault(id(slots[old.index]), [slots[old.index]])
                group.append(slots[new.index])
                self.sharing[id(slots[new.index])] = group
        for old, new in recording.rebound:
            self.rewrite(slots[old.index], values[new.index], node)
        return result

    def rewrite(self, written: Tensor, content: Value, node: fx.Node) -> None:
        """Let `written` hold `content`.

        Whatever shares its memory is read off that anew, if anybody still does: as `torch.export` has it, first the
        tensor that the others are views of, then each view from that one.
        """
        base, *views = self.sharing.get(id(written), [written])
        if written is not base:
            content = self.reread(base, content, node)
        self.values[id(base)] = content
        for view in views:
            self.values[id(view)] = self.reread(view, content, node)

    def reread(self, tensor: Tensor, content: Value, node: fx.Node) -> Value:
        """Read `tensor` anew once the memory it lives in holds `content`."""
        old = self.values[id(tensor)]
        fresh = Value(old.shape, old.dtype, content.role)
        if old.numel == content.numel:
            self.calls.append(AtenCall("view", (content, old.shape), {}, (fresh,), node.name))
        else:
            self.calls.append(AtenCall("?write_through_view", (content, old), {}, (fresh,), node.name))
        return fresh


def type_name(traced: TracedModule, node: fx.Node) -> str:
    """Name the class of the module a node calls."""
    return type(traced.graph_module.get_submodule(str(node.target))).__name__


def _role(tensor: Tensor) -> str:
    return "parameter" if isinstance(tensor, nn.Parameter) else "constant"


def _value(layout: Layout, role: str) -> Value:
    return Value(layout.shape, str(layout.dtype).removeprefix("torch."), role)


def _weight(module: nn.Module, path: str) -> Tensor:
    owner_path, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner_path), name)


@contextmanager
def _quiet() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
