"""Sockets to Redis: opened by redis-py (TLS, login, sentinel, unix socket), then driven by ourselves."""

from __future__ import annotations

import select
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from celery.transports.redis.resp import Push, ReplyError, error_for, new_reader, pack
from celery.transports.redis.scripts import Script
from celery.utils.failpoints import is_active
from celery.utils.sockets import watch_over

__all__ = ("PUBLICATION_BYTES", "Wire", "open_connection")

Callback = Callable[[Any], None]

READ_BYTES = 262_144
#: Of publications at most so much is read in one turn, some 10 ms, so that a flood of them leaves tasks their turns.
#: Much less would be slower than Redis publishes, which cuts off who has not taken 32 MiB.
PUBLICATION_BYTES = 16 * READ_BYTES if not is_active("unprotect.intake") else None
POLLIN, POLLOUT = 1, 4
#: Whether a test of the tests has switched this protection off: then each wire tells a script once.
_NEVER_RELOADS = is_active("unprotect.reload")


def open_connection(pool: Any) -> Any:
    """Return a connected ``redis.Connection`` with the settings of ``pool``, that belongs to the caller."""
    connection = pool.connection_class(**pool.connection_kwargs)
    connection.connect()
    sock = connection._sock
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    watch_over(sock, has_own_keepalive=pool.connection_kwargs.get("socket_keepalive") is not None)
    return connection


