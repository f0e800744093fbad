"""RESP without a server: hiredis and our own reader agree."""

from __future__ import annotations

import pytest

pytest.importorskip("redis")

from redis import exceptions

from celery.transports.redis.resp import PlainReader, Push, ReplyError, error_for, new_reader, pack

REPLIES = [
    (b"+OK\r\n", b"OK"),
    (b":42\r\n", 42),
    (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"*3\r\n*0\r\n:1\r\n*2\r\n$1\r\nx\r\n$1\r\ny\r\n", [[], 1, [b"x", b"y"]]),
    (b"_\r\n", None),
    (b"#t\r\n", True),
    (b",1.5\r\n", 1.5),
    (b"%1\r\n+proto\r\n:3\r\n", {b"proto": 3}),
]


@pytest.mark.parametrize("make_reader", [new_reader, PlainReader])
@pytest.mark.parametrize(("wire", "value"), REPLIES)
def test_replies_are_read_whole_or_in_pieces(make_reader, wire, value):
    whole = make_reader()
    whole.feed(wire * 2)
    assert [whole.gets(), whole.gets(), whole.gets()] == [value, value, False]

    pieces = make_reader()
    for at in range(len(wire) - 1):
        pieces.feed(wire[at : at + 1])
        assert pieces.gets() is False
    pieces.feed(wire[-1:])
    assert pieces.gets() == value


@pytest.mark.parametrize("make_reader", [new_reader, PlainReader])
def test_pushes_and_errors_are_told_from_replies(make_reader):
    reader = make_reader()
    reader.feed(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nq\r\n-NOSCRIPT none\r\n")
    push, error = reader.gets(), reader.gets()
    assert list(push) == [b"invalidate", [b"q"]]
    assert not isinstance([], Push)
    assert str(error) == "NOSCRIPT none"
    if make_reader is new_reader:
        assert isinstance(push, Push)
        assert isinstance(error, ReplyError)


def test_commands_are_packed():
    assert pack(("LPUSH", "q", b"\x00", 1)) == b"*4\r\n$5\r\nLPUSH\r\n$1\r\nq\r\n$1\r\n\x00\r\n$1\r\n1\r\n"
    assert pack(("PING", "é")) == b"*2\r\n$4\r\nPING\r\n$2\r\n\xc3\xa9\r\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("READONLY You can't write", exceptions.ReadOnlyError),
        ("LOADING Redis is loading", exceptions.BusyLoadingError),
        ("MASTERDOWN Link", exceptions.ConnectionError),
        ("MISCONF Redis is configured to save", exceptions.ConnectionError),
        ("OOM command not allowed", exceptions.OutOfMemoryError),
        ("ERR Error running script: -OOM command not allowed when", exceptions.OutOfMemoryError),
        ("NOAUTH Authentication required.", exceptions.AuthenticationError),
        ("WRONGTYPE Operation", exceptions.ResponseError),
    ],
)
def test_errors_are_named_by_meaning(text, error):
    assert type(error_for(ReplyError(text))) is error
