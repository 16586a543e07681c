"""The fusion rules on small graphs whose answer is known, and what every partition must be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from netcut_fx.fusion import fuse
from netcut_fx.ops import Pattern

ADD, BIAS, MOVE, SUM, CONV, OTHER = (
    Pattern.ELEMENTWISE,
    Pattern.BROADCAST,
    Pattern.INJECTIVE,
    Pattern.REDUCTION,
    Pattern.OUT_FUSABLE,
    Pattern.OPAQUE,
)


def partition(nodes: dict[str, Pattern], edges: str, limit: int = 256) -> list[str]:
    """Groups as joined names; edges as ``"a-b b-c"``; nodes that nobody uses are returned."""
    graph: nx.DiGraph = nx.DiGraph()
    pairs = [tuple(edge.split("-")) for edge in edges.split()]
    used = {source for source, _ in pairs}
    for name, pattern in nodes.items():
        graph.add_node(name, pattern=pattern, escapes=name not in used)
    graph.add_edges_from(pairs)
    return ["".join(map(str, group)) for group in fuse(graph, max_operations=limit)]


def chain(*patterns: Pattern) -> list[str]:
    names = "abcdefgh"[: len(patterns)]
    return partition(dict(zip(names, patterns, strict=True)), " ".join(f"{x}-{y}" for x, y in pairwise(names)))


def test_a_convolution_takes_what_follows_element_by_element() -> None:
    assert chain(CONV, ADD, ADD) == ["abc"]
    assert chain(CONV, ADD, CONV, ADD) == ["ab", "cd"]


def test_a_convolution_does_not_take_broadcasts_or_rearrangements() -> None:
    assert chain(CONV, BIAS) == ["a", "b"]
    assert chain(CONV, MOVE) == ["a", "b"]


def test_nothing_is_fused_in_front_of_a_convolution() -> None:
    assert chain(ADD, CONV) == ["a", "b"]
    assert chain(MOVE, CONV, ADD) == ["a", "bc"]


def test_element_wise_operations_join_a_reduction_behind_them() -> None:
    assert chain(ADD, ADD, SUM) == ["abc"]
    assert chain(SUM, ADD) == ["a", "b"]


def test_rearrangements_join_one_another_and_what_is_element_wise() -> None:
    assert chain(MOVE, MOVE, ADD) == ["abc"]
    assert chain(ADD, MOVE) == ["ab"]
    assert chain(MOVE, SUM) == ["a", "b"]


def test_opaque_operations_stay_alone() -> None:
    assert chain(ADD, OTHER, ADD) == ["a", "b", "c"]


def test_branches_that_meet_again_are_fused_as_one() -> None:
    diamond = "a-b a-c b-d c-d"
    assert partition({"a": CONV, "b": ADD, "c": ADD, "d": ADD}, diamond) == ["abcd"]
    assert partition({"a": ADD, "b": ADD, "c": ADD, "d": ADD}, diamond) == ["abcd"]


def test_a_branch_with_a_convolution_keeps_the_others_apart() -> None:
    # Squeeze-and-excitation: x * gate(mean(x)).
    nodes = {"x": ADD, "m": CONV, "c": CONV, "g": ADD, "p": ADD}
    assert partition(nodes, "x-m m-c c-g g-p x-p") == ["x", "m", "cgp"]


def test_of_two_convolutions_that_meet_the_first_takes_the_sum() -> None:
    assert partition({"a": CONV, "b": CONV, "s": ADD, "r": ADD}, "a-s b-s s-r") == ["b", "asr"]


def test_what_is_returned_is_no_path_to_something_else() -> None:
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_node("a", pattern=CONV, escapes=True)
    graph.add_node("b", pattern=ADD, escapes=True)
    graph.add_edge("a", "b")
    assert fuse(graph) == [["a"], ["b"]]


def test_groups_stop_at_the_limit() -> None:
    nodes = dict.fromkeys("abcd", ADD)
    assert partition(nodes, "a-b b-c c-d", limit=2) == ["ab", "cd"]


def test_depth_is_not_limited_by_recursion() -> None:
    graph: nx.DiGraph = nx.DiGraph()
    for i in range(5000):
        graph.add_node(i, pattern=CONV if i % 3 == 0 else ADD, escapes=i == 4999)
    nx.add_path(graph, range(5000))
    groups = fuse(graph)
    assert [len(group) for group in groups[:-1]] == [3] * (len(groups) - 1)


@st.composite
def graphs(draw: st.DrawFn) -> nx.DiGraph:
    count = draw(st.integers(1, 14))
    graph: nx.DiGraph = nx.DiGraph()
    for i in range(count):
        kinds = [ADD, ADD, BIAS, MOVE, SUM, CONV, OTHER]
        graph.add_node(i, pattern=draw(st.sampled_from(kinds)), escapes=False)
        for source in draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else []:
            graph.add_edge(source, i)
    for i in graph:
        graph.nodes[i]["escapes"] = not list(graph.successors(i)) or draw(st.booleans())
    return graph


@given(graphs())
def test_a_partition_can_be_run_group_by_group(graph: nx.DiGraph) -> None:
    groups = fuse(graph)
    assert sorted(n for group in groups for n in group) == sorted(graph)
    of = {node: i for i, group in enumerate(groups) for node in group}
    quotient: nx.DiGraph = nx.DiGraph()
    quotient.add_nodes_from(range(len(groups)))
    quotient.add_edges_from((of[a], of[b]) for a, b in graph.edges if of[a] != of[b])
    assert nx.is_directed_acyclic_graph(quotient)
    for group in groups:
        check_group(graph, group)


def check_group(graph: nx.DiGraph, group: Sequence[object]) -> None:
    part = graph.subgraph(group)
    assert nx.is_weakly_connected(part)
    assert sum(graph.nodes[n]["pattern"] is CONV for n in group) <= 1
    assert len(group) == 1 or all(graph.nodes[n]["pattern"] is not OTHER for n in group)
    # Only the last result leaves a group: everything before it is consumed inside.
    for node in group[:-1]:
        assert not graph.nodes[node]["escapes"]
        assert set(graph.successors(node)) <= set(group)
