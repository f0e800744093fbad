"""Task messages: what is built can be parsed, and whatever comes is parsed or refused with a reason."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery.protocol.task import ParsedTask, Unreadable, build_v1, build_v2, is_v2, parse, parse_body, parse_headers

FACTS = Path(__file__).parents[2] / "facts" / "messages"


def v2(**changes):
    fields = {
        "task_id": "id-1", "name": "proj.add", "args": (1, 2), "kwargs": {"z": 3}, "eta": None, "expires": None, "group_id": "g", "group_index": 4,
        "retries": 2, "chord": None, "chain": [{"task": "b"}], "callbacks": [{"task": "c"}], "errbacks": None, "reply_to": "q", "time_limit": 9,
        "soft_time_limit": 5.5, "root_id": "r", "parent_id": "p", "shadow": None, "origin": "gen1@h", "ignore_result": True, "argsrepr": "(1, 2)",
        "kwargsrepr": "{}", "stamped_headers": ["s"], "stamps": {"s": 1}, "replaced_task_nesting": 1,
    }  # fmt: skip
    return build_v2(**{**fields, **changes})


def test_a_version_2_message_is_parsed_to_what_was_built():
    message = v2(eta="2030-01-01T00:00:00+00:00")
    task = parse(message.headers, json.loads(json.dumps(message.body)))

    assert isinstance(task, ParsedTask)
    assert (task.version, task.id, task.name, task.args, task.kwargs) == (2, "id-1", "proj.add", [1, 2], {"z": 3})
    assert (task.group, task.group_index, task.retries, task.timelimit) == ("g", 4, 2, (9, 5.5))
    assert (task.root_id, task.parent_id, task.stamps, task.stamped_headers) == ("r", "p", {"s": 1}, ["s"])
    assert (task.callbacks, task.chain, task.chord) == ([{"task": "c"}], [{"task": "b"}], None)
    assert (task.ignore_result, task.replaced_task_nesting, task.eta) == (True, 1, "2030-01-01T00:00:00+00:00")


def test_a_version_1_message_is_parsed_to_what_was_built():
    message = build_v1(
        "id-1", "proj.add", [1], {"a": 2}, None, "2030-01-01T00:00:00", "g", 1, 3, {"task": "x"}, [{"task": "c"}], None, "q",
        None, 4, False, ("[1]", "{}"),
    )  # fmt: skip
    task = parse(message.headers, message.body)

    assert isinstance(task, ParsedTask)
    assert (task.version, task.id, task.name, task.args, task.kwargs) == (1, "id-1", "proj.add", [1], {"a": 2})
    assert (task.group, task.timelimit, task.is_utc, task.chord) == ("g", (None, 4), False, {"task": "x"})
    assert message.sent_event["args"] == "[1]"


def test_headers_tell_the_version():
    assert is_v2(v2().headers)
    assert not is_v2({})
    assert not is_v2(None)


def test_the_root_of_a_first_task_is_itself():
    assert v2(root_id=None).headers["root_id"] == "id-1"


def test_an_event_is_built_only_on_demand():
    assert v2().sent_event is None
    assert v2(with_event=True).sent_event["uuid"] == "id-1"


def recorded_task_messages():
    """Yield headers and body of each task message that Celery was recorded to send."""
    for record in sorted(FACTS.glob("*.json")):
        for number, message in enumerate(json.loads(record.read_text()).get("messages", ())):
            headers, body = message.get("headers") or {}, message.get("body")
            if isinstance(body, dict) and "$decoded" in body:
                body = body["$decoded"]
            if "task" in headers or (isinstance(body, dict) and {"task", "id", "args"} <= body.keys()):
                # the records have placeholders where times were
                text = json.dumps([headers, body]).replace(
                    "<YYYY-MM-DDTHH:MM:SS.ffffff+00:00>", "2030-01-01T00:00:00.000000+00:00"
                )
                yield pytest.param(*json.loads(text), id=f"{record.stem}-{number}")


@pytest.mark.parametrize(("headers", "body"), list(recorded_task_messages()))
def test_every_recorded_task_message_is_readable(headers, body):
    assert isinstance(parse(headers, body), ParsedTask)


BAD_HEADERS = {
    "no id": {"id": None},
    "id is a number": {"id": 7},
    "task is a list": {"task": []},
    "empty name": {"task": ""},
    "eta is a number": {"eta": 5},
    "eta is no time": {"eta": "tomorrow"},
    "expires is no time": {"expires": "2030-13-01"},
    "retries is text": {"retries": "1"},
    "retries is true": {"retries": True},
    "timelimit is text": {"timelimit": "10"},
    "timelimit has one": {"timelimit": [1]},
    "timelimit holds text": {"timelimit": ["1", None]},
    "group is a number": {"group": 1},
    "stamps is a list": {"stamps": []},
    "stamped_headers is a number": {"stamped_headers": 3},
    "parent is a map": {"parent_id": {}},
    "nesting is text": {"replaced_task_nesting": "x"},
}


@pytest.mark.parametrize("changes", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
def test_a_wrong_header_is_refused_by_name(changes):
    answer = parse_headers({**v2().headers, **changes})

    assert isinstance(answer, Unreadable)
    assert f"`{next(iter(changes))}`" in answer.reason


BAD_BODIES = {
    "nothing": None,
    "text": "abc",
    "number": 5,
    "too short": [[], {}],
    "too long": [[], {}, {}, {}],
    "args a map": [{}, {}, {}],
    "args text": ["ab", {}, {}],
    "kwargs a list": [[], [], {}],
    "kwargs with a number": [[], {1: 2}, {}],
    "embed a list": [[], {}, []],
    "callbacks text": [[], {}, {"callbacks": "x"}],
    "chain a map": [[], {}, {"chain": {}}],
    "callbacks of numbers": [[], {}, {"callbacks": [5]}],
    "callbacks of text": [[], {}, {"callbacks": ["add"]}],
    "errbacks of numbers": [[], {}, {"errbacks": [5]}],
    "chain of text": [[], {}, {"chain": ["add"]}],
    "chord text": [[], {}, {"chord": "x"}],
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_wrong_body_is_refused_with_a_reason(body):
    answer = parse_body(parse_headers(v2().headers), body)

    assert isinstance(answer, Unreadable)
    assert answer.reason


def test_an_errback_may_be_the_name_of_a_task_as_celery_sends_it():
    body = [[], {}, {"errbacks": ["add", {"task": "mul"}]}]

    assert parse_body(parse_headers(v2().headers), body).errbacks == ["add", {"task": "mul"}]


@pytest.mark.parametrize("body", [None, [], "x", {}, {"task": "a"}, {"id": "a"}, {"task": "a", "id": "b", "args": 5}])
def test_a_message_of_no_version_is_refused(body):
    assert isinstance(parse({}, body), Unreadable)


def test_bytes_from_a_foreign_client_are_read_as_text():
    task = parse_headers({"task": b"proj.add", "id": b"x"})

    assert (task.name, task.id) == ("proj.add", "x")


def test_times_may_be_objects_where_a_serializer_keeps_them():
    task = parse_headers({"task": "a", "id": "b", "eta": datetime(2030, 1, 1, tzinfo=timezone.utc)})

    assert task.eta == "2030-01-01T00:00:00+00:00"


def test_times_of_other_clients_are_understood():
    for text in ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00.123Z", "20300101T000000Z", "2030-01-01T00:00:00+0200"):
        assert isinstance(parse_headers({"task": "a", "id": "b", "eta": text}), ParsedTask), text


class Hostile(dict):
    def get(self, *args):
        raise RuntimeError("boom")


def test_an_object_that_raises_becomes_a_reason():
    assert "RuntimeError" in parse(Hostile(task="a"), None).reason


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from([*v2().headers, "x"]), anything), anything)
def test_parsing_never_raises(headers, body):
    assert isinstance(parse(headers, body), (ParsedTask, Unreadable))


@settings(max_examples=100)
@given(st.sampled_from(sorted(v2().headers)), anything, anything)
def test_parsing_never_raises_on_a_good_message_with_one_wrong_field(name, value, body):
    assert isinstance(parse({**v2().headers, name: value}, body), (ParsedTask, Unreadable))
    assert isinstance(parse({}, {"task": "a", "id": "b", name: value}), (ParsedTask, Unreadable))
