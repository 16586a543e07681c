"""What a well-formed traced network is: one table of rules, checked around every pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from netcut_fx.errors import PassError
from netcut_fx.graph import TensorSpec, TracedModule
from netcut_fx.passes.copying import tensors, weightless
from netcut_fx.passes.observing import RunError, run_without_values

#: A complaint: which node (or tensor), and what is wrong with it.
Complaint = tuple[str, str]


@dataclass(frozen=True)
class Rule:
    """One thing that must hold: `find` yields what breaks it."""

    name: str
    find: Callable[[TracedModule], Iterator[Complaint]]


def check(traced: TracedModule) -> None:
    """Check all of `RULES`, in order.

    Raises
    ------
    PassError
        At the first broken rule; the text names the network, the rule and the node.
    """
    for rule in RULES:
        for where, what in rule.find(traced):
            raise PassError(f"{traced.name} is not well-formed: rule {rule.name!r} broken at {where}: {what}")


def check_no_shared_storage(before: TracedModule, after: TracedModule) -> None:
    """Raise `PassError` if a weight of `after` lies in the same memory as one of `before`."""
    held = {_address(t) for t in tensors(before.graph_module)} - {0}
    for name, tensor in _named_tensors(after):
        if _address(tensor) in held:
            raise PassError(
                f"{after.name} shares the storage of {name} with the network it was made from, so training one would "
                "change the other; start the pass from copy_traced(traced)"
            )


def _one_output_at_the_end(traced: TracedModule) -> Iterator[Complaint]:
    outputs = [node for node in traced.nodes if node.op == "output"]
    if len(outputs) != 1:
        yield "the graph", f"{len(outputs)} output nodes where there must be one"
    elif traced.nodes[-1] is not outputs[0]:
        yield _label(traced.nodes[-1]), "comes after the output"


def _inputs_first(traced: TracedModule) -> Iterator[Complaint]:
    computed = ""
    for node in traced.nodes:
        if node.op != "placeholder":
            computed = computed or _label(node)
        elif computed:
            yield _label(node), f"an input after {computed}"


def _targets_exist(traced: TracedModule) -> Iterator[Complaint]:
    modules = dict(traced.graph_module.named_modules(remove_duplicate=False))
    for node in traced.nodes:
        if node.op == "call_module" and str(node.target) not in modules:
            yield _label(node), f"there is no module {node.target}"
        elif node.op == "get_attr":
            owner, _, attribute = str(node.target).rpartition(".")
            if owner not in modules or not hasattr(modules[owner], attribute):
                yield _label(node), f"there is no parameter or buffer {node.target}"


def _lint(traced: TracedModule) -> Iterator[Complaint]:
    try:
        traced.graph_module.graph.lint()
    except (RuntimeError, ValueError, AssertionError) as error:
        yield "the graph", " ".join(str(error).split())


def _named(traced: TracedModule) -> Iterator[Complaint]:
    names = Counter(node.meta.get("qualname") for node in traced.nodes)
    for node in traced.nodes:
        if not node.meta.get("qualname"):
            yield node.name, "it has no qualified name"
        elif names[node.meta["qualname"]] > 1:
            yield node.name, f"{names[node.meta['qualname']]} nodes are called {node.meta['qualname']}"
        elif "spec" not in node.meta:
            yield _label(node), "it has no spec"


def _eval_mode(traced: TracedModule) -> Iterator[Complaint]:
    # Modules that only hold others have a flag too, but it means nothing.
    called = {str(node.target) for node in traced.nodes if node.op == "call_module"}
    for name, module in traced.graph_module.named_modules():
        if module.training and (not name or name in called):
            yield name or "the network", "it is in training mode; call .eval() first"


def _nothing_dangling(traced: TracedModule) -> Iterator[Complaint]:
    called = {str(node.target) for node in traced.nodes if node.op == "call_module"}
    read = {str(node.target) for node in traced.nodes if node.op == "get_attr"}
    inside = {f"{owner}.{name}" if name else owner for owner in called for name, _ in _modules_of(traced, owner)}
    for name, module in traced.graph_module.named_modules(remove_duplicate=False):
        if not name or name in inside:
            continue
        if not any(used.startswith(f"{name}.") for used in called | read):
            yield name, "no node uses this module"
        for attribute, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if f"{name}.{attribute}" not in read:
                yield f"{name}.{attribute}", "no node uses this tensor"
    root = traced.graph_module
    for attribute, _ in (*root.named_parameters(recurse=False), *root.named_buffers(recurse=False)):
        if attribute not in read:
            yield attribute, "no node uses this tensor"


def _finite(traced: TracedModule) -> Iterator[Complaint]:
    for name, tensor in traced.graph_module.named_parameters():
        if not tensor.is_meta and tensor.is_floating_point() and not _all_finite(tensor.detach()):
            yield name, "it holds NaN or infinity; load intact weights"
    # A mask is a buffer and may well hold minus infinity.
    for name, tensor in traced.graph_module.named_buffers():
        if not tensor.is_meta and tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            yield name, "it holds NaN; load intact weights"


def _all_finite(tensor: Tensor) -> bool:
    # A sum is much cheaper and finite only if every element is; large elements may overflow it.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _specs_agree(traced: TracedModule) -> Iterator[Complaint]:
    wrong = next((node for node in traced.inputs if not isinstance(node.meta["spec"], TensorSpec)), None)
    if wrong is not None:
        yield _label(wrong), "an input must be one tensor"
        return
    try:
        seen = run_without_values(weightless(traced), traced.input_specs)
    except RunError as failure:
        yield _label(failure.node), f"it cannot be run: {failure}"
        return
    for node in traced.nodes:
        if node.meta["spec"] != seen[node.name].spec:
            yield _label(node), f"recorded as {node.meta['spec']} but computes {seen[node.name].spec}"


#: Cheap rules first; later ones may rely on earlier ones.
RULES: tuple[Rule, ...] = (
    Rule("one output, at the end", _one_output_at_the_end),
    Rule("inputs come first", _inputs_first),
    Rule("targets exist", _targets_exist),
    Rule("the graph passes lint", _lint),
    Rule("every node has a unique name and a spec", _named),
    Rule("eval mode", _eval_mode),
    Rule("nothing dangles", _nothing_dangling),
    Rule("weights are numbers", _finite),
    Rule("specs agree with the computation", _specs_agree),
)


def _modules_of(traced: TracedModule, owner: str) -> Iterator[tuple[str, object]]:
    yield from traced.graph_module.get_submodule(owner).named_modules(remove_duplicate=False)


def _named_tensors(traced: TracedModule) -> Iterator[tuple[str, torch.Tensor]]:
    yield from traced.graph_module.named_parameters(remove_duplicate=False)
    yield from traced.graph_module.named_buffers(remove_duplicate=False)
    yield from (("a plain attribute", tensor) for tensor in tensors(traced.graph_module))


def _address(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_meta else tensor.untyped_storage().data_ptr()


def _label(node: fx.Node) -> str:
    return str(node.meta.get("qualname") or node.name)
