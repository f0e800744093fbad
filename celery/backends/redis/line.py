"""One connection to Redis, driven by ourselves: commands go out in one write, replies come back in order.

redis-py opens it (TLS, login, sentinel, unix socket).  A line is used by one thread at a time; when an exchange
on it is interrupted, by a lost connection or by an exception out of nowhere, it is closed and never used again.
"""

from __future__ import annotations

import os
from builtins import TimeoutError as OSTimeout
from collections import deque
from collections.abc import Callable, Iterable
from threading import Condition
from time import monotonic
from typing import Any

from redis.exceptions import ConnectionError, TimeoutError

from celery.protocol.resp import Push, ReplyError, error_for, new_reader, pack
from celery.utils.failpoints import is_active
from celery.utils.sockets import watch_over

__all__ = ("Line", "Lines")

READ_BYTES = 262_144

#: Whether a test of the tests has switched this protection off.
_KEEPS_INTERRUPTED = is_active("unprotect.interrupted")

#: A line that was idle for longer may have been cut by something in between, so it is tried first.
TRY_AFTER_SECONDS = 30


class Line:
    """One connection; a reply is waited for as long as ``socket_timeout`` says."""

    __slots__ = ("_connection", "_patience", "_reader", "_seconds", "_sock", "closed", "protocol", "pushed", "used_at")

    def __init__(self, connection_class: Any, params: dict[str, Any], seconds: float | None = None) -> None:
        """Connect, within ``seconds`` or as long as the settings allow."""
        self.closed = False
        self.pushed: deque[Any] = deque()
        self._connection = connection_class(**(params if seconds is None else _hurried(params, seconds)))
        self._connection.connect()
        self._sock = self._connection._sock
        self._patience: float | None = params.get("socket_timeout")
        self.protocol: int = getattr(self._connection, "protocol", 2)
        watch_over(self._sock, has_own_keepalive=bool(params.get("socket_keepalive")))
        self._sock.settimeout(self._patience)
        self._seconds = self._patience
        self._reader = new_reader()
        self.used_at = monotonic()

    def send(self, data: bytes) -> None:
        """Write packed commands."""
        if self.closed:
            raise ConnectionError("The connection to Redis is closed")
        try:
            if self._seconds != self._patience:
                self._wait_at_most(self._patience)
            self._sock.sendall(data)
        except OSError as error:
            raise self._broken(error) from error
        except BaseException:
            self.close_interrupted()
            raise

    def reply(self, seconds: float | None = None) -> Any:
        """Return the next reply, an error reply as a value; what is pushed meanwhile waits in ``pushed``.

        ``seconds`` waits less long than ``socket_timeout`` says.
        """
        gets = self._reader.gets
        while True:
            reply = gets()
            if reply is False:
                if not self._read(self._patience if seconds is None else seconds):
                    self.close()
                    raise TimeoutError("Redis gave no answer in time")
            elif isinstance(reply, Push):
                self.pushed.append(reply)
            else:
                return reply

    def call(self, *arguments: Any) -> Any:
        """Send one command and return its reply; an error reply is raised."""
        self.send(pack(arguments))
        return _raised(self.reply())

    def call_many(self, commands: Iterable[Iterable[Any]]) -> list[Any]:
        """Send commands with one write and return their replies; an error reply is raised when all are read."""
        packed = [pack(command) for command in commands]
        self.send(b"".join(packed))
        replies = [self.reply() for _ in packed]
        return [_raised(reply) for reply in replies]

    def hear(self, seconds: float | None) -> list[Any]:
        """Return what is pushed, as soon as there is something; nothing after ``seconds``.

        For a line on which no reply is awaited: before RESP 3, a subscriber hears all as plain replies.
        """
        pushed = self.pushed
        gets = self._reader.gets
        while True:
            while (reply := gets()) is not False:
                pushed.append(reply)
            if pushed:
                heard = list(pushed)
                pushed.clear()
                return heard
            if not self._read(seconds):
                return []

    def _read(self, seconds: float | None) -> bool:
        """Read what is there or comes within ``seconds``; return whether anything did."""
        try:
            if seconds != self._seconds:
                self._wait_at_most(seconds)
            data = self._sock.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("closed by the server")
        except (OSTimeout, BlockingIOError):
            return False
        except OSError as error:
            raise self._broken(error) from error
        except BaseException:
            self.close_interrupted()
            raise
        self._reader.feed(data)
        return True

    def _wait_at_most(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._sock.settimeout(seconds if seconds is None else max(0.0, seconds))

    def _broken(self, error: OSError) -> Exception:
        self.close()
        if isinstance(error, OSTimeout):
            return TimeoutError(f"Redis took no data in time: {error}")
        return ConnectionError(f"Lost the connection to Redis: {error}")

    def prefer_pushes(self) -> bool:
        """Speak RESP 3, in which a subscriber may ask as well as listen; return whether the server can."""
        if self.protocol != 3:
            self.send(pack(("HELLO", "3")))
            if not isinstance(self.reply(), ReplyError):
                self.protocol = 3
        return self.protocol == 3

    def is_alive(self, seconds: float | None = None) -> bool:
        """Ask the server."""
        try:
            self.send(pack(("PING",)))
            self.reply(seconds)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def close_interrupted(self) -> None:
        """Close it because an exchange was cut off: the answer that is still to come is for nobody else."""
        if not _KEEPS_INTERRUPTED:
            self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            try:
                self._connection.disconnect()
            except Exception:  # whatever a broken socket says now, it is closed
                pass

    def abandon(self) -> None:
        """Let go of a connection that the parent process goes on with: nothing is sent, nothing is shut down."""
        if self.closed:
            return
        self.closed = True
        self._connection._sock = None
        try:
            os.close(self._sock.detach())
        except OSError:
            pass


def _hurried(params: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return ``params`` with no time-out longer than ``seconds``."""
    names = ("socket_timeout",) if "path" in params else ("socket_timeout", "socket_connect_timeout")
    shorter = {name: min(params.get(name) or seconds, max(seconds, 0.001)) for name in names}
    return {**params, **shorter}


def _raised(reply: Any) -> Any:
    if isinstance(reply, ReplyError):
        raise error_for(reply)
    return reply


class Lines:
    """Lines that are taken for one exchange and given back; there are as many as were in use at once.

    Whoever takes one while ``limit`` are in use waits for ``patience`` seconds.
    """

    def __init__(self, open_line: Callable[[float | None], Line], limit: int | None, patience: float | None) -> None:
        self._open = open_line
        self._limit = limit
        self._patience = patience
        self._idle: deque[Line] = deque()
        self._in_use = 0
        self._returned = Condition()

    def take(self, patience: float | None = None) -> Line:
        """Return a line that works, as far as is known, within ``patience`` seconds.

        Raises:
            ConnectionError: no connection, or too many.
        """
        self._count_in(self._patience if patience is None else patience)
        try:
            while True:
                try:
                    line = self._idle.pop()
                except IndexError:
                    return self._open(patience)
                if line.closed:
                    continue
                if monotonic() - line.used_at < TRY_AFTER_SECONDS or line.is_alive(patience):
                    return line
        except BaseException:
            self._count_out()
            raise

    def give(self, line: Line) -> None:
        """Take a line back; one that is closed is forgotten."""
        if not line.closed:
            line.used_at = monotonic()
            self._idle.append(line)
        self._count_out()

    def _count_in(self, patience: float | None) -> None:
        if self._limit is None:
            return
        with self._returned:
            if not self._returned.wait_for(lambda: self._in_use < self._limit, patience):  # type: ignore[operator]
                raise ConnectionError(f"Too many connections: all {self._limit} of redis_max_connections are in use")
            self._in_use += 1

    def _count_out(self) -> None:
        if self._limit is None:
            return
        with self._returned:
            self._in_use -= 1
            self._returned.notify()

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def abandon(self) -> None:
        """Forget all, in a child process."""
        while self._idle:
            self._idle.pop().abandon()
        self._in_use = 0
        self._returned = Condition()
