"""Types of options, and how answers are shown."""

from __future__ import annotations

import logging
from datetime import datetime

import click
import pytest

from celery import Celery
from celery.bin import base
from celery.bin.errors import EX_CONFIG, explained
from celery.bin.preflight import check_writable, parse_umask, without_detach
from celery.bin.worker import AUTOSCALE, HOSTNAME, WORKERS_POOL
from celery.exceptions import ImproperlyConfigured, SecurityError
from celery.platforms import LockFailed


@pytest.fixture
def context():
    app = Celery(broker="memory://", set_as_current=False)
    return base.CLIContext(app=app, no_color=True, workdir=None)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (base.COMMA_SEPARATED_LIST, "a,b", ["a", "b"]),
        (base.JSON_ARRAY, "[1, {}]", [1, {}]),
        (base.JSON_OBJECT, '{"a": 1}', {"a": 1}),
        (base.ISO8601, "2026-01-31T10:00:00", datetime(2026, 1, 31, 10)),
        (base.ISO8601_OR_FLOAT, "1.5", 1.5),
        (base.ISO8601_OR_FLOAT, "2026-01-31T10:00:00", datetime(2026, 1, 31, 10)),
        (base.LOG_LEVEL, "info", logging.INFO),
        (base.LOG_LEVEL, 10, 10),
        (AUTOSCALE, "10,3", (10, 3)),
        (AUTOSCALE, "3,10", (10, 3)),
        (AUTOSCALE, "10", (10, 0)),
        (WORKERS_POOL, "threads", "threads"),
        (HOSTNAME, "w1@there", "w1@there"),
    ],
)
def test_words_become_values(kind, text, value):
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (base.JSON_ARRAY, "{}"),
        (base.JSON_ARRAY, "["),
        (base.JSON_OBJECT, "[]"),
        (base.ISO8601, "soon"),
        (base.ISO8601_OR_FLOAT, "soon"),
        (base.LOG_LEVEL, "LOUD"),
        (AUTOSCALE, "0"),
        (AUTOSCALE, "1,-1"),
        (AUTOSCALE, "many"),
        (WORKERS_POOL, "puddle"),
        (WORKERS_POOL, "no.such:Pool"),
    ],
)
def test_words_that_are_no_values_are_refused(kind, text):
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


def test_answers_are_shown_by_their_kind(context):
    assert context.pretty(["a", 1]) == ("OK", "* a\n* 1")
    assert context.pretty([]) == ("OK", "- empty -")
    assert context.pretty({"ok": "pong"}) == ("OK", "    pong")
    assert context.pretty({"error": "bad"}) == ("ERROR", "    bad")
    assert context.pretty({"b": 1, "a": [2]}) == ("OK", '{\n    "a": [\n        2\n    ],\n    "b": 1\n}')
    assert context.pretty(5) == ("OK", "5")


def test_without_colour_nothing_is_coloured(context, capsys):
    context.secho("plain", fg="red")
    context.say_chat("->", "title", "body", show_body=True)
    context.error("wrong")

    captured = capsys.readouterr()
    assert captured.out == "plain\n->  title\nbody\n"
    assert captured.err == "wrong\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ImproperlyConfigured("x"), EX_CONFIG),
        (LockFailed("x"), EX_CONFIG),
        (SecurityError("x"), 1),
        (ConnectionRefusedError(111, "refused"), 1),
        (KeyError("x"), 1),
    ],
)
def test_errors_have_statuses(error, status):
    assert explained(error).exit_code == status


def test_a_silent_broker_is_told_from_one_that_refuses(context):
    app = Celery(broker="redis://u:c4n4ry@there:1/0", set_as_current=False)
    from redis.exceptions import AuthenticationError, ConnectionError

    silent = explained(ConnectionError("Error 111 connecting to there:1."), app)
    assert (silent.exit_code, silent.message[:31]) == (69, "Cannot reach redis at there:1 (")
    refused = explained(AuthenticationError("invalid username-password pair or user is disabled."), app)
    assert refused.exit_code == EX_CONFIG
    assert "refused the login for user `u` (this is not a network error): invalid username" in refused.message
    assert "c4n4ry" not in silent.message + refused.message


@pytest.mark.parametrize(("text", "mask"), [("022", 0o22), ("0", 0), (0o27, 0o27), (None, None), ("", None)])
def test_a_umask_is_octal(text, mask):
    assert parse_umask(text) == mask


@pytest.mark.parametrize("text", ["999", "-1", "rw", "7777"])
def test_a_umask_that_is_none_is_refused(text):
    with pytest.raises(click.ClickException, match="must be an octal number"):
        parse_umask(text)


def test_files_that_cannot_be_written_are_refused(tmp_path):
    check_writable(str(tmp_path / "new"), "log file")
    check_writable(None, "log file")
    for path, reason in ((tmp_path, "it is a directory"), (tmp_path / "no" / "x", "no such directory")):
        with pytest.raises(click.ClickException, match=f"Cannot write the log file {path}: {reason}."):
            check_writable(str(path), "log file")


def test_a_daemon_is_started_without_what_made_it_one():
    words = ["--workdir", "sub", "-A", "proj", "worker", "--detach", "-D", "-n", "w", "--workdir=sub"]

    assert without_detach(words) == ["-A", "proj", "worker", "-n", "w"]
