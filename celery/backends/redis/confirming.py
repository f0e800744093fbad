"""Stores of a worker's child: written together while tasks are brief, and confirmed in bulk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from redis import exceptions

from celery.backends.owing import OWED_BYTES_MAX, OWED_MAX, Absence
from celery.backends.redis.line import Line
from celery.exceptions import BackendStoreError
from celery.protocol.resp import ReplyError, error_for
from celery.utils.failpoints import failpoint, is_active

__all__ = ("Deferred",)

#: How many confirmations may be outstanding; more are collected without being asked.
OUTSTANDING_MAX = 256

#: Whether a test of the tests has switched this protection off.
_FORGETS_WHAT_IT_OWES = is_active("unprotect.store")

#: So many bytes are held back at the most.
HELD_BYTES = 32 * 1024

#: MULTI, SETEX, PUBLISH, EXEC are answered one by one.
REPLIES_PER_STORE = 4


class Deferred:
    """The line of one thread, and what was written to it but is not confirmed yet.

    Whatever else the thread asks of Redis goes over the same line, behind what it stored; so it reads what it wrote.
    """

    __slots__ = (
        "__weakref__",
        "_absence",
        "_held",
        "_held_bytes",
        "_open",
        "_owed_bytes",
        "_retry",
        "line",
        "unconfirmed",
    )

    def __init__(self, open_line: Callable[[], Line], retry: Callable[[Callable[[], Any]], Any]) -> None:
        self._open = open_line
        self._retry = retry
        self.line: Line | None = None
        self.unconfirmed: deque[tuple[bytes, bytes]] = deque()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._owed_bytes = 0
        self._absence = Absence()

    def store(self, key: bytes, packet: bytes) -> None:
        """Take a store; it is kept until Redis has confirmed it.

        It is written by the next `send_held` or `flush`: a child calls these before it waits, and before a task that
        may take its time.
        """
        self.unconfirmed.append((packet, key))
        self._held.append(packet)
        self._held_bytes += len(packet)
        self._owed_bytes += len(packet)
        if len(self.unconfirmed) >= OUTSTANDING_MAX:
            self._collect_or_go_on()
        elif self._held_bytes >= HELD_BYTES:
            self.send_held()

    def _collect_or_go_on(self) -> None:
        """Collect confirmations; if the store is away, let tasks go on as long as what is owed to it is bearable."""
        is_bearable = len(self.unconfirmed) < OWED_MAX and self._owed_bytes < OWED_BYTES_MAX
        try:
            self.flush(patiently=not is_bearable)
        except BackendStoreError:
            raise
        except Exception:  # `flush` will say so to whoever has to know
            if not is_bearable:
                raise

    def send_held(self) -> None:
        """Write what was held back, without waiting for the answer.

        If the store is away, `flush` sends it.
        """
        if not self._held:
            return
        line = self.line
        data = b"".join(self._held)
        self._forget_held()
        if line is not None and not line.closed:
            try:
                line.send(data)
                return
            except Exception:  # the line was idle for long, perhaps
                line.close()
        if not self._absence.rests:
            self._send_again_or_rest()

    def _send_again_or_rest(self) -> None:
        began = monotonic()
        try:
            self._send_again()
        except Exception as error:  # `flush` tells
            self._absence.note(error, began)

    def _forget_held(self) -> None:
        self._held.clear()
        self._held_bytes = 0

    def _send_again(self) -> Line:
        """Open a line and write again what is not confirmed: a store twice is the same as once."""
        line = self._open()
        if self.unconfirmed:
            line.send(b"".join([packet for packet, _ in self.unconfirmed]))
        self._forget_held()
        self.line = line
        return line

    def _ready_line(self) -> Line:
        return self.line if self.line is not None and not self.line.closed else self._send_again()

    def flush(self, patiently: bool = True) -> None:
        """Wait for all confirmations; ``patiently`` also for a store that is away.

        Raises:
            BackendStoreError: Redis refused something; the rest is confirmed.
        """
        if self.unconfirmed:
            self.send_held()
            refused: list[tuple[bytes, Exception]] = []
            failpoint("store.before_confirm")
            try:
                if patiently:
                    self._retry(lambda: self._collect(refused))
                else:
                    self._absence.raise_while_resting()
                    self._collect(refused)
            except Exception:
                if _FORGETS_WHAT_IT_OWES:
                    self._forget_owed()
                raise
            if refused:
                raise _refusal(refused)

    def _collect(self, refused: list[tuple[bytes, Exception]]) -> None:
        began = monotonic()
        try:
            self._collect_replies(refused)
        except Exception as error:
            self._absence.note(error, began)
            raise
        self._absence.trouble = None

    def _collect_replies(self, refused: list[tuple[bytes, Exception]]) -> None:
        line = self._ready_line()
        reply, unconfirmed = line.reply, self.unconfirmed
        while unconfirmed:
            *earlier, answer = [reply() for _ in range(REPLIES_PER_STORE)]
            if isinstance(answer, ReplyError):  # an earlier one says why
                error = error_for(next((each for each in earlier if isinstance(each, ReplyError)), answer))
                if is_about_the_server(error):
                    line.close()
                    raise error
                refused.append((unconfirmed[0][1], error))
            self._owed_bytes -= len(unconfirmed.popleft()[0])

    def use(self, exchange: Callable[[Line], Any]) -> Any:
        """Do an exchange on the line, behind what was stored; it is the caller who tries again."""
        self._absence.trouble = None  # somebody waits for this one
        self.flush(patiently=False)
        line = self._ready_line()
        try:
            return exchange(line)
        except exceptions.ReadOnlyError:  # the next line may lead to another server
            line.close()
            raise

    def abandon(self) -> None:
        """Forget all, in a child process."""
        if self.line is not None:
            self.line.abandon()
            self.line = None
        self._forget_owed()

    def _forget_owed(self) -> None:
        self.unconfirmed.clear()
        self._owed_bytes = 0
        self._forget_held()


def is_about_the_server(error: Exception) -> bool:
    """Whether another server, or this one a little later, would do it: it loads, is full, or a replica now."""
    return isinstance(
        error,
        (exceptions.ConnectionError, exceptions.ReadOnlyError, exceptions.TimeoutError, exceptions.OutOfMemoryError),
    )


def _refusal(refused: list[tuple[bytes, Exception]]) -> BackendStoreError:
    key, error = refused[0]
    more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
    return BackendStoreError(
        f"Redis refused to store {key.decode(errors='replace')}{more}: {error}", task_id=key.decode(errors="replace")
    )
