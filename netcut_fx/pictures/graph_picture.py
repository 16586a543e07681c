"""The graph, block by block from top to bottom: what is kept, where it was cut, what was cut away."""

from __future__ import annotations

from collections.abc import Sequence

from netcut_fx.pictures.graph_blocks import Block, blocks_of
from netcut_fx.pictures.svg import Element, drawing, number_text
from netcut_fx.result_candidates import Candidate, candidates_of
from netcut_fx.result_values import (
    NONE,
    Record,
    format_mflops,
    format_ms,
    format_percent,
    format_shape,
    mapping,
    shorten,
    text,
)

_WIDTH = 1080.0
_BOX_LEFT, _BOX_RIGHT = 132.0, 452.0
_CENTRE = (_BOX_LEFT + _BOX_RIGHT) / 2
_SHAPE_AT, _FLOPS_AT, _FLOPS_END, _CUT_AT = 474.0, 622.0, 752.0, 812.0
_TOP, _BOX, _GAP, _PILL = 44.0, 40.0, 24.0, 24.0
_CUT_GAP = 116.0
#: Vertical lanes for connections that pass by other boxes; the rest is drawn in the outermost.
_LANES, _LANE = 8, 11.0


def graph_picture(result: Record) -> Element:
    """Picture of `result`'s graph; it says so where there is none."""
    blocks, flow = blocks_of(result)
    if not blocks:
        picture = drawing(_WIDTH, 90, "No graph is recorded", "graph")
        picture.add("text", "no graph is recorded", x=_WIDTH / 2, y=50, class_="empty middle")
        return picture
    first_removed = next((row for row, block in enumerate(blocks) if not block.kept), None)
    tops: list[float] = []
    at = _TOP
    for row, block in enumerate(blocks):
        if row == first_removed:
            at += _CUT_GAP - _GAP
        tops.append(at)
        at += (_PILL if block.terminal else _BOX) + _GAP
    label = f"Graph of {text(result, 'model', 'the network')} in {len(blocks)} blocks"
    picture = drawing(_WIDTH, at + 4, label, "graph")
    _columns(picture)
    _connections(picture, blocks, tops, flow)
    largest = max((block.flops or 0.0 for block in blocks), default=0.0)
    candidates = {candidate.name: candidate for candidate in candidates_of(result)}
    for block, top in zip(blocks, tops, strict=True):
        _box(picture, block, top, largest)
        if block.frontiers:
            _frontier(picture, [candidates.get(name, Candidate(name, "unknown")) for name in block.frontiers], top)
    if first_removed is not None:
        _cut(picture, result, blocks, tops, flow)
    return picture


def _columns(picture: Element) -> None:
    picture.add("text", "block", x=_BOX_LEFT, y=20, class_="column")
    picture.add("text", "output shape", x=_SHAPE_AT, y=20, class_="column")
    picture.add("text", "MFLOPs", x=_FLOPS_AT, y=20, class_="column")
    picture.add("text", "if cut here: latency · validation accuracy", x=_CUT_AT - 12, y=20, class_="column")


def _bottom(block: Block, top: float) -> float:
    return top + (_PILL if block.terminal else _BOX)


