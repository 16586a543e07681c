"""Cells: the parts of a network that one decision each is made about, with what may be left out of them.

A cell begins behind one separator and ends with a later one, so one tensor goes in and one comes out. It is
*skippable* if it is a residual region. Its channel sets are those that lie wholly inside, divided into groups. All sets
of a cell share one width, the number of groups kept of each: with G groups a cell has G variants (and one without its
body), not G to the power of the number of its sets. Cells do not overlap, so their variants never multiply.
"""

from __future__ import annotations

from dataclasses import dataclass

from netcut_fx.cut_graph import CutGraph, cut_graph
from netcut_fx.errors import NothingToSkip
from netcut_fx.gating.channels import ChannelSet, channel_sets
from netcut_fx.gating.regions import Region, nodes_between, raw_operands_agree, residual_regions
from netcut_fx.graph import TracedModule


@dataclass(frozen=True)
class Cell:
    """One cell; all nodes by qualified name.

    Parameters
    ----------
    name : str
        For people: the module path that all its nodes share, else the name of its last node. Unique.
    entry, exit : str
        What it reads and the last node of it.
    body : tuple of str
        Its nodes, in execution order; of a skippable cell, those that a skip leaves out.
    region : Region or None
        Set if the cell is skippable.
    sets : tuple of ChannelSet
        Whose channels can be dropped.
    groups : int
        Into how many groups each of them is divided; 0 without any.
    """

    name: str
    entry: str
    exit: str
    body: tuple[str, ...]
    region: Region | None
    sets: tuple[ChannelSet, ...]
    groups: int

    @property
    def skippable(self) -> bool:
        """Whether its body can be left out."""
        return self.region is not None


def find_cells(
    traced: TracedModule, *, layers: bool = True, channels: bool = True, groups: int = 4, multiple: int = 1
) -> tuple[Cell, ...]:
    """Find where a network can skip.

    Parameters
    ----------
    traced : TracedModule
        With one input.
    layers, channels : bool
        Whether to look for residual regions, and for channel groups.
    groups : int
        Into how many groups channel sets are divided at most.
    multiple : int
        Groups end at multiples of this many channels; sets of less than two of them stay whole.

    Returns
    -------
    tuple of Cell
        In execution order.

    Raises
    ------
    NothingToSkip
        Saying what was looked at and why it does not do.
    """
    graph = cut_graph(traced)
    regions, reasons = residual_regions(traced) if layers else ((), ())
    sets = channel_sets(traced) if channels else ()
    index = {str(node.meta["qualname"]): p for p, node in enumerate(graph.order)}
    sets = tuple(s for s in sets if s.nodes <= index.keys())  # a branch that nobody uses is not there
    usable = [s for s in sets if not s.refused and s.channels >= 2 * multiple]
    reasons += tuple(f"channels of {s.producers[0]} are {s.refused or 'too few'}" for s in sets if s not in usable)
    spans: list[tuple[int, int, Region | None]] = [(index[r.entry], index[r.addition], r) for r in regions]
    for one in sorted(usable, key=lambda s: index[s.producers[0]]):
        span = _span(graph, index, one)
        if span is None:
            reasons += (f"channels of {one.producers[0]} reach around other paths",)
        elif all(span[1] <= first or last <= span[0] for first, last, _ in spans):
            spans.append((*span, None))
    cells: list[Cell] = []
    for first, last, region in sorted(spans, key=lambda s: s[0]):
        nodes = region.body if region else tuple(_name(graph, p) for p in range(first + 1, last + 1))
        inside = tuple(s for s in usable if s.nodes <= set(nodes))
        name = _common_path(nodes) or nodes[-1]
        taken = {cell.name for cell in cells}
        divided = min((groups, *(s.channels // multiple for s in inside))) if inside else 0
        name = nodes[-1] if name in taken else name
        cells.append(Cell(name, _name(graph, first), nodes[-1], nodes, region, inside, divided))
    if not cells:
        what = " or ".join(w for w, on in (("residual region", layers), ("channel group", channels)) if on)
        why = "; ".join(dict.fromkeys(reasons[:3])) or "it has no addition of two branches and no plain convolution"
        raise NothingToSkip(
            f"nothing to skip in {traced.name}: no {what} lies on the path from input to output ({why}); gate a "
            "network with residual blocks or with plain convolutions in a row"
        )
    return tuple(cells)


def _span(graph: CutGraph, index: dict[str, int], one: ChannelSet) -> tuple[int, int] | None:
    """The separators that the set lies between, behind the first and up to the second; None if there are none."""
    positions = [index[name] for name in one.nodes]
    before = [s for s in graph.separators if s < min(positions)]
    behind = [s for s in graph.separators if s >= max(positions)]
    if not before or not behind or graph.order[before[-1]].op == "placeholder":
        return None
    first, last = before[-1], behind[0]
    if nodes_between(graph.order[first], graph.order[last]) is None:
        return None
    return (first, last) if raw_operands_agree(graph, range(first + 1, last + 1)) else None


def _name(graph: CutGraph, position: int) -> str:
    return str(graph.order[position].meta["qualname"])


def _common_path(names: tuple[str, ...]) -> str:
    parts = [name.split(".") for name in names]
    shared = 0
    while all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    return ".".join(parts[0][:shared])
