import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils import text
from celery.utils.text import WhateverIO, abbr, abbrtask, ensure_sep, pretty, simple_format, truncate


@pytest.mark.parametrize(
    ("value", "size", "expected"),
    [("hello", 5, "hello"), ("hello world", 8, "hello..."), ("hello", 3, "..."), (None, 4, "???"), ("", 4, "")],
)
def test_text_is_abbreviated(value, size, expected):
    assert abbr(value, size) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(10, "[.]refresh"), (15, "feeds[.]refresh"), (30, "feeds.tasks.refresh")]
)
def test_task_names_keep_their_last_part(size, expected):
    assert abbrtask("feeds.tasks.refresh", size) == expected
    assert abbrtask(None, size) == "???"


def test_text_is_cut_between_words():
    assert truncate("hello wide world", 12) == "hello wide..."
    assert truncate("hello", 6) == "hello"


@given(st.text(), st.integers(1, 50))
def test_cut_text_is_never_longer_than_the_limit_and_its_suffix(value, size):
    assert len(truncate(value, size, "..")) <= size + 2
    assert len(abbr(value, size, "")) <= size


def test_formats_are_expanded():
    keys = {"h": "host", "n": lambda: "name"}
    assert simple_format("%h-%n-%%", keys) == "host-name-%"
    assert simple_format("", keys) == ""
    assert simple_format("<x>", {"x": 1}, pattern=r"<(\w)>") == "1"
    with pytest.raises(ValueError, match=r"Unknown format %q in 'a%q'. Known are %%, %h, %n"):
        simple_format("a%q", keys)


def test_lines_are_indented_filled_and_ended():
    assert text.indent("a\nb", 2) == "  a\n  b"
    assert text.dedent("    a\n      b") == "a\n  b"
    assert text.fill_paragraphs("aaa bbb ccc\nddd", 7) == "aaa bbb\nccc\nddd"
    assert text.ensure_newlines("abc", 2) == "abc\n\n"
    assert ensure_sep("/", "a/", 1) == "a/"
    assert text.join(["a", "", None, "b"]) == "a\nb"


def test_words_agree_with_their_number():
    assert [text.pluralize(n, "task") for n in (0, 1, 2)] == ["tasks", "task", "tasks"]


def test_lists_come_from_text_or_as_they_are():
    assert text.str_to_list("a,b") == ["a", "b"]
    assert text.str_to_list(["a"]) == ["a"]
    assert text.str_to_list(None) is None


def test_values_are_shown_readably():
    assert pretty({"a": 1}) == "\n 'a': 1}"
    assert pretty([1]) == "[1]"


def test_repeated_module_names_are_dropped():
    assert (
        text.remove_repeating_from_task("tasks.add", "tasks.add(tasks.mul(), tasks.add())") == "tasks.add(mul(), add())"
    )
    assert text.remove_repeating("z", "abc") == "abc"


def test_case_is_matched():
    assert (text.match_case("abc", "ABC"), text.match_case("ABC", "abc")) == ("ABC", "abc")


def test_a_buffer_takes_bytes_and_text():
    buffer = WhateverIO(b"a")
    buffer.seek(0, 2)
    buffer.write(b"b")
    buffer.write("c")
    assert buffer.getvalue() == "abc"
