from __future__ import annotations

import pytest

from celery.protocol.task import Unreadable, parse_headers
from celery.worker.consumer.receiving import is_usual

USUAL = {
    "lang": "py",
    "task": "t.add",
    "id": "id-1",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "root_id": "id-1",
    "parent_id": None,
    "argsrepr": "(1, 2)",
    "kwargsrepr": "{}",
    "origin": "gen1@host",
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}

# A message is looked at only when its task is known, so ``task`` is right.
FIELDS = [field for field in USUAL if field != "task"]

WRONG = [None, 5, 5.5, "text", b"bytes", [], ["x"], [1], {}, {"a": 1}, True, "2026-13-45", "", [None], [1, "x"]]


def test_what_clients_send_is_usual():
    assert is_usual(USUAL)


@pytest.mark.parametrize("field", [*FIELDS, "nonsense"])
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_what_is_usual_can_be_parsed(field, value):
    headers = {**USUAL, field: value}

    if is_usual(headers):
        assert not isinstance(parse_headers(headers), Unreadable)


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_never_taken_for_usual_if_it_is_needed(field):
    headers = {**USUAL}
    del headers[field]

    if is_usual(headers):
        assert not isinstance(parse_headers(headers), Unreadable)
