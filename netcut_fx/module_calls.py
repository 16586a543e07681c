"""The calls of modules that a traced network consists of, as a tree over the execution order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from torch import fx, nn

from netcut_fx.cut_graph import CutGraph, parameters_of
from netcut_fx.graph import TensorSpec

#: Operations that make a parameter of two or more dimensions a weight. Elsewhere it is an offset, a scale, a table.
_WEIGHTED = (
    "conv",
    "linear",
    "matmul",
    "bmm",
    "mm",
    "einsum",
    "addmm",
    "baddbmm",
    "attention",
    "bilinear",
    "embedding",
)
#: Ends the name of what applies a depthwise convolution.
_DEPTHWISE = " depthwise"
_GENERIC = frozenset({"Sequential", "ModuleList", "ModuleDict", "Module"})


@dataclass(eq=False)
class ModuleCall:
    """One call of one module: an interval of positions of a `CutGraph`.

    Parameters
    ----------
    path : str
        Path of the module; ``""`` for the network itself.
    kind : str
        Its class.
    first, last : int
        Positions of the first and last value made inside.
    parent : ModuleCall or None
    children : list of ModuleCall
        Calls inside, in execution order; a leaf module is no call of its own.
    """

    path: str
    kind: str
    first: int
    last: int
    parent: ModuleCall | None
    weights: int = 0
    signature: tuple[str, ...] = ()
    children: list[ModuleCall] = field(default_factory=list["ModuleCall"])

    @property
    def is_generic(self) -> bool:
        """A mere container: two of them need not be alike."""
        return self.kind.rsplit(".", 1)[-1] in _GENERIC

    @cached_property
    def type_key(self) -> tuple[object, ...]:
        """What is equal for calls of the same kind of module; of containers, what they hold has to agree."""
        if not self.is_generic:
            return (self.kind,)
        return (self.kind, self.signature, tuple(child.kind for child in self.children))

    def walk(self) -> Iterator[ModuleCall]:
        """Yield this call and all inside, outer before inner, in execution order."""
        stack: list[ModuleCall] = [self]
        while stack:
            call = stack.pop()
            yield call
            stack += reversed(call.children)


@dataclass(frozen=True)
class ModuleCalls:
    """The tree of calls.

    Parameters
    ----------
    root : ModuleCall
        The network.
    innermost : tuple of ModuleCall
        For each position, the innermost call that contains it.
    weighted : tuple of bool
        For each position, whether it applies a weight: convolution, linear, attention.
    depthwise : tuple of bool
        For each position, whether it is a convolution where each channel has a filter of its own.
    parametrised : tuple of bool
        For each position, whether it has any parameter.
    """

    root: ModuleCall
    innermost: tuple[ModuleCall, ...]
    weighted: tuple[bool, ...]
    depthwise: tuple[bool, ...]
    parametrised: tuple[bool, ...]

    def enclosing(self, first: int, last: int) -> ModuleCall:
        """The innermost call that contains all positions from `first` to `last`."""
        call = self.innermost[first]
        while call.parent is not None and not (call.first <= first and last <= call.last):
            call = call.parent
        return call

    def has_weight(self, first: int, last: int) -> bool:
        """Whether any position from `first` to `last` applies a weight."""
        return any(self.weighted[first : last + 1])


def module_calls(graph: CutGraph) -> ModuleCalls:
    """Rebuild the tree of calls from what tracing recorded at each node."""
    end = len(graph.order) - 1
    root = ModuleCall("", "", 0, end, None)
    opened: list[tuple[str, ModuleCall]] = [("", root)]
    innermost: list[ModuleCall] = []
    weighted: list[bool] = []
    depthwise: list[bool] = []
    parametrised: list[bool] = []
    signatures: dict[ModuleCall, list[str]] = {root: []}
    seen: set[fx.Node] = set()
    for i, node in enumerate(graph.order):
        wanted = [("", "", ""), *modules_around(node)]
        depth = 0
        while depth < min(len(opened), len(wanted)) and opened[depth][0] == wanted[depth][0]:
            depth += 1
        del opened[depth:]
        for key, path, kind in wanted[depth:]:
            call = ModuleCall(path, kind, i, i, opened[-1][1])
            opened[-1][1].children.append(call)
            opened.append((key, call))
            signatures[call] = []
        weight = _weight_kind(graph, i)
        depthwise.append(weight is not None and weight.endswith(_DEPTHWISE))
        parametrised.append(any(parameters_of(graph.traced, n) for n in (node, *graph.uncounted(i, seen))))
        weighted.append(weight is not None)
        innermost.append(opened[-1][1])
        for _, call in opened:
            call.last = max(call.last, i)
            if weight is not None:
                call.weights += 1
                signatures[call].append(weight)
    for call, kinds in signatures.items():
        call.signature = tuple(kinds)
    return ModuleCalls(root, tuple(innermost), tuple(weighted), tuple(depthwise), tuple(parametrised))


def modules_around(node: fx.Node) -> list[tuple[str, str, str]]:
    """List (call, path, class) of the modules around a node, outermost first; the module that it calls is not one."""
    recorded = node.meta.get("nn_module_stack")
    if recorded:
        entries = [(key, str(path), _class_name(kind)) for key, (path, kind) in recorded.items()]
        return entries[:-1] if node.op == "call_module" and entries[-1][1] == node.target else entries
    path = str(node.meta.get("module_path", ""))
    parts = path.split(".") if path else []
    paths = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return [(p, p, "Module") for p in paths]


def _class_name(kind: object) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)


def _weight_kind(graph: CutGraph, position: int) -> str | None:
    """What applies a weight at `position`, as a word; None if nothing does."""
    node = graph.order[position]
    if node.op == "call_module":
        module = graph.traced.graph_module.get_submodule(str(node.target))
        name = type(module).__name__
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)) or "norm" in name.lower():
            return None
        weights = [p for p in module.parameters() if p.ndim >= 2]
    else:
        name = str(node.target) if node.op == "call_method" else str(getattr(node.target, "__name__", ""))
        if not any(word in name for word in _WEIGHTED):
            return None
        weights = [p for n in node.all_input_nodes for p in _parameters_behind(graph, n) if p.ndim >= 2]
    if not weights:
        return None
    return name + _DEPTHWISE if any(_is_depthwise(node, weight) for weight in weights) else name


def _is_depthwise(node: fx.Node, weight: nn.Parameter) -> bool:
    spec = node.all_input_nodes[0].meta["spec"]
    many = isinstance(spec, TensorSpec) and len(spec.shape) == weight.ndim > 2 and spec.shape[1] > 1
    return many and weight.shape[1] == 1 and weight.shape[2:].numel() > 1


def _parameters_behind(graph: CutGraph, node: fx.Node) -> Iterator[nn.Parameter]:
    """Parameters that `node` fetches, or that the value computed from parameters alone comes from."""
    stack, seen = [node], {node}
    while stack:
        current = stack.pop()
        if current.name in graph.position or current.op == "placeholder":
            continue
        yield from parameters_of(graph.traced, current)
        fresh = [n for n in current.all_input_nodes if n not in seen]
        seen.update(fresh)
        stack += fresh
