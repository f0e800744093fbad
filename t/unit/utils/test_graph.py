import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils.graph import CycleError, DependencyGraph, GraphFormatter


def test_things_come_after_what_they_need():
    graph = DependencyGraph([("a", ["b", "d"]), ("b", ["c"]), ("c", []), ("d", [])])
    assert graph.topsort() == ["c", "b", "d", "a"]
    assert list(graph.edges()) == ["a", "b"]
    assert (graph.valency_of("a"), graph.valency_of("c"), graph.valency_of("unknown")) == (3, 0, 0)
    assert (list(graph), len(graph), "a" in graph, graph["b"]) == (["a", "b", "c", "d"], 4, True, ["c"])
    assert dict(graph.items()) == graph.adjacent


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60))
def test_any_graph_without_circles_is_sorted(pairs):
    graph = DependencyGraph()
    for needing, needed in pairs:
        if needing == needed:
            continue
        needing, needed = max(needing, needed), min(needing, needed)
        graph.add_arc(needing)
        graph.add_arc(needed)
        graph.add_edge(needing, needed)
    order = graph.topsort()
    assert sorted(order) == sorted(graph)
    for thing, needed in graph.items():
        assert all(order.index(other) < order.index(thing) for other in needed)


def test_a_circle_is_named():
    with pytest.raises(CycleError, match="a → b → a"):
        DependencyGraph([("x", ["a"]), ("a", ["b"]), ("b", ["a"])]).topsort()


def test_edges_need_their_start():
    with pytest.raises(KeyError):
        DependencyGraph().add_edge("a", "b")


def test_graphs_are_connected():
    one, other = DependencyGraph([("a", [])]), DependencyGraph([("b", ["a"])])
    one.connect(other)
    assert one.topsort() == ["a", "b"]
    assert repr(other) == "b(1)\n     a(0)"
    assert other.format("x") == "x"


def test_a_graph_is_drawn():
    out = io.StringIO()
    DependencyGraph([("a", ["b"]), ("b", [])]).to_dot(out)
    lines = out.getvalue().splitlines()
    assert lines[0] == "digraph dependencies {"
    assert lines[-1] == "}"
    assert len([line for line in lines if line.startswith('    "a" -> "b" [')]) == 1
    assert len([line for line in lines if line.startswith('    "b" [')]) == 1
    assert 'fillcolor="palegreen1"' in out.getvalue()


def test_looks_can_be_changed():
    formatter = GraphFormatter(root="r", type="graph", id="g", indent=1, shape="circle")
    assert formatter.head().startswith(b"    graph g {\n") or formatter.head().startswith(b"graph g {\n")
    assert b'shape="circle"' in formatter.node("x")
    assert b'"x" -- "y"' in formatter.edge("x", "y")
    assert formatter.terminal_node("x", color="red").endswith(b'color="red"]')
    assert formatter.attr("a", "b") == b'a="b"'
