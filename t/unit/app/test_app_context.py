"""What a running task can read of its own call."""

from __future__ import annotations

import json
from pathlib import Path

from celery.app.task import Context

FULL = {
    "id": "I", "timelimit": (5, 3), "stamped_headers": ["x"], "stamps": {"x": 1}, "reply_to": "R", "group": "G",
    "group_index": 1, "root_id": "RR", "parent_id": "P", "callbacks": [1], "errbacks": [2], "chain": [3], "chord": 4,
    "headers": {"h": 1}, "retries": 2, "expires": "2030-01-01", "eta": "2031-01-01", "origin": "o", "shadow": "s",
    "ignore_result": True, "replaced_task_nesting": 2,
}  # fmt: skip


def test_an_empty_request_has_every_attribute():
    request = Context()

    assert request.called_directly is True
    assert request.retries == 0
    assert request.is_eager is False
    assert [request.id, request.args, request.delivery_info, request.headers, request.stamps] == [None] * 5
    assert request.children == []
    assert vars(Context()) == {"headers": None}


def test_fields_come_from_a_mapping_and_from_keywords():
    request = Context({"id": 1, "args": (1,)}, retries=3)

    assert (request.id, request.args, request.retries) == (1, (1,), 3)
    assert request.get("id") == 1
    assert request.get("nothing", 4) == 4


def test_the_callers_own_fields_are_its_headers():
    request = Context({"id": 1, "task": "t", "lang": "py", "argsrepr": "()", "mine": 9})

    assert request.headers == {"mine": 9}
    assert request.mine == 9


def test_given_headers_stay():
    assert Context({"headers": {"a": 1}, "mine": 9}).headers == {"a": 1}


def test_a_received_version_2_message_has_no_headers_but_the_callers():
    record = Path(__file__).parents[2] / "facts" / "messages" / "task_headers.json"
    headers = json.loads(record.read_text())["messages"][0]["headers"]

    assert Context(headers).headers == {"x-custom": "v"}


def test_limits_have_names():
    request = Context(timelimit=[5, 3])

    assert (request.time_limit, request.soft_time_limit) == (5, 3)
    assert Context().time_limit is None


def test_children_are_each_requests_own():
    first, second = Context(), Context()
    first.children.append(1)

    assert second.children == []


def test_the_options_that_would_make_the_same_call():
    assert Context(FULL).as_execution_options() == {
        "task_id": "I", "root_id": "RR", "parent_id": "P", "group_id": "G", "group_index": 1, "shadow": "s", "chord": 4,
        "chain": [3], "link": [1], "link_error": [2], "expires": "2030-01-01", "soft_time_limit": 3, "time_limit": 5,
        "headers": {"h": 1}, "retries": 2, "reply_to": "R", "replaced_task_nesting": 2, "origin": "o",
        "stamped_headers": ["x"], "x": 1,
    }  # fmt: skip


def test_a_request_can_be_changed_and_cleared():
    request = Context(id=1)
    request.update(id=2, retries=1)
    assert (request.id, request.retries) == (2, 1)

    request.clear()
    assert request.id is None
    assert repr(request) == "<Context: {}>"
