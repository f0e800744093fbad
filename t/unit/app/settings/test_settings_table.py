"""The table of settings against the recorded facts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from celery.app.defaults import DEFAULTS, NAMESPACES, SETTING_KEYS, Namespace, Option, find, flatten
from celery.app.settings.table import OLD_BY_NEW, OPTIONS, OURS, UNDECLARED, Defaults

FACTS = json.loads((Path(__file__).parents[3] / "facts" / "settings.json").read_text())
SETTINGS = FACTS["settings"]


def test_the_recorded_settings_and_ours_are_known_and_no_others():
    assert {*SETTINGS} | OURS == SETTING_KEYS
    assert not OURS & {*SETTINGS}
    assert {*FACTS["undeclared"]} == {*UNDECLARED}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_type_default_and_old_name_are_the_recorded_ones(name):
    fact = SETTINGS[name]

    assert OPTIONS[name].type == fact["type"]
    assert repr(DEFAULTS[name]) == fact["default"]
    assert [OLD_BY_NEW[name]] == fact["old"]


def test_the_late_acknowledgement_switch_says_what_replaces_it():
    option = NAMESPACES["task"]["acks_on_failure_or_timeout"]

    assert (option.deprecate_by, option.remove_by) == ("6.0", "7.0")
    assert "task_acks_on_timeout" in option.alt


def test_find_prefers_the_namespace_it_is_given():
    assert find("serializer", "task")[:2] == ("task", "serializer")
    assert find("serializer")[:2] == ("event", "serializer")
    assert find("task_serializer")[:2] == (None, "task_serializer")
    assert find("accept_content").type.default == ("json",)
    assert find("task").type is NAMESPACES["task"]
    with pytest.raises(KeyError):
        find("nope")


def test_flatten_joins_names_level_by_level():
    tree = {"a": Namespace(b=Option(1)), "c": Option(2)}

    assert [(name, option.default) for name, option in flatten(tree)] == [("c", 2), ("a_b", 1)]


def test_a_namespace_gives_its_options_their_old_names():
    options = Namespace(__old__={"x_{0}"}, a=Option(1), b=Option(2, old={"given"}))

    assert options["a"].old == {"x_a"}
    assert options["b"].old == {"given"}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "3", 3),
        ("float", "1.5", 1.5),
        ("bool", "false", False),
        ("bool", "on", True),
        ("string", 5, "5"),
        ("tuple", "ab", ("a", "b")),
        ("dict", [(1, 2)], {1: 2}),
        ("bytes", "x", b"x"),
        ("any", "x", "x"),
    ],
)
def test_an_option_turns_text_into_its_type(kind, text, value):
    assert Option(type=kind).to_python(text) == value


def test_changing_a_default_in_place_stays_in_one_app():
    one, other = Defaults(), Defaults()
    one["broker_transport_options"]["x"] = 1

    assert other["broker_transport_options"] == {}
    assert DEFAULTS["broker_transport_options"] == {}