class Wire:
    """One socket on which requests are pipelined; replies come back in order, each to its callback.

    Nothing blocks but ``call``, which has a deadline.  Any trouble closes the wire and is raised as one of
    redis-py's connection errors; a closed wire stays closed.
    """

    __slots__ = (
        "_connection",
        "_is_swollen",
        "_lock",
        "_pending",
        "_reader",
        "_sock",
        "_told",
        "closed",
        "fd",
        "heard_at",
        "on_push",
        "patience",
        "protocol",
        "server_version",
    )

    def __init__(self, pool: Any, patience: float, on_push: Callback | None = None) -> None:
        self.closed = False
        #: Keeps requests and their callbacks in one order when another thread acknowledges.
        self._lock = threading.RLock()
        self.patience = patience
        self.on_push = on_push
        self.protocol = 2
        self.server_version: tuple[int, ...] = (0,)
        self._pending: deque[tuple[Callback, float, tuple[Script, bytes, int] | None]] = deque()
        #: Scripts whose text this wire has sent.
        self._told: set[Script] = set()
        self._reader = new_reader()
        #: Whether the reader had to make room for a large reply.
        self._is_swollen = False
        self._connection = open_connection(pool)
        self._sock = self._connection._sock
        self._sock.setblocking(False)
        self.fd: int = self._sock.fileno()
        self.heard_at = monotonic()

    # -- sending

    def send(self, command: bytes, callback: Callback) -> None:
        """Send a packed command; ``callback`` gets the reply (an error reply as a value)."""
        with self._lock:
            self._pending.append((callback, monotonic(), None))
            self._write(command)

    def run(self, script: Script, tail: bytes, count: int, callback: Callback) -> None:
        """Call a script; ``tail`` is its packed arguments from the number of keys on, ``count`` how many they are.

        A server that has forgotten the script is told its text again.
        """
        with self._lock:
            self._pending.append((callback, monotonic(), (script, tail, count)))
            self._write(b"*%d\r\n%b%b" % (count + 2, script.by_hash, tail))

    def cast(self, command: bytes) -> None:
        """Send a command whose answer, if any, comes as a push: what a subscriber sends."""
        self._write(command)

    def call(self, arguments: Iterable[Any]) -> Any:
        """Send a command and wait for its reply; error replies are raised."""
        return self.wait(lambda done: self.send(pack(arguments), done))

    def wait(self, start: Callable[[Callback], None]) -> Any:
        """Let ``start`` send something with the callback it is given, and return the reply."""
        replies: list[Any] = []
        start(replies.append)
        deadline = monotonic() + self.patience
        while not replies:
            left = deadline - monotonic()
            if left <= 0 or self.closed:
                raise self.fail(RedisTimeoutError(f"Redis gave no answer for {self.patience:g} seconds"))
            if self._wait_for(POLLIN, left):
                self.receive()
        if isinstance(replies[0], ReplyError):
            raise error_for(replies[0])
        return replies[0]

    def _write(self, data: bytes) -> None:
        if self.closed:
            raise RedisConnectionError("The connection to Redis is closed")
        view = memoryview(data)
        deadline = None
        while view:
            try:
                sent = self._sock.send(view)
                if sent == len(view):
                    return
                view = view[sent:]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                deadline = deadline or monotonic() + self.patience
                if not self._wait_for(POLLOUT, deadline - monotonic()):
                    raise self.fail(RedisTimeoutError(f"Redis took no data for {self.patience:g} seconds"))
            except OSError as error:
                raise self.fail(RedisConnectionError(f"Lost the connection to Redis: {error}")) from error

    def _wait_for(self, event: int, seconds: float) -> bool:
        if event == POLLIN and self.has_buffered:
            return True
        seconds = max(0.0, seconds)
        if hasattr(select, "poll"):
            poller = select.poll()
            poller.register(self.fd, event)
            return bool(poller.poll(seconds * 1000))
        wanted = [self.fd]  # eventlet takes select.poll away
        return any(select.select(wanted if event == POLLIN else [], wanted if event == POLLOUT else [], [], seconds))

    # -- receiving

    def receive(self, most_bytes: int | None = None) -> None:
        """Read what is there, about ``most_bytes`` at most, and hand every whole reply to its callback."""
        reader, left = self._reader, most_bytes or sys.maxsize
        while not self.closed and left > 0:
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                raise self.fail(RedisConnectionError(f"Lost the connection to Redis: {error}")) from error
            if not data:
                raise self.fail(RedisConnectionError("Redis closed the connection"))
            left -= len(data)
            reader.feed(data)
            self._dispatch()
            if len(data) == READ_BYTES:
                self._is_swollen = True
            elif self._is_swollen and not reader.has_data():  # it would keep that room, as large as the reply was
                reader = self._reader = new_reader()
                self._is_swollen = False
            if len(data) < READ_BYTES and not isinstance(self._sock, ssl.SSLSocket):
                return

    def _dispatch(self) -> None:
        gets, pending = self._reader.gets, self._pending
        self.heard_at = monotonic()
        while (reply := gets()) is not False:
            if isinstance(reply, Push) or not pending:
                if self.on_push is not None:
                    self.on_push(reply)
                continue
            callback, _, script_call = pending.popleft()
            if (
                script_call is not None
                and isinstance(reply, ReplyError)
                and str(reply).startswith("NOSCRIPT")
                and not (_NEVER_RELOADS and script_call[0] in self._told)
            ):
                script, tail, count = script_call
                self._told.add(script)
                with self._lock:
                    pending.append((callback, monotonic(), None))
                    self._write(b"*%d\r\n%b%b" % (count + 2, script.by_text, tail))
                continue
            callback(reply)

    # -- state

    @property
    def has_buffered(self) -> bool:
        """Whether TLS has decrypted more than was read; the socket does not tell."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    @property
    def is_busy(self) -> bool:
        return bool(self._pending)

    def overdue(self, now: float) -> float:
        """Return for how many seconds the oldest request has been waiting, 0 if there is none."""
        return now - self._pending[0][1] if self._pending else 0.0

    def upgrade(self) -> bool:
        """Speak RESP 3, if the server can; return whether it does."""
        try:
            answer = self.call(("HELLO", "3"))
        except (RedisConnectionError, RedisTimeoutError):
            raise
        except Exception:  # an old server or a proxy: the command is unknown or refused
            return False
        if isinstance(answer, list):
            answer = dict(zip(answer[::2], answer[1::2], strict=False))
        version = answer.get(b"version", b"0").decode()
        self.server_version = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
        self.protocol = 3
        return True

    def fail(self, error: Exception) -> Exception:
        """Close the wire and return ``error``, for the caller to raise."""
        self.close()
        return error

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._pending.clear()
            try:
                self._connection.disconnect()
            except Exception:  # whatever a broken socket says now, it is closed
                pass