def _connections(
    picture: Element, blocks: Sequence[Block], tops: Sequence[float], flow: frozenset[tuple[int, int]]
) -> None:
    """Straight arrows between neighbours, lanes on the left for everything that passes by."""
    ends: list[int] = []
    for source, target in sorted(flow, key=lambda pair: (pair[0], pair[1])):
        if target <= source:
            continue
        kind = "flow" if blocks[target].kept else "flow removed"
        start, end = _bottom(blocks[source], tops[source]), tops[target]
        if target == source + 1:
            picture.add("line", x1=_CENTRE, x2=_CENTRE, y1=start, y2=end - 5, class_=kind)
            _arrow(picture, _CENTRE, end, kind)
            continue
        # A lane is free again below the block where its last connection went in.
        lane = next((index for index, last in enumerate(ends) if last <= source), len(ends))
        if lane == len(ends):
            ends.append(target)
        ends[lane] = target
        lane = min(lane, _LANES - 1)
        x = _BOX_LEFT - 26 - lane * _LANE
        middle_a, middle_b = tops[source] + 0.72 * (start - tops[source]), end + 0.28 * _BOX
        path = (
            f"M{number_text(_BOX_LEFT)},{number_text(middle_a)}H{number_text(x + 6)}q-6,0 -6,6"
            f"V{number_text(middle_b - 6)}q0,6 6,6H{number_text(_BOX_LEFT - 5)}"
        )
        group = picture.add("g")
        group.tooltip(f"{blocks[source].label} → {blocks[target].label}")
        group.add("path", d=path, class_=kind)
        tip = f"M{number_text(_BOX_LEFT)},{number_text(middle_b)}l-6,-3.5v7z"
        group.add("path", d=tip, class_=f"{kind} tip")


def _arrow(picture: Element, x: float, y: float, kind: str) -> None:
    picture.add("path", d=f"M{number_text(x)},{number_text(y)}l-3.5,-6h7z", class_=f"{kind} tip")


def _box(picture: Element, block: Block, top: float, largest: float) -> None:
    group = picture.add("g", class_="block" if block.kept else "block removed")
    group.tooltip(
        block.label,
        f"{len(block.nodes)} nodes" if len(block.nodes) > 1 else "1 node",
        block.operations,
        f"output {block.shape}",
        f"{format_mflops(block.flops)} MFLOPs",
        "" if block.kept else "cut away",
    )
    if block.terminal:
        group.add("rect", x=_CENTRE - 70, y=top, width=140, height=_PILL, rx=_PILL / 2, class_="pill")
        group.add("text", shorten(block.label, 18), x=_CENTRE, y=top + 16, class_="block-name middle")
        group.add("text", block.shape, x=_SHAPE_AT, y=top + 16, class_="figure")
        return
    group.add("rect", x=_BOX_LEFT, y=top, width=_BOX_RIGHT - _BOX_LEFT, height=_BOX, rx=6, class_="box")
    if block.residual:
        _residual(group, top)
    group.add("text", shorten(block.label, 36), x=_BOX_LEFT + 14, y=top + 17, class_="block-name")
    note = f"{block.branches} branches, " if block.branches > 1 else ""
    note += "residual: " if block.residual else ""
    group.add("text", shorten(note + block.operations, 50), x=_BOX_LEFT + 14, y=top + 32, class_="block-note")
    group.add("text", shorten(block.shape, 22), x=_SHAPE_AT, y=top + _BOX / 2 + 4, class_="figure")
    content = format_mflops(block.flops)
    width = 0.0
    if block.flops and largest > 0:
        width = max(block.flops / largest * (_FLOPS_END - _FLOPS_AT - 44), 1.5)
        group.add("rect", x=_FLOPS_AT, y=top + _BOX / 2 - 5, width=width, height=10, rx=2, class_="flops-bar")
    group.add("text", content, x=_FLOPS_AT + (width + 6 if width else 0), y=top + _BOX / 2 + 4, class_="figure")


def _residual(group: Element, top: float) -> None:
    """Draw the short cut around the box that a residual block adds to its output."""
    x, start, end = _BOX_RIGHT - 14, top - 9, top + _BOX + 8
    path = f"M{number_text(_CENTRE)},{number_text(start)}H{number_text(x + 22)}q5,0 5,5"
    path += f"V{number_text(end - 5)}q0,5 -5,5H{number_text(_CENTRE + 5)}"
    group.add("path", d=path, class_="residual")
    group.add("circle", cx=_CENTRE, cy=end, r=4.5, class_="plus")
    group.add("path", d=f"M{number_text(_CENTRE - 2.5)},{number_text(end)}h5m-2.5,-2.5v5", class_="plus")


