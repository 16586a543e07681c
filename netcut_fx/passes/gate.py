"""Pass ``gate``: every cell that can be skipped gets a gate, decided for each input from early features."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn

from netcut_fx.errors import PassError
from netcut_fx.gating.cells import Cell, find_cells
from netcut_fx.gating.gate_network import Gates
from netcut_fx.gating.gated_cell import GatedCell, keep_channels
from netcut_fx.gating.regions import nodes_between
from netcut_fx.gating.slots import assign_slots
from netcut_fx.graph import TracedModule
from netcut_fx.passes.base import Pass
from netcut_fx.passes.copying import copy_traced
from netcut_fx.passes.dead_code import drop_unused_weights
from netcut_fx.tracing import retrace

_GATES, _CELLS = "gates", "gated"


@dataclass(frozen=True)
class GatePass(Pass):
    """Put the cells of a network behind gates; with all gates open it computes what it did, bit for bit.

    Parameters
    ----------
    layers, channels : bool
        Whether residual regions get gates (L-Net), and channel groups (C-Net); both is LC-Net.
    groups : int
        Into how many groups each channel set is divided at most.
    multiple : int
        Groups end at multiples of this many channels: those of a vector register, else nothing is saved.
    lead : int
        How many cells at the beginning stay as they are: the gate networks read what comes behind them.
    hidden : int
        Width of the gate networks.
    scales : bool
        Whether what is kept is scaled by a number predicted for each input.
    seed : int
        Of the gate networks' first weights.
    """

    layers: bool = True
    channels: bool = True
    groups: int = 4
    hidden: int = 16
    scales: bool = True
    seed: int = 0
    multiple: int = 1
    lead: int = 0
    name: ClassVar[str] = "gate"

    def requires(self, traced: TracedModule) -> None:
        """There is something to skip, and the options make sense."""
        if not (self.layers or self.channels):
            raise PassError("pass gate with layers=false and channels=false gates nothing; leave one of them on")
        if self.groups < 2 or self.hidden < 1 or self.multiple < 1:
            raise PassError(
                f"pass gate needs groups of at least 2, hidden and multiple of at least 1, got groups={self.groups}, "
                f"hidden={self.hidden} and multiple={self.multiple}"
            )
        if any(isinstance(module, (Gates, GatedCell)) for module in traced.graph_module.modules()):
            raise PassError(f"{traced.name} has gates already; gate the network that it was made from")
        self._cells(traced)

    def call(self, traced: TracedModule) -> TracedModule:
        """Replace each cell by a `GatedCell`, and let `Gates` read what the first of them reads."""
        cells = self._cells(traced)
        work = copy_traced(traced)
        module, by_name = work.graph_module, dict(work.by_qualname)
        slots, layers, _ = assign_slots([(c.skippable, c.groups) for c in cells])
        early = by_name[cells[0].entry]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            gates = Gates(
                early.meta["spec"].shape,
                slots=slots,
                layers=layers,
                hidden=self.hidden,
                scales=self.scales,
            )
        base = _free_name(module, _CELLS)
        decisions = _add_call(module, early, _free_name(module, _GATES), gates.eval(), (early,))
        for number, (cell, own) in enumerate(zip(cells, slots, strict=True)):
            end = by_name[cell.region.addition if cell.region else cell.exit]
            entry, last = by_name[cell.entry], by_name[cell.exit]
            shortcut = (by_name[cell.region.shortcut],) if cell.region else ()
            body = _body(module, cell, entry, last)
            group_of = tuple(_group_of(module, by_name, cell, i, self.multiple) for i in range(len(cell.sets)))
            gated = GatedCell(cell, own, gates.total, body, group_of, _scaled_set(cell, by_name)).eval()
            inside = nodes_between(entry, end)
            assert inside is not None  # else it would be no cell
            call = _add_call(module, end, f"{base}.{number}", gated, (entry, *shortcut, decisions))
            end.replace_all_uses_with(call, delete_user_cb=lambda user, call=call: user is not call)
            for node in reversed(inside):
                if not node.users:
                    module.graph.erase_node(node)
            by_name[str(end.meta["qualname"])] = call  # what the next cell may begin with
        drop_unused_weights(module)
        return retrace(module, traced.name, traced.input_specs)

    def ensures(self, before: TracedModule, after: TracedModule) -> None:
        """The result has the form it had."""
        if before.output.meta["spec"] != after.output.meta["spec"]:
            raise PassError(f"gate changed what {after.name} returns to {after.output.meta['spec']}")

    def _cells(self, traced: TracedModule) -> tuple[Cell, ...]:
        found = find_cells(
            traced, layers=self.layers, channels=self.channels, groups=self.groups, multiple=self.multiple
        )
        if not 0 <= self.lead < len(found):
            raise PassError(
                f"pass gate with lead={self.lead} leaves nothing to skip: {traced.name} has {len(found)} cells; give "
                f"lead from 0 to {len(found) - 1}"
            )
        return found[self.lead :]


def _add_call(module: fx.GraphModule, after: fx.Node, path: str, part: nn.Module, inputs: tuple[Any, ...]) -> fx.Node:
    module.add_submodule(path, part)
    with module.graph.inserting_after(after):
        return module.graph.call_module(path, inputs)


def _free_name(module: fx.GraphModule, wanted: str) -> str:
    name, count = wanted, 1
    while hasattr(module, name):
        count += 1
        name = f"{wanted}_{count}"
    return name


def _body(module: fx.GraphModule, cell: Cell, entry: fx.Node, last: fx.Node) -> fx.GraphModule:
    """What computes `last` from `entry`, each reader of a channel set behind the factor of its channels."""
    graph = fx.Graph()
    copies = {entry: graph.placeholder("entry")}
    factors = [graph.placeholder(f"keep_{i}") for i in range(len(cell.sets))]
    inside = nodes_between(entry, last)
    assert inside is not None
    for node in inside:
        reads = [(i, at) for i, s in enumerate(cell.sets) for name, at in s.consumers if name == node.meta["qualname"]]
        if reads:
            (source,) = node.all_input_nodes
            value = copies[source]
            for i, at in reads:
                value = graph.call_function(keep_channels, (value, factors[i], at))
            copies[node] = graph.node_copy(node, lambda _, value=value: value)
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[last])
    # A copy of its own: what the network itself no longer calls is dropped from it.
    return copy.deepcopy(fx.GraphModule(module, graph, "Body")).eval()


def _group_of(module: fx.GraphModule, by_name: dict[str, fx.Node], cell: Cell, index: int, multiple: int) -> Tensor:
    """Divide the channels of a set: the first group has those with the largest weights, their norm's scale counted."""
    channels = cell.sets[index].channels
    weight = torch.zeros(channels, dtype=torch.float64)
    for name in cell.sets[index].producers:
        held: Any = module.get_submodule(str(by_name[name].target))
        size = held.weight.detach().double().abs().flatten(1).sum(1).cpu()
        for user in by_name[name].users:
            norm: Any = module.get_submodule(str(user.target)) if user.op == "call_module" else None
            if isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.running_var is not None:
                size = (
                    size * (norm.weight.detach().double().abs() * (norm.running_var.double() + norm.eps).rsqrt()).cpu()
                )
        weight = weight + size
    ranks = torch.empty(channels, dtype=torch.int64)
    ranks[weight.argsort(descending=True, stable=True)] = torch.arange(channels)
    ends = torch.tensor([channels * k // cell.groups // multiple * multiple for k in range(1, cell.groups)])
    return torch.bucketize(ranks, ends, right=True)


def _scaled_set(cell: Cell, by_name: dict[str, fx.Node]) -> int | None:
    """The last set of which every reader reads nothing else: one factor for a channel is enough for the cell."""
    for i in reversed(range(len(cell.sets))):
        one = cell.sets[i]
        specs = [by_name[name].all_input_nodes[0].meta["spec"] for name, _ in one.consumers]
        if all(spec.shape[1] == one.channels for spec in specs):
            return i
    return None
