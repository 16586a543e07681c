"""Pass ``dead-code``: nodes that influence no result, then the weights only they used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import fx, nn

from netcut_fx.errors import PassError
from netcut_fx.graph import TracedModule
from netcut_fx.passes.base import Pass
from netcut_fx.passes.copying import copy_traced
from netcut_fx.passes.inplace import needed_nodes
from netcut_fx.tracing import retrace


@dataclass(frozen=True)
class DeadCode(Pass):
    """Drop what does not influence the result.

    An in-place operation stays while anything that is needed reads the memory it writes to. Assertions go: they
    yield nothing. Inputs stay, so that the network is called as before.
    """

    name: ClassVar[str] = "dead-code"

    def call(self, traced: TracedModule) -> TracedModule:
        """Copy what is needed."""
        needed = needed_nodes(traced)
        dead = {node.name for node in traced.nodes if node not in needed}
        work = copy_traced(traced, without=dead)
        return retrace(work.graph_module, traced.name, traced.input_specs)

    def ensures(self, before: TracedModule, after: TracedModule) -> None:
        """Every remaining node matters, and the result has the same form."""
        needed = needed_nodes(after)
        for node in after.nodes:
            if node not in needed:
                raise PassError(f"dead-code left {node.meta['qualname']} in {after.name}, which nothing uses")
        if before.output.meta["spec"] != after.output.meta["spec"]:
            raise PassError(
                f"dead-code changed what {after.name} returns from {before.output.meta['spec']} "
                f"to {after.output.meta['spec']}"
            )


def drop_unused_weights(graph_module: fx.GraphModule) -> None:
    """Delete, in place, the submodules, parameters and buffers that no node calls or reads."""
    called = {str(node.target) for node in graph_module.graph.nodes if node.op == "call_module"}
    read = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}

    def prune(module: nn.Module, path: str) -> bool:
        """Whether anything in `module` is used."""
        if path.rstrip(".") in called:
            return True
        held = [name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))]
        children = list(vars(module)["_modules"])  # named_children() leaves out a second name of one module
        used = [name for name in held if path + name in read]
        used += [name for name in children if prune(module.get_submodule(name), f"{path}{name}.")]
        for name in {*held, *children} - {*used}:
            delattr(module, name)
        return bool(used)

    prune(graph_module, "")
