"""Put the tensors of a lowered network in the order in memory that its kernels want.

Kernels keep their logical shapes until here, so that they are the kernels that `netcut_fx.kernels` lists. Then every
tensor between two kernels gets its channels innermost, and constant weights are packed for the registers that read
them. No conversion appears between kernels: only the indices with which they read and write change. What the network
takes and returns, and what is viewed in another shape, stays as it is: kernels at the border convert on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from netcut_fx.backends.tvm.schedules.axes import KernelAxes, channels_last, kernel_axes, moves
from netcut_fx.backends.tvm.schedules.machine import Machine
from netcut_fx.backends.tvm.schedules.packing import Packing, weight_packing
from netcut_fx.backends.tvm.schedules.padding import apart, pad_channels, padded_buffers
from netcut_fx.backends.tvm.schedules.products import pad_product
from netcut_fx.backends.tvm.schedules.row_wise import pad_sums
from netcut_fx.backends.tvm.schedules.winograd import Winograd, winograd_weights
from netcut_fx.backends.tvm.schedules.winograd_nests import with_winograd
from netcut_fx.backends.tvm.toolchain import import_tvm


def lay_out(module: Any, weights: list[Any], machine: Machine) -> tuple[Any, list[Any]]:
    """Rewrite ``main(inputs, *weights)`` and its kernels; gives them and the weights in their new order.

    Parameters
    ----------
    module : tvm.IRModule
        ``main`` and its fused kernels, not scheduled.
    weights : list of tvm.runtime.Tensor
        The last arguments of ``main``.
    machine : Machine
        What it is compiled for.
    """
    return _Layout(module, weights, machine).run()


@dataclass(frozen=True, eq=False)
class _Call:
    """A call of a kernel: its buffers, in the order of arguments and results, as `main` names them."""

    function: Any
    axes: KernelAxes
    operands: tuple[Any, ...]


class _Layout:
    def __init__(self, module: Any, weights: list[Any], machine: Machine) -> None:
        self.module = module
        self.machine = machine
        self.main: Any = module["main"]
        inputs = int(self.main.attrs["num_input"])
        self.inputs = list(self.main.params[:inputs])
        self.weights = dict(zip(self.main.params[inputs:], weights, strict=True))
        self.read: dict[Any, KernelAxes] = {}
        self.calls: dict[Any, _Call] = {}
        #: `main`'s tensors that keep their order.
        self.fixed: set[Any] = {*self.main.params}
        #: Channel dimension of the others.
        self.axis: dict[Any, int] = {}
        self.packed: dict[tuple[Any, Packing | Winograd], Any] = {}
        self.kernels: dict[tuple[str, tuple[Packing | None, ...], tuple[int | None, ...]], Any] = {}

    def run(self) -> tuple[Any, list[Any]]:
        self.collect()
        self.spread()
        return self.rebuild()

    def bindings(self) -> list[Any]:
        return [binding for block in self.main.body.blocks for binding in block.bindings]

    def collect(self) -> None:
        """Find the kernel calls, and which tensors something else than a kernel sees."""
        from tvm import relax

        for binding in self.bindings():
            value = binding.value
            if isinstance(value, relax.Call) and value.op.name == "relax.call_tir":
                arguments = list(value.args[1].fields)
                # Constants that folding left are no weights that could be given in another order.
                self.fixed.update(a for a in arguments if not isinstance(a, relax.Var))
                function = self.module[value.args[0]]
                outputs = len(function.params) - len(arguments)
                # Several results keep their order: they are told apart by their place in a tuple.
                results = [binding.var] if outputs == 1 else [None] * outputs
                constant = frozenset(p for p, a in zip(function.params, arguments, strict=False) if a in self.weights)
                key = (value.args[0].name_hint, constant)
                if key not in self.read:
                    self.read[key] = kernel_axes(function, constant)
                call = _Call(function, self.read[key], (*arguments, *results))
                self.calls[binding.var] = call
                if not call.axes.stages:
                    # What such a kernel does with its operands is not known.
                    self.fixed.update(operand for operand in call.operands if operand is not None)
            elif not isinstance(value, relax.Var):
                self.fixed.add(binding.var)
                self.fixed.update(a for a in _leaves(value))
        self.fixed.update(_leaves(self.main.body.body))

    def spread(self) -> None:
        """Carry channel dimensions from kernel to kernel until nothing changes."""
        changed = True
        while changed:
            changed = False
            for call in self.calls.values():
                buffers = dict(zip(call.function.params, call.operands, strict=True))
                fixed = frozenset(b for b, operand in buffers.items() if operand is None or operand in self.fixed)
                known = {
                    b: self.axis[operand]
                    for b, operand in buffers.items()
                    if operand is not None and operand in self.axis
                }
                for buffer, dimension in call.axes.spread(known, fixed).items():
                    operand = buffers.get(buffer)
                    if operand is not None and operand not in self.axis:
                        self.axis[operand] = dimension
                        changed = True

    def packing(self, operand: Any, longer: tuple[int, int] | None) -> Packing | None:
        """New order of a tensor of `main`, a dimension of it longer; None where nothing changes."""
        if operand in self.weights and longer is not None:
            return Packing(channels_last(len(_shape(operand)), longer[0]), extent=longer[1])
        dimension = None if operand is None else self.axis.get(operand)
        if dimension is None:
            return None
        shape = _shape(operand)
        if longer is None and not moves(shape, dimension):
            return None
        return Packing(channels_last(len(shape), dimension), extent=0 if longer is None else longer[1])

    def padded(self, call: _Call) -> tuple[_Call, dict[Any, tuple[int, int]]]:
        """The call of a kernel whose channels are padded to whole vectors, and those of its buffers that are longer."""
        buffers = dict(zip(call.function.params, call.operands, strict=True))
        weights = frozenset(b for b, operand in buffers.items() if operand in self.weights)
        fixed = {b for b, o in buffers.items() if o not in self.axis and b not in weights}
        known = {b: self.axis[operand] for b, operand in buffers.items() if operand in self.axis}
        function, axes = call.function, call.axes
        longer = padded_buffers(axes, known, self.machine)
        if not longer:
            if axes.contraction is None:
                function = pad_sums(pad_product(function, self.machine), self.machine)
            return replace(call, function=function), {}
        if fixed & longer.keys():
            function = apart(function, axes.stages, fixed & longer.keys())
            axes = kernel_axes(function, weights)
            longer = padded_buffers(axes, known, self.machine)
        if axes.contraction is not None and axes.contraction.is_grouped:
            longer.pop(axes.contraction.weight.buffer, None)
        longer = {buffer: change for buffer, change in longer.items() if buffer not in fixed}
        old = list(function.params)
        function = pad_channels(function, axes.stages, longer)
        weights = frozenset(p for b, p in zip(old, function.params, strict=True) if b in weights)
        changes = {p: longer[b] for b, p in zip(old, function.params, strict=True) if b in longer}
        return _Call(function, kernel_axes(function, weights), call.operands), changes

    def rebuild(self) -> tuple[Any, list[Any]]:
        from tvm import relax

        self.builder = relax.BlockBuilder()
        new: dict[Any, Any] = {v: v for v in self.inputs}
        body: list[tuple[Any, Any]] = []
        for binding in self.bindings():
            call = self.calls.get(binding.var)
            value = binding.value
            if call is not None:
                value = self.call(call, value, new)
            body.append((binding.var, value))
        params = [*self.inputs, *(var for var, _ in self.packed.values())]
        with self.builder.function("main", params, attrs=dict(self.main.attrs.items())):
            with self.builder.dataflow():
                for var, value in body:
                    new[var] = self.builder.emit(_replace(value, new), var.name)
                result = self.builder.emit_output(_replace(self.main.body.body, new))
            self.builder.emit_func_output(result)
        return self.builder.finalize(), [array for _, array in self.packed.values()]

    def call(self, call: _Call, value: Any, new: dict[Any, Any]) -> Any:
        """The call of the kernel that reads and writes the new orders."""
        from tvm import relax

        call, longer = self.padded(call)
        found = call.axes.contraction
        weight = None if found is None else found.weight.buffer
        faster = None if found is None or weight in longer else winograd_weights(found, self.machine)
        pack = None if found is None or faster else weight_packing(found, self.machine)
        packings: list[Packing | None] = []
        arguments: list[Any] = []
        for buffer, operand in zip(call.function.params, call.operands, strict=True):
            order = self.packing(operand, longer.get(buffer))
            is_weight = weight is not None and buffer.same_as(weight)
            if is_weight:
                order = pack if pack is None or buffer not in longer else replace(pack, extent=longer[buffer][1])
            packings.append(order)
            order = faster if is_weight and faster else order
            arguments.append(self.weight(operand, order) if operand in self.weights else operand)
        inputs = len(value.args[1].fields)
        name = str(value.args[0].name_hint)
        dimensions = tuple(None if o is None else self.axis.get(o) for o in call.operands)
        key = (name, tuple(packings), dimensions)
        if key not in self.kernels:
            function = reorder(call.function, call.axes, key[1], dimensions)
            if faster is not None:
                function = with_winograd(function, weight, faster)
            function = narrow_indices(function)
            self.kernels[key] = self.builder.add_func(function, name)
        out = value.ty_args[0]
        if hasattr(out, "fields"):
            out = list(out.fields)
        elif packings[-1] is not None:
            out = relax.TensorType(packings[-1].shape(_shape(call.operands[-1])), str(out.dtype))
        return relax.call_tir(self.kernels[key], relax.Tuple(arguments[:inputs]), out)

    def weight(self, parameter: Any, order: Packing | Winograd | None) -> Any:
        from tvm import relax

        tvm = import_tvm()
        key = (parameter, order or Packing(tuple(range(len(_shape(parameter))))))
        if key not in self.packed:
            var, array = parameter, self.weights[parameter]
            if order is not None:
                array = tvm.runtime.tensor(order.apply(array.numpy()))
            name = parameter.name
            var = relax.Var(name, relax.TensorType(tuple(int(n) for n in array.shape), str(array.dtype)))
            self.packed[key] = (var, array)
        return self.packed[key][0]


def reorder(
    function: Any, axes: KernelAxes, packings: tuple[Packing | None, ...], dimensions: tuple[int | None, ...]
) -> Any:
    """`function` with its arguments in the order of `packings`, and what lies between its nests likewise.

    `dimensions` are the channel dimensions of the arguments, where they are known.
    """
    import_tvm()
    from tvm import s_tir

    wanted = {b: p for b, p in zip(function.params, packings, strict=True) if p is not None}
    arguments = {*function.params}
    # What is neither written nor read by a sum is inlined: nothing of it lies in memory.
    sums = [stage for stage in axes.stages if stage.reduces]
    stored = {access.buffer for stage in sums for access in (stage.store, *stage.loads)}
    known = {b: d for b, d in zip(function.params, dimensions, strict=True) if d is not None}
    for buffer, dimension in axes.spread(known, frozenset()).items():
        shape = tuple(int(n) for n in buffer.ty.shape)
        if buffer in stored and buffer not in arguments and moves(shape, dimension):
            wanted[buffer] = Packing(channels_last(len(shape), dimension))
    if not wanted:
        return function
    schedule = s_tir.Schedule(function)
    for stage in axes.stages:
        block = schedule.get_sblock(stage.name)
        for kind in ("write", "read"):
            regions = getattr(schedule.get(block), f"{kind}s")
            for i, buffer in enumerate([region.source for region in regions]):
                # A transformed buffer is another one, so each is met once.
                if buffer in wanted:
                    schedule.transform_layout(block, (kind, i), wanted.pop(buffer).index_map())
    assert not wanted, f"kernel {stage_names(axes)} does not touch {[buffer.name for buffer in wanted]}"
    return schedule.mod["main"]


def narrow_indices(function: Any) -> Any:
    """`function` with 32-bit loops: hints at 64-bit ones get lost when TVM narrows them by itself."""
    tvm = import_tvm()
    if any(str(p.ty.dtype) == "int64" for p in function.params):
        # Whole numbers that are data.
        return function
    module = tvm.IRModule({"main": function})
    return tvm.tirx.transform.ForceNarrowIndexToInt32()(module)["main"]


def stage_names(axes: KernelAxes) -> str:
    """Name of a kernel by its nests."""
    return "+".join(stage.name for stage in axes.stages)


def _shape(var: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in var.ty.shape)


def _leaves(value: Any) -> list[Any]:
    """Tensors of `main` in an expression."""
    import tvm_ffi
    from tvm import relax

    found: list[Any] = []

    def see(var: Any) -> None:
        found.append(var)

    tvm_ffi.structural_walk(value, (relax.Var, see))
    return found


def _replace(value: Any, new: dict[Any, Any]) -> Any:
    import tvm_ffi
    from tvm import relax

    return tvm_ffi.structural_map(value, (relax.Var, lambda var: new.get(var, var)))
