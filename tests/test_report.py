"""The report: complete, honest about what is not known, self-contained, safe against hostile names, deterministic."""

from __future__ import annotations

import copy
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from netcut_fx.pictures.graph_blocks import MAX_BLOCKS, blocks_of
from netcut_fx.pictures.kernel_bars import bars_of, kernels_of
from netcut_fx.pictures.predicted_measured import compared, within_band
from netcut_fx.pictures.svg import Labels, round_ticks, tick_text
from netcut_fx.report import render, write_accuracy_latency_svg, write_report
from netcut_fx.report_headline import headline, tiles
from netcut_fx.result_candidates import Candidate, candidates_of, chosen_of, pareto, uncut_of
from netcut_fx.result_values import clean, format_ms, format_shape, number, shorten
from tests.sample_result import sample_result

HOSTILE = '</text><script>alert("x")</script><img src=x onerror=alert(1)>&amp;\x00'


class _Page(HTMLParser):
    """Elements, references and the table of frontiers of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.events: list[str] = []
        self.rows: list[list[str]] = []
        self._in_frontiers = False
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}:
                self.references.append(value or "")
            if name.startswith("on"):
                self.events.append(name)
        if tag == "table":
            self._in_frontiers = ("class", "frontiers") in attrs
        if tag == "tr" and self._in_frontiers:
            self.rows.append([])
        if tag == "td" and self._in_frontiers:
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell and self._in_frontiers:
            self.rows[-1][-1] += data


def _svgs(page: str) -> list[str]:
    return re.findall(r"<svg\b.*?</svg>", page, flags=re.DOTALL)


def _rows(page: str) -> dict[str, list[str]]:
    return {row[0]: row for row in _Page(page).rows if row}


def _nothing_chosen() -> dict[str, Any]:
    result = sample_result()
    result["chosen"] = None
    for candidate in result["candidates"]:
        for key in ("measured_ms", "measured_low_ms", "measured_high_ms", "validation_accuracy", "test_accuracy"):
            candidate[key] = None
        if candidate["verdict"] in ("chosen", "feasible"):
            candidate["verdict"] = "infeasible"
    result["deadline_ms"] = 0.3
    result["uncut"] = {}
    return result


def test_same_result_gives_same_bytes(tmp_path: Path) -> None:
    first = write_report(sample_result(), tmp_path / "a" / "report.html")
    second = write_report(sample_result(), tmp_path / "b" / "report.html")
    assert first == tmp_path / "a" / "report.html"
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ["report.html"], "no temporary file is left"


def test_result_is_left_as_it_was() -> None:
    result = sample_result()
    before = copy.deepcopy(result)
    render(result)
    assert result == before


def test_page_refers_to_nothing_outside_and_has_no_script() -> None:
    page = render(sample_result())
    parsed = _Page(page)
    assert [ref for ref in parsed.references if not ref.startswith(("data:", "#"))] == []
    assert re.findall(r"url\s*\(", page) == []
    assert "@import" not in page
    assert re.findall(r"https?://", page) == []
    assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & set(parsed.tags)
    assert "default-src 'none'" in page


def test_page_is_small() -> None:
    result = sample_result()
    result["candidates"] = [
        {**result["candidates"][index % 18], "name": f"features.denseblock{index}.conv2"} for index in range(600)
    ]
    result["graph"] = _chain(2000)
    assert len(render(sample_result()).encode()) < 150_000
    assert len(render(result).encode()) < 1_000_000


def test_every_candidate_and_the_uncut_network_are_in_the_table() -> None:
    result = sample_result()
    rows = _rows(render(result))
    assert set(rows) == {c["name"] for c in result["candidates"]} | {"efficientnet_lite0"}
    chosen = rows["_blocks.9"]
    assert chosen[1:5] == ["1×112×6×6", "84.9", "4.71 [4.56, 4.86]", "4.81"]
    assert chosen[8] == "chosen"
    assert "highest validation accuracy" in chosen[9]


def test_unknown_latency_reads_unknown_and_is_never_zero() -> None:
    page = render(sample_result())
    row = _rows(page)["_conv_head … _swish#2"]
    assert row[3] == "unknown"
    assert row[4] == "–"
    assert row[8] == "unknown"
    assert row[9] == "nothing covers opaque:einsum|1x320x3x3->1x1280|float32"
    assert "Not drawn, because latency or accuracy is unknown" in page


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "4.2", True])
def test_a_number_that_is_none_reads_unknown(value: object) -> None:
    result = sample_result()
    result["candidates"][3] |= {"predicted_ms": value, "quick_accuracy": value}
    result["kernels"][4] |= {"predicted_ms": value, "measured_ms": value}
    page = render(result)
    row = _rows(page)["_blocks.2"]
    assert row[3] == "unknown"
    assert row[5] == "–"
    assert (
        re.search(r"\b(nan|inf|None|True)\b", " ".join(cell for cells in _rows(page).values() for cell in cells))
        is None
    )
    unknown = [kernel for kernel in kernels_of(result) if kernel.ms is None]
    assert [kernel.label for kernel in unknown] == [result["kernels"][4]["origin"][0]]


def test_kind_with_an_unknown_kernel_has_an_unknown_sum() -> None:
    result = sample_result()
    result["kernels"][-1] |= {"predicted_ms": None, "measured_ms": None}
    page = render(result)
    row = re.search(r"</span>matmul</td>(.*?)</tr>", page)
    assert row is not None
    assert re.findall(r">([^<>]+)</td>", row.group(1)) == ["1", "unknown", "–", "–"]


def test_hostile_names_stay_text() -> None:
    result = sample_result()
    result["model"] = result["data"] = result["bundle"] = result["deadline_from"] = HOSTILE
    result["chosen"]["frontier"] = result["candidates"][10]["name"] = HOSTILE
    result["candidates"][2] |= {"name": HOSTILE + "2", "reason": HOSTILE, "verdict": HOSTILE, "shape": [[HOSTILE]]}
    result["candidates"][2]["provenance"] = {HOSTILE: 1.0}
    result["kernels"][0] |= {"origin": [HOSTILE], "name": HOSTILE, "kind": HOSTILE, "key": HOSTILE, "ops": [HOSTILE]}
    result["graph"]["nodes"][5] |= {"name": HOSTILE, "module": HOSTILE, "op": HOSTILE, "frontier": HOSTILE}
    result["decision"] = [HOSTILE]
    result["stages"] = [{"name": HOSTILE, "seconds": 1.0, "reused": False}]
    result["versions"] = {HOSTILE: HOSTILE}
    result["target"] = {HOSTILE: [HOSTILE]}
    result["head"] = {"kind": HOSTILE, "classes": HOSTILE}
    page = render(result)
    parsed = _Page(page)
    assert "script" not in parsed.tags
    assert "img" not in parsed.tags
    assert parsed.events == []
    assert "&lt;script&gt;" in page
    assert "\x00" not in page
    assert clean(HOSTILE) in _rows(page)
    for svg in _svgs(page):
        ET.fromstring(svg)


def test_half_a_surrogate_can_be_written(tmp_path: Path) -> None:
    result = sample_result()
    result["model"] = "caf\udce9"
    assert "caf\ufffd" in write_report(result, tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "result", [sample_result(), _nothing_chosen(), {}], ids=["finished", "nothing-chosen", "empty"]
)
def test_every_picture_is_valid_xml(result: dict[str, Any], tmp_path: Path) -> None:
    svgs = _svgs(render(result))
    assert len(svgs) == (4 if compared(result) else 3)
    for svg in svgs:
        root = ET.fromstring(svg)
        assert root.tag == "svg"
        assert root.attrib["aria-label"]
        numbers = [value for element in root.iter() for value in element.attrib.values() if "nan" in value.split(" ")]
        assert numbers == []
    alone = ET.parse(write_accuracy_latency_svg(result, tmp_path / "plot.svg")).getroot()
    assert alone.tag == "{http://www.w3.org/2000/svg}svg"
    assert alone.find("{http://www.w3.org/2000/svg}style") is not None


def test_headline_of_a_met_deadline() -> None:
    verdict = headline(sample_result())
    assert verdict.status == "met"
    assert verdict.title == "Cut efficientnet_lite0 at _blocks.9"
    assert verdict.sentence.replace("\u00a0", " ") == (
        "Measured 4.81 ms [4.78, 4.87] against a deadline of 5.26 ms (fraction 0.5 of uncut): met, 0.45 ms of slack. "
        "Test accuracy 98.1 % [96.0, 99.0] (95 % interval). "
        "Against the uncut network (10.52 ms, 98.9 %): 2.2× faster, 0.8 points less accurate "
        "(the 95 % intervals overlap)."
    )
    assert [tile.value for tile in tiles(sample_result())] == ["4.81", "98.1", "2.19", "1.10\u00a0M"]


def test_headline_of_a_missed_deadline() -> None:
    result = sample_result()
    result["deadline_ms"] = 4.5
    verdict = headline(result)
    assert verdict.status == "missed"
    assert "missed by 0.31\u00a0ms" in verdict.sentence


def test_headline_of_what_was_not_measured_does_not_claim_the_deadline() -> None:
    result = sample_result()
    for record in (result["chosen"], result["candidates"][10]):
        record |= {"measured_ms": None, "test_accuracy": None}
    verdict = headline(result)
    assert verdict.status == "predicted"
    assert "not measured" in verdict.sentence
    assert "Test accuracy unknown" in verdict.sentence
    assert "2.3× faster" in verdict.sentence, "prediction is compared with prediction"


def test_headline_where_nothing_met_the_deadline() -> None:
    result = _nothing_chosen()
    verdict = headline(result)
    assert verdict.status == "none"
    assert verdict.sentence.replace("\u00a0", " ") == (
        "Nothing was found to meet a deadline of 0.30 ms (fraction 0.5 of uncut). "
        "The fastest frontier is _conv_stem … _swish with 0.62 ms."
    )
    assert tiles(result) == ()
    page = render(result)
    assert "Nothing was both predicted and measured" in page
    assert "cut-line" not in page.split("</style>")[1]


def test_headline_where_all_latencies_are_unknown() -> None:
    result = {"model": "m", "deadline_ms": 3.0, "candidates": [{"name": "a", "verdict": "unknown"}]}
    assert "unknown never meets a deadline" in headline(result).sentence


@pytest.mark.parametrize("key", sorted(sample_result()))
@pytest.mark.parametrize("value", ["absent", None, [], {}, "text", 7, [None], [{}], {"frontier": None}])
def test_missing_or_odd_parts_do_not_break_the_report(key: str, value: Any) -> None:
    result = sample_result()
    if value == "absent":
        del result[key]
    else:
        result[key] = value
    page = render(result)
    assert page.endswith("</html>\n")
    for svg in _svgs(page):
        ET.fromstring(svg)


@pytest.mark.parametrize("list_key", ["candidates", "kernels", "stages"])
def test_entries_with_any_key_missing_do_not_break_the_report(list_key: str) -> None:
    for key in sample_result()[list_key][0]:
        result = sample_result()
        for record in result[list_key]:
            del record[key]
        assert render(result).endswith("</html>\n")


def test_chosen_entry_fills_in_what_its_candidate_lacks() -> None:
    result = sample_result()
    result["candidates"] = []
    chosen = chosen_of(result)
    assert chosen is not None
    assert (chosen.name, chosen.measured_ms, chosen.test_low) == ("_blocks.9", 4.81, 0.9598)


def test_accuracies_of_one_have_a_place_on_the_logarithmic_axis(tmp_path: Path) -> None:
    result = sample_result()
    result["candidates"][10]["validation_accuracy"] = 1.0
    svg = write_accuracy_latency_svg(result, tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert "error on a log scale" in svg
    assert "100\u00a0%" in svg


def test_one_candidate_alone_can_be_drawn() -> None:
    result = sample_result()
    result["candidates"] = [result["candidates"][10]]
    result["uncut"] = {}
    assert "_blocks.9" in render(result)


def test_deadline_far_to_the_right_does_not_squash_the_points(tmp_path: Path) -> None:
    result = sample_result()
    result["deadline_ms"] = 500.0
    svg = write_accuracy_latency_svg(result, tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert "deadline 500.0 ms is further right" in svg


def test_pareto_front_keeps_only_what_nothing_beats() -> None:
    def point(ms: float | None, accuracy: float | None) -> Candidate:
        return Candidate("c", "feasible", predicted_ms=ms, quick=accuracy)

    points = [
        point(1, 0.5),
        point(2, 0.4),
        point(2, 0.7),
        point(3, 0.7),
        point(None, 0.9),
        point(4, None),
        point(1, 0.3),
    ]
    assert pareto(points) == ((1, 0.5), (2, 0.7))


def test_measured_beats_predicted_and_retrained_beats_quick() -> None:
    chosen = chosen_of(sample_result())
    assert chosen is not None
    assert (chosen.best_ms, chosen.best_accuracy) == (4.81, 0.9833)


def test_comparison_counts_errors_relative_to_the_measurement() -> None:
    assert within_band(Candidate("c", "feasible", predicted_ms=9.1, measured_ms=10.0))
    assert not within_band(Candidate("c", "feasible", predicted_ms=8.9, measured_ms=10.0))
    assert not within_band(Candidate("c", "feasible", predicted_ms=None, measured_ms=10.0))
    page = render(sample_result())
    assert "4 of 4 predictions lie within ±10 %" in page
    assert "−2.1\u00a0%" in page


def test_many_kernels_become_the_slowest_ones_and_the_rest() -> None:
    kernels = kernels_of(sample_result())
    bars = bars_of(kernels)
    assert len(kernels) == 51
    assert len(bars) <= 44
    assert [bar.label for bar in bars[-2:]] == ["6 smaller kernels, kept", "3 smaller kernels, cut away"]
    assert sum(bar.ms or 0 for bar in bars) == pytest.approx(sum(kernel.ms or 0 for kernel in kernels))
    assert bars_of(kernels[:10]) == kernels[:10]


def _chain(count: int, kept: int | None = None) -> dict[str, Any]:
    """A network without modules: a chain of nodes with a long connection every 100."""
    nodes = [
        {"name": f"relu_{i}", "module": "", "op": "relu", "shape": [1, 8], "flops": 8, "kept": i < (kept or count // 2)}
        for i in range(count)
    ]
    edges = [[i, i + 1] for i in range(count - 1)] + [[i, i + 90] for i in range(0, count - 90, 100)]
    return {"nodes": nodes, "edges": edges}


def test_graph_collapses_into_its_blocks() -> None:
    blocks, flow = blocks_of(sample_result())
    names = [block.label for block in blocks]
    assert names == [
        "x",
        "_conv_stem … _swish",
        *(f"_blocks.{i}" for i in range(16)),
        "_conv_head … _swish",
        "_avg_pooling … _fc",
        "output",
    ]
    assert [block.kept for block in blocks] == [True] * 12 + [False] * 9
    assert [block.label for block in blocks if block.residual] == [
        f"_blocks.{i}" for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)
    ]
    assert blocks[11].frontiers == ("_blocks.9",)
    assert flow == {(row, row + 1) for row in range(len(blocks) - 1)}


@pytest.mark.parametrize("count", [1, 5, 36, 37, 2000])
def test_graph_without_modules_does_not_explode(count: int) -> None:
    result = sample_result()
    result["graph"] = _chain(count, kept=max(1, count // 3))
    blocks, flow = blocks_of(result)
    assert 1 <= len(blocks) <= MAX_BLOCKS
    assert sorted(node for block in blocks for node in block.nodes) == list(range(count))
    assert all(source < target for source, target in flow)
    assert all(len({result["graph"]["nodes"][i]["kept"] for i in block.nodes}) == 1 for block in blocks)


def test_deep_module_structure_is_cut_off_where_boxes_become_too_many() -> None:
    names = [f"features.denseblock{b}.denselayer{i}.conv{c}" for b in range(12) for i in range(16) for c in (1, 2)]
    nodes = [{"name": name, "module": name.rpartition(".")[0], "op": "conv2d", "kept": True} for name in names]
    result = {"graph": {"nodes": nodes, "edges": [[i, i + 1] for i in range(len(nodes) - 1)]}}
    assert [block.label for block in blocks_of(result)[0]] == [f"features.denseblock{b}" for b in range(12)]


def test_operations_of_numbered_modules_are_named_by_a_word() -> None:
    nodes = [
        {"name": f"features.{b}.conv.{i}", "module": f"features.{b}.conv", "op": "call_module"}
        for b in range(9)
        for i in (0, 1)
    ]
    blocks, _ = blocks_of({"graph": {"nodes": nodes, "edges": []}})
    assert [block.label for block in blocks] == [f"features.{b}" for b in range(9)]
    assert {block.operations for block in blocks} == {"conv ×2"}


def test_interval_of_the_uncut_measurement_has_two_spellings() -> None:
    plain, long = sample_result(), sample_result()
    long["uncut"]["measured_low_ms"] = long["uncut"].pop("low_ms")
    long["uncut"]["measured_high_ms"] = long["uncut"].pop("high_ms")
    assert uncut_of(plain) == uncut_of(long)
    assert uncut_of(long).measured_low_ms == 10.41


def test_connections_between_odd_nodes_are_ignored() -> None:
    result = sample_result()
    result["graph"]["edges"] += [[0, 10_000], ["a", 1], [3], None, 7, [-1, 2]]
    assert blocks_of(result)[1] == blocks_of(sample_result())[1]


def test_labels_never_overlap() -> None:
    labels = Labels((0, 0, 200, 100))
    placed = [labels.place(100, 50, "name", size=10, gap=5) for _ in range(30)]
    assert None in placed, "there is not room for all"
    assert len({spot for spot in placed if spot}) == len([spot for spot in placed if spot])
    boxes = labels.taken
    assert not any(
        a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for i, a in enumerate(boxes) for b in boxes[:i]
    )


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 10, 5, (0, 2, 4, 6, 8, 10)),
        (0, 0.7, 7, (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
        (3.6, 11.5, 6, (4, 6, 8, 10)),
        (5, 5, 3, (5,)),
    ],
)
def test_ticks_are_round(low: float, high: float, count: int, expected: tuple[float, ...]) -> None:
    assert round_ticks(low, high, count) == pytest.approx(expected)


def test_tick_text_has_the_decimals_that_tell_ticks_apart() -> None:
    assert [tick_text(tick, (0.0, 0.2, 0.4)) for tick in (0.0, 0.2)] == ["0.0", "0.2"]
    assert tick_text(20.0, (0.0, 10.0, 20.0)) == "20"
    assert tick_text(3.0, (3.0,)) == "3"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "unknown"),
        (0.0, "0"),
        (0.0042, "0.0042"),
        (0.052, "0.052"),
        (0.62, "0.62"),
        (4.806, "4.81"),
        (250.04, "250.0"),
    ],
)
def test_milliseconds_have_digits_worth_reading(value: float | None, expected: str) -> None:
    assert format_ms(value) == expected


def test_reading_values() -> None:
    assert number({"a": 3}, "a") == 3.0
    assert number({"a": 10**400}, "a") is None
    assert format_shape([[1, 8, 4, 4], [1, 16]]) == "1×8×4×4 + 1×16"
    assert shorten("features.denseblock3.denselayer12.conv2", 20) == "feature…ayer12.conv2"
    assert [c.name for c in candidates_of(sample_result())][:2] == ["_conv_stem … _swish", "_blocks.0"]


def test_importing_the_report_imports_neither_torch_nor_tvm() -> None:
    code = "import sys, netcut_fx.report; print([m for m in ('torch', 'tvm', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