def _frontier(picture: Element, found: Sequence[Candidate], top: float) -> None:
    """Note what a cut at the end of this block would cost and give."""
    candidate = next((c for c in found if c.verdict == "chosen"), found[-1])
    group = picture.add("g", class_=f"mark tone-{candidate.tone}")
    group.tooltip(f"frontier {candidate.name} ({candidate.verdict})", candidate.reason)
    middle = top + _BOX / 2
    fill = "hollow" if candidate.measured_ms is None else "filled"
    group.add("circle", cx=_CUT_AT - 6, cy=middle, r=5, class_=fill)
    ms = candidate.best_ms
    content = "latency unknown" if ms is None else f"{format_ms(ms)} ms"
    content += f" · {format_percent(candidate.best_accuracy)}" if candidate.best_accuracy is not None else f" · {NONE}"
    if len(found) > 1:
        content += f"  (and {len(found) - 1} more)"
    kind = "figure strong" if candidate.verdict == "chosen" else "figure"
    group.add("text", content, x=_CUT_AT + 8, y=middle + 4, class_=kind)
    # Right of the longest such text; "feasible" is what most rows would repeat, and the colour says it.
    if candidate.verdict != "feasible":
        group.add("text", candidate.verdict, x=_WIDTH - 8, y=middle + 4, class_="verdict end")


def _cut(
    picture: Element, result: Record, blocks: Sequence[Block], tops: Sequence[float], flow: frozenset[tuple[int, int]]
) -> None:
    """Draw the line of the cut, and the new head that hangs on what crosses it."""
    chosen = mapping(result, "chosen")
    row = next(index for index, block in enumerate(blocks) if not block.kept)
    crossing = {source for source, target in flow if source < row <= target}
    last_bottom = _bottom(blocks[row - 1], tops[row - 1]) if row else _TOP
    line = tops[row] - 34
    picture.add("line", x1=12, x2=_WIDTH - 8, y1=line, y2=line, class_="cut-line")
    picture.add("text", "kept ↑", x=12, y=line - 8, class_="cut-text")
    removed = sum(len(block.nodes) for block in blocks[row:])
    picture.add("text", f"cut away ↓ ({removed} nodes)", x=12, y=line + 18, class_="cut-text quiet")
    # The head hangs on the right, so that the way into the removed part stays visible.
    top = last_bottom + 14
    left, width = _SHAPE_AT, 330.0
    name = f"cut at {shorten(text(chosen, 'frontier', 'unknown'), 44)}"
    picture.add("text", name, x=_WIDTH - 8, y=line - 8, class_="cut-text end")
    group = picture.add("g", class_="head")
    group.tooltip("the new head, trained for this task", _head_note(result), _crossing_note(len(crossing)))
    group.add("rect", x=left, y=top, width=width, height=_BOX, rx=6, class_="head-box")
    group.add("text", "new head", x=left + 14, y=top + 17, class_="block-name")
    group.add("text", shorten(_head_note(result), 50), x=left + 14, y=top + 32, class_="block-note")
    start = last_bottom + 6
    path = f"M{number_text(_CENTRE)},{number_text(start)}V{number_text(top + 14)}q0,6 6,6H{number_text(left - 5)}"
    picture.add("path", d=path, class_="flow head-flow")
    tip = f"M{number_text(left)},{number_text(top + 20)}l-6,-3.5v7z"
    picture.add("path", d=tip, class_="flow head-flow tip")


def _crossing_note(count: int) -> str:
    return f"it takes the outputs of {count} blocks (dashed lanes)" if count > 1 else ""


def _head_note(result: Record) -> str:
    head = mapping(result, "head")
    kind = text(head, "kind")
    hidden = head.get("hidden")
    parts = ["pooling"]
    if kind == "netcut" and hidden:
        parts.extend(f"FC {size}" for size in format_shape(hidden).split("×"))
    classes = text(head, "classes")
    parts.append(f"FC {classes}" if classes else "FC")
    return " → ".join(parts) if kind != "none" else "none: the crossing tensor is the output"
