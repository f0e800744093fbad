import json
from ast import literal_eval
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery.utils.saferepr import reprstream, saferepr

FACTS = json.loads((Path(__file__).parents[2] / "facts" / "saferepr.json").read_text())["cases"]

ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
)


def test_recorded_values_give_the_recorded_text():
    wrong = [case for case in FACTS if saferepr(literal_eval(case[0]), case[1]) != case[2]]
    assert wrong == []
    assert len(FACTS) > 200


@settings(max_examples=60)
@given(VALUES)
def test_the_short_way_and_the_long_way_agree(value):
    assert saferepr(value, 1024) == saferepr(value, 1024, seen=set())


@settings(max_examples=60)
@given(VALUES, st.integers(0, 100))
def test_the_text_is_not_much_longer_than_allowed(value, maxlen):
    # 3 levels of brackets, a suffix at each, and what a cut value is put between; hexadecimal digits double a value
    assert len(saferepr(value, maxlen)) <= 2 * maxlen + 40


@given(st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3) | st.tuples(inner), max_leaves=5))
def test_brackets_are_closed_however_short(value):
    for maxlen in range(20):
        text = saferepr(value, maxlen)
        assert text.count("[") == text.count("]")
        assert text.count("(") == text.count(")")


def test_circles_end():
    circle = [1]
    circle.append(circle)
    assert saferepr(circle) == f"[1, <Recursion on list with id={id(circle)}>]"
    box = {}
    box["self"] = box
    assert "Recursion on dict" in saferepr(box)


def test_the_same_object_twice_is_no_circle():
    item = ["it's"]
    assert saferepr([item, item]) == "[['it\\'s'], ['it\\'s']]"


class Broken:
    def __repr__(self):
        raise ValueError("cannot")


class Worse(Broken):
    def __repr__(self):
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError

        raise Mute


@pytest.mark.parametrize("value", [Broken(), [Broken()], {"a": Worse()}, 10**5000], ids=["one", "list", "dict", "int"])
def test_what_cannot_be_shown_is_named(value):
    assert "Unrepresentable <class" in saferepr(value)


def test_huge_values_are_cut_before_they_are_written_out():
    text = saferepr(("x" * 50_000_000, list(range(1000))), 60)
    assert len(text) < 80


def test_a_container_that_changes_meanwhile_does_no_harm():
    class Growing(dict):
        def items(self):
            self[len(self)] = 1
            return super().items()

    assert saferepr(Growing(a="it's")).startswith("{'a'")


def test_pieces_come_one_by_one():
    assert [token.text for token in reprstream(deque([[1, (2,)]]))] == ["1", "(", "2", ",)"]
