"""A network from top to bottom with every place where it can be cut: lines across the tensors that cross."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from netcut_fx.frontier_facts import FrontierFacts
from netcut_fx.graph import TracedModule
from netcut_fx.pictures.frontier_columns import columns, heading
from netcut_fx.pictures.frontier_lanes import Lanes
from netcut_fx.pictures.frontier_rows import Mark, Row, Rows, rows_of
from netcut_fx.pictures.style import style_sheet
from netcut_fx.pictures.svg import Element, drawing, number_text, standalone, text_width
from netcut_fx.result_values import format_count, format_mflops, shorten

_BOX_WIDTH = 400.0
_TOP, _PILL, _BLOCK, _NODE = 76.0, 24.0, 42.0, 24.0
_PILL_WIDTH, _LINE = 220.0, 19.0
#: Lines drawn behind one row, and in all; further ones are counted.
_LINES_PER_ROW, _LINES = 8, 600


@dataclass(frozen=True)
class _Place:
    """Where everything is: top and height of each row, and which marks have a line."""

    tops: list[float]
    heights: list[float]
    marks: dict[int, list[Mark]]
    more: dict[int, list[Mark]]
    framed: list[bool]
    left: float
    end: float

    @property
    def right(self) -> float:
        return self.left + _BOX_WIDTH

    @property
    def centre(self) -> float:
        return self.left + _BOX_WIDTH / 2

    def edge(self, row: Row) -> float:
        """Left edge of what is drawn for `row`."""
        return self.centre - _PILL_WIDTH / 2 if row.kind in ("input", "output") else self.left

    def bottom(self, row: int) -> float:
        return self.tops[row] + self.heights[row]


def frontier_svg(traced: TracedModule, facts: Sequence[FrontierFacts], *, granularity: str) -> str:
    """The picture as an SVG file of its own, without any reference to another file; see `frontier_picture`."""
    style = style_sheet("colours.css", "pictures.css", "frontier_picture.css")
    return standalone(frontier_picture(traced, facts, granularity=granularity), style)


def frontier_picture(traced: TracedModule, facts: Sequence[FrontierFacts], *, granularity: str) -> Element:
    """Draw `traced` with the frontiers in `facts`.

    Parameters
    ----------
    traced : TracedModule
    facts : sequence of FrontierFacts
        Of this network, from shallow to deep.
    granularity : str
        With ``"block"`` a box is a block, else a node, framed by its block; what would be too many nodes becomes
        chains or modules.

    Returns
    -------
    Element
        At most some 240 boxes and 600 cuts, unless there are more blocks.
    """
    arranged = rows_of(traced, facts, blocks_only=granularity == "block")
    lanes = Lanes.of(arranged.flows)
    place = _placed(arranged, lanes)
    shown = columns([m.facts for marks in place.marks.values() for m in marks], place.right + 48)
    label = f"{traced.name}: {len(facts)} {granularity} frontier{'' if len(facts) == 1 else 's'}"
    picture = drawing(shown[-1].right + 16, place.end, label, "frontier-graph")
    picture.add("title", label)
    picture.add(
        "desc",
        "The network from its inputs at the top to its output. Each dashed line is a cut; dots mark the edges that "
        "it cuts, and its row says what is kept above it.",
    )
    picture.add("text", label, x=16, y=26, class_="title")
    picture.add(
        "text", "dashed line: a cut; dots: the edges that it cuts; kept: what lies above", x=16, y=44, class_="quiet"
    )
    heading(picture, shown, _TOP - 12)
    _frames(picture, arranged.rows, place)
    _flows(picture, arranged, place, lanes)
    for index, row in enumerate(arranged.rows):
        _box(picture, row, place, index)
    for index, marks in sorted(place.marks.items()):
        for number, mark in enumerate(marks):
            y = place.bottom(index) + 11 + number * _LINE
            _mark(picture, mark, arranged, place, lanes, y, shown[0].left)
            for column in shown:
                column.write(picture, mark.facts, y + 4)
        if index in place.more:
            names = [m.facts.frontier.name for m in place.more[index]]
            y = place.bottom(index) + 11 + len(marks) * _LINE
            _more(picture, f"and {len(names)} more behind this box", names, shown[0].left, y + 4)
    return picture


def _placed(arranged: Rows, lanes: Lanes) -> _Place:
    marks: dict[int, list[Mark]] = defaultdict(list)
    for mark in arranged.marks:
        marks[mark.row].append(mark)
    sizes = [len(found) for found in marks.values()]
    fitting = (n for n in range(_LINES_PER_ROW, 1, -1) if sum(min(n, size) for size in sizes) <= _LINES)
    most = next(fitting, 1)
    more = {row: found[most:] for row, found in marks.items() if len(found) > most}
    drawn = {row: found[:most] for row, found in marks.items()}
    groups = [row.group for row in arranged.rows]
    framed = [
        bool(group) and group in (groups[max(i - 1, 0) : i] + groups[i + 1 : i + 2]) for i, group in enumerate(groups)
    ]
    tops: list[float] = []
    heights: list[float] = []
    at = _TOP
    for index, row in enumerate(arranged.rows):
        tops.append(at)
        heights.append({"block": _BLOCK, "node": _NODE}.get(row.kind, _PILL))
        lines = len(drawn.get(index, ())) + (index in more)
        at += heights[-1] + max(20.0 if row.kind == "block" else 15.0, lines * _LINE + 9)
        if index + 1 < len(groups) and groups[index + 1] != row.group:
            at += 20 if framed[index + 1] else 8 * framed[index]
    return _Place(tops, heights, drawn, more, framed, left=40 + lanes.width, end=at)


def _frames(picture: Element, rows: Sequence[Row], place: _Place) -> None:
    """Around neighbouring rows of one block."""
    start = 0
    for index in range(1, len(rows) + 1):
        if index < len(rows) and rows[index].group == rows[start].group:
            continue
        if place.framed[start]:
            top, bottom = place.tops[start] - 18, place.bottom(index - 1) + 7
            width = _BOX_WIDTH + 18
            picture.add("rect", x=place.left - 9, y=top, width=width, height=bottom - top, rx=8, class_="frame")
            name = shorten(rows[start].group, 31)
            picture.add("text", name, x=place.left, y=top + 13, class_="frame-name")
        start = index


def _flows(picture: Element, arranged: Rows, place: _Place, lanes: Lanes) -> None:
    """Straight arrows to the next row; one lane for each tensor that goes further."""
    straight: dict[int, list[str]] = defaultdict(list)
    for index, flow in enumerate(arranged.flows):
        if flow.targets[0] == flow.source + 1:
            straight[flow.source].append(flow.name)
        far = [t for t in flow.targets if t > flow.source + 1]
        if not far:
            continue
        x = place.left - lanes.offset(index)
        start = place.tops[flow.source] + 0.75 * place.heights[flow.source]
        taps = [(place.edge(arranged.rows[t]), place.tops[t] + 0.25 * place.heights[t]) for t in far]
        path = f"M{number_text(place.edge(arranged.rows[flow.source]))},{number_text(start)}"
        path += f"H{number_text(x + 4)}q-4,0 -4,4V{number_text(taps[-1][1] - 4)}"
        path += "".join(f"M{number_text(x)},{number_text(y - 4)}q0,4 4,4H{number_text(end - 5)}" for end, y in taps)
        tips = "".join(f"M{number_text(end)},{number_text(y)}l-6,-3v6z" for end, y in taps)
        group = picture.add("g").tooltip(f"{flow.name} → {', '.join(arranged.rows[t].label for t in far[:8])}")
        group.add("path", d=path, class_="flow")
        group.add("path", d=tips, class_="flow tip")
    for source, names in straight.items():
        y0, y1 = number_text(place.bottom(source)), place.tops[source + 1]
        xs = [number_text(x) for x in _straight_xs(place, len(names))]
        group = picture.add("g").tooltip(", ".join(names[:8]))
        group.add("path", d="".join(f"M{x},{y0}V{number_text(y1 - 5)}" for x in xs), class_="flow")
        group.add("path", d="".join(f"M{x},{number_text(y1)}l-3.5,-6h7z" for x in xs), class_="flow tip")


def _straight_xs(place: _Place, count: int) -> list[float]:
    step = min(10.0, 0.8 * _BOX_WIDTH / count)
    return [place.centre + step * (i - (count - 1) / 2) for i in range(count)]


def _box(picture: Element, row: Row, place: _Place, index: int) -> None:
    top, height = place.tops[index], place.heights[index]
    group = picture.add("g", class_="block")
    if row.kind in ("input", "output"):
        group.tooltip(row.label, row.shape)
        group.add("rect", x=place.edge(row), y=top, width=_PILL_WIDTH, height=height, rx=height / 2, class_="pill")
        group.add("text", f"{shorten(row.label, 18)}  {row.shape}", x=place.centre, y=top + 16, class_="middle")
        return
    figures = [f"{format_count(row.params)} params" if row.params else ""]
    figures += [f"{'' if row.flops_known else '≥ '}{format_mflops(row.flops)} MFLOPs" if row.flops else ""]
    own = " · ".join(filter(None, figures))
    count = "" if row.count == 1 else f"{row.count} nodes"
    group.tooltip(row.label, row.note, count, f"output {row.shape}", own)
    group.add("rect", x=place.left, y=top, width=_BOX_WIDTH, height=height, rx=6, class_="box")
    if row.kind == "block":
        shape = shorten(row.shape, 22)
        room = int((_BOX_WIDTH - 36 - text_width(shape, 12)) / text_width("x", 12, mono=True))
        group.add("text", shorten(row.label, room), x=place.left + 12, y=top + 17, class_="block-name")
        group.add("text", shape, x=place.right - 12, y=top + 17, class_="end")
        note = _fit(row.note, _BOX_WIDTH - 44 - text_width(own, 11), 11)
        group.add("text", note, x=place.left + 12, y=top + 33, class_="block-note")
        group.add("text", own, x=place.right - 12, y=top + 33, class_="block-note end")
    else:
        group.add(
            "text",
            shorten(_within(row, framed=place.framed[index]), 26),
            x=place.left + 12,
            y=top + 16,
            class_="block-name",
        )
        shape = shorten(row.shape, 18)
        note = _fit(row.note, _BOX_WIDTH - 240 - text_width(shape, 12), 11)
        group.add("text", note, x=place.left + 206, y=top + 16, class_="block-note")
        group.add("text", shape, x=place.right - 12, y=top + 16, class_="end")
    if row.inside:
        names = ", ".join(row.inside[:3]) + (", …" if len(row.inside) > 3 else "")
        what = f"{len(row.inside)} inside: {names}"
        _more(picture, shorten(what, 90), row.inside, place.right + 48, top + height / 2 + 4)


def _fit(content: str, width: float, size: float) -> str:
    """`content`, its end left out where it is wider than `width`."""
    # Room for wide glyphs: what is cut off too early still stands in the tooltip.
    most = int(width / text_width("x", size, mono=True))
    return content if len(content) <= most else content[: max(most - 1, 1)].rstrip(" ,") + "…"


def _within(row: Row, *, framed: bool) -> str:
    """Label of a row without the path of the block that its frame names; a block that is one row has its name."""
    if framed:
        return row.label.removeprefix(f"{row.group}.")
    return row.label if row.count == 1 or row.group in ("", "stem", "head") else row.group


def _more(picture: Element, content: str, names: Sequence[str], x: float, y: float) -> None:
    group = picture.add("g").tooltip("frontiers:", *names[:40], "…" if len(names) > 40 else "")
    group.add("text", content, x=x, y=y, class_="quiet")


def _mark(picture: Element, mark: Mark, arranged: Rows, place: _Place, lanes: Lanes, y: float, end: float) -> None:
    """The line of one cut, with a dot on every edge that it cuts.

    An edge that ends above the line belongs to a branch that is removed though it stands there: a dotted line leads
    from the box that it leaves.
    """
    below = mark.row + 1
    straight = [i for i, f in enumerate(arranged.flows) if f.source == mark.row and f.targets[0] == below]
    places = dict(zip(straight, _straight_xs(place, max(len(straight), 1)), strict=False))
    dots: list[tuple[float, float]] = [(places[i], y) for i in mark.flows if i in places]
    corners: list[tuple[float, float]] = []
    for index in mark.flows:
        flow = arranged.flows[index]
        if flow.targets[-1] > max(flow.source + 1, mark.row):
            dots.append((place.left - lanes.offset(index), y))
        elif index not in places:
            corners.append((place.right, place.tops[flow.source] + 0.6 * place.heights[flow.source]))
    start = min([x for x, _ in dots], default=place.centre) - 12
    path = f"M{number_text(start)},{number_text(y)}H{number_text(end - 8)}"
    group = picture.add("g", class_="mark")
    shown = [f"{t.name}: {t.spec}" + (f", pooled {t.pool}" if t.pool else "") for t in mark.facts.tensors[:12]]
    rest = mark.facts.frontier.width - len(shown)
    group.tooltip(f"frontier {mark.facts.frontier.name}", *shown, f"and {rest} more" if rest else "")
    group.add("path", d=path, class_="cut-line")
    if corners:
        ways = "".join(
            f"M{number_text(x)},{number_text(up)}h{12 + 3 * (mark.row % 4)}V{number_text(y)}" for x, up in corners
        )
        group.add("path", d=ways, class_="corner")
    spots = "".join(
        f"M{number_text(x - 3.5)},{number_text(at)}a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0" for x, at in [*dots, *corners]
    )
    group.add("path", d=spots, class_="dots")
