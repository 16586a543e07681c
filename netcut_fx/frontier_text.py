"""A network's text form with its frontiers marked, made to be compared with ``diff``.

A mark stands behind the last node that crosses the cut::

      layer1.0.relu = ReLU(layer1.0.add) -> float32[1, 8, 16, 16]
    --- frontier layer1.0 width=1 float32[1, 8, 16, 16] kept +1,184 params

The parameters are those that this frontier keeps beyond the last single tensor that could be cut at (all that lies in
front of that one lies in front of this one too). A running total would change on every later mark when one layer
changes; it stands in the table, as do operations and milliseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from netcut_fx.graph import Frontier, TracedModule
from netcut_fx.text import to_text


def frontier_text(traced: TracedModule, found: Sequence[Frontier]) -> str:
    """`netcut_fx.text.to_text` of `traced` with a mark for each frontier, ending in a newline.

    Parameters
    ----------
    traced : TracedModule
    found : sequence of Frontier
        Of this network, from shallow to deep.

    Returns
    -------
    str
        The same in every process, whatever the weights.
    """
    place = {node.name: index for index, node in enumerate(traced.nodes)}
    behind: dict[str, list[Frontier]] = defaultdict(list)
    for frontier in found:
        last = traced.by_name[max(frontier.nodes, key=place.__getitem__)]
        behind[str(last.meta["qualname"])].append(frontier)
    lines: list[str] = []
    kept = 0
    for line in to_text(traced).splitlines():
        lines.append(line)
        # A node's line is "  name = ..."; the list of weights, which comes last, has no such sign.
        name, sign, _ = line.strip().partition(" = ")
        for frontier in behind.pop(name, ()) if sign else ():
            lines.append(_mark(traced, frontier, frontier.kept_params - kept))
            kept = frontier.kept_params if frontier.width == 1 else kept
    return "\n".join(lines) + "\n"


def _mark(traced: TracedModule, frontier: Frontier, added: int) -> str:
    if frontier.width == 1:
        crossing = str(frontier.specs[0])
    else:
        names = (str(traced.by_name[name].meta["qualname"]) for name in frontier.nodes)
        crossing = f"({', '.join(f'{name}: {spec}' for name, spec in zip(names, frontier.specs, strict=True))})"
    return f"--- frontier {frontier.name} width={frontier.width} {crossing} kept +{added:,} params"
