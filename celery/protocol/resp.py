"""The Redis protocol without I/O: pack commands, parse replies (RESP 2 and 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from redis import exceptions

__all__ = ("Push", "Reader", "ReplyError", "bulk", "error_for", "new_reader", "pack")


class Reader(Protocol):
    """Turns bytes into replies; ``gets`` returns ``False`` when no whole reply is there yet."""

    def feed(self, data: bytes) -> Any: ...
    def gets(self) -> Any: ...
    def has_data(self) -> bool: ...


def bulk(value: Any) -> bytes:
    """Return one argument of a command as it travels."""
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def pack(arguments: Iterable[Any]) -> bytes:
    """Return a whole command as it travels."""
    parts = [bulk(argument) for argument in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(parts)


class _PlainReplyError(Exception):
    """An error reply, as a value."""


class _PlainPush(list[Any]):
    """An out-of-band message of RESP 3."""


class _Incomplete(Exception):
    """The buffer ends within a reply."""


class PlainReader:
    """What hiredis does, in Python, for where hiredis is not installed."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def gets(self) -> Any:
        start = self._at
        try:
            reply = self._parse()
        except _Incomplete:
            self._at = start
            return False
        if self._at > 65536 or self._at == len(self._buffer):
            del self._buffer[: self._at]
            self._at = 0
        return reply

    def has_data(self) -> bool:
        """Whether there is a part of a reply."""
        return self._at < len(self._buffer)

    def _line(self) -> bytes:
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            raise _Incomplete
        line = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return line

    def _many(self, count: int) -> list[Any]:
        return [self._parse() for _ in range(count)]

    def _parse(self) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind in b"$=!":
            return self._blob(kind, int(rest))
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        if kind in b"*~":
            return None if rest == b"-1" else self._many(int(rest))
        if kind == b">":
            return _PlainPush(self._many(int(rest)))
        if kind == b"-":
            return _PlainReplyError(rest.decode(errors="replace"))
        if kind == b"%":
            items = self._many(int(rest) * 2)
            return dict(zip(items[::2], items[1::2], strict=True))
        if kind == b"|":  # attributes of the reply that follows: nothing we use
            self._many(int(rest) * 2)
            return self._parse()
        if kind == b"#":
            return rest == b"t"
        if kind == b",":
            return float(rest)
        return int(rest) if kind == b"(" else None

    def _blob(self, kind: bytes, length: int) -> Any:
        if length < 0:
            return None
        end = self._at + length
        if len(self._buffer) < end + 2:
            raise _Incomplete
        data = bytes(self._buffer[self._at : end])
        self._at = end + 2
        if kind == b"=":
            return data[4:]
        return _PlainReplyError(data.decode(errors="replace")) if kind == b"!" else data


ReplyError: Any
Push: Any
new_reader: Any

try:
    from hiredis import PushNotification as Push
    from hiredis import Reader as new_reader
    from hiredis import ReplyError
except ImportError:
    ReplyError, Push, new_reader = _PlainReplyError, _PlainPush, PlainReader


_ERRORS: dict[str, type[exceptions.RedisError]] = {
    "READONLY": exceptions.ReadOnlyError,
    "LOADING": exceptions.BusyLoadingError,
    "BUSY": exceptions.BusyLoadingError,
    "MASTERDOWN": exceptions.ConnectionError,
    "CLUSTERDOWN": exceptions.ConnectionError,
    "TRYAGAIN": exceptions.ConnectionError,
    "UNBLOCKED": exceptions.ConnectionError,
    "NOREPLICAS": exceptions.ConnectionError,
    "MISCONF": exceptions.ConnectionError,  # its disk is full, so it takes no writes
    "NOAUTH": exceptions.AuthenticationError,
    "WRONGPASS": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
    "OOM": exceptions.OutOfMemoryError,
    "NOSCRIPT": exceptions.NoScriptError,
}


def error_for(reply: Exception) -> exceptions.RedisError:
    """Return the exception of redis-py that an error reply stands for.

    An error raised by a command within a script is named after that command's error.
    """
    text = str(reply)
    word = text.split(" ", 1)[0].lstrip("-")
    found = _ERRORS.get(word)
    if found is None and "OOM command not allowed" in text:
        found = exceptions.OutOfMemoryError
    elif found is None and "READONLY" in text:
        found = exceptions.ReadOnlyError
    return (found or exceptions.ResponseError)(text)
