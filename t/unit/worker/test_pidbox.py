"""What may arrive in a worker's mailbox."""

from __future__ import annotations

import logging

import pytest

from celery.worker import control
from celery.worker.pidbox import flaw_of

PING = {"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"arguments": None},
        {"destination": ["a@b"], "ticket": "t", "reply_to": {"exchange": "x", "routing_key": "y"}},
        {"pattern": "a*", "matcher": "glob"},
        {"something": "of tomorrow"},
    ],
)
def test_what_clients_send_has_no_flaw(more):
    assert flaw_of({**PING, **more}) is None


@pytest.mark.parametrize(
    "command",
    [
        None,
        [],
        "ping",
        b"",
        {},
        {**PING, "method": None},
        {**PING, "method": ["ping"]},
        {**PING, "arguments": []},
        {**PING, "arguments": "x"},
        {**PING, "arguments": {1: 2}},
        {**PING, 5: 6},
        {**PING, "destination": "a@b"},
        {**PING, "pattern": 5},
        {**PING, "matcher": []},
        {**PING, "ticket": 5},
        {**PING, "reply_to": "x"},
        {**PING, "reply_to": {"exchange": "x"}},
        {**PING, "reply_to": {"exchange": 5, "routing_key": "y"}},
    ],
    ids=repr,
)
def test_what_is_no_command_has_a_flaw_that_fits_a_line(command):
    assert "\n" not in flaw_of(command)


@pytest.fixture
def send(app, running):
    """Publish the body of a command as it is."""

    def send(body):
        with app.connection_for_write() as connection:
            mailbox = app.control.mailbox(connection)
            producer = connection.Producer(serializer="json")
            producer.publish(body, exchange=mailbox.exchange.name, declare=[mailbox.exchange], headers={"clock": 1})

    return send


@pytest.mark.parametrize(
    "body",
    [
        ["ping"],
        {**PING, "method": "no.such"},
        {**PING, "method": "cancel_consumer", "arguments": {"queue": []}},
        {**PING, "method": "add_consumer", "arguments": {"queue": "q", "exchange_type": 5}},
        {**PING, "method": "rate_limit", "arguments": {"task_name": {}, "rate_limit": "5/s"}},
        {**PING, "method": "revoke", "arguments": {"task_id": [1, []]}},
        {**PING, "method": "revoke"},
        {**PING, "method": "time_limit", "arguments": {"nonsense": 1, "task_name": []}},
        {**PING, "arguments": {"state": 1}},
    ],
    ids=repr,
)
def test_a_bad_command_is_a_line_in_the_log_and_no_more(app, running, send, wait_until, caplog, body):
    with caplog.at_level(logging.ERROR), running():
        send(body)
        wait_until(lambda: caplog.records)
        assert app.control.ping(timeout=10, limit=1)

    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()
    assert not caplog.records[0].exc_info


def test_a_users_command_that_fails_shows_where(app, running, send, wait_until, caplog, monkeypatch):
    monkeypatch.setattr(control.Panel, "data", {**control.Panel.data, "breaks": lambda state: 1 / 0})
    with caplog.at_level(logging.ERROR), running():
        assert app.control.broadcast("breaks", reply=True, timeout=10, limit=1) == [
            {"w1@test": {"error": "ZeroDivisionError('division by zero')"}}
        ]
        wait_until(lambda: caplog.records)

    assert caplog.records[0].exc_info


def test_what_was_put_off_and_fails_does_not_end_the_worker(app, running, wait_until, caplog):
    with caplog.at_level(logging.ERROR), running() as worker:
        worker.consumer.call_soon(lambda: 1 / 0)
        wait_until(lambda: "Pending operation failed" in caplog.text)
        assert app.control.ping(timeout=10, limit=1)


@pytest.mark.parametrize(
    ("allow", "answers"),
    [
        (None, {"ping", "dump_active", "pool_grow"}),
        (["inspect"], {"ping", "dump_active"}),
        (["ping", "pool_grow"], {"ping", "pool_grow"}),
        ([], set()),
    ],
)
def test_what_may_be_asked_is_a_setting(app, running, caplog, allow, answers):
    app.conf.control_allow = allow
    commands = ("ping", "dump_active", "pool_grow")
    with running():
        replies = {name: app.control.broadcast(name, reply=True, timeout=10, limit=1) for name in commands}

    refused = {name for name, (reply,) in replies.items() if "not allowed" in str(reply)}
    assert refused == {*commands} - answers
    assert caplog.text.count("not allowed here (control_allow)") == len(refused)
