"""A bound on how long a database may take to answer: the drivers for PostgreSQL have none of their own."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy.exc import TimeoutError

__all__ = ("Deadlines", "deadlines")


class _Wait:
    """Somebody who waits for an answer on a connection."""

    def __init__(self, until: float, descriptor: int) -> None:
        self.until = until
        self.descriptor = descriptor
        self.is_cut = False


class Deadlines:
    """Cuts the connections on which somebody has waited for too long, from a thread of its own."""

    def __init__(self) -> None:
        self._waits: set[_Wait] = set()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._looks_at = 0.0

    @contextmanager
    def bound(self, connection: Any, seconds: float) -> Iterator[None]:
        """Give what is done with ``connection``, a driver's, at most ``seconds``.

        Raises:
            TimeoutError: of SQLAlchemy; it took longer, and the connection is lost.
        """
        fileno = getattr(connection, "fileno", None)
        if fileno is None:  # a driver with bounds of its own, or a file
            yield
            return
        # A descriptor of our own: the number of the driver's may be another connection's once that is closed.
        wait = _Wait(time.monotonic() + seconds, os.dup(fileno()))
        self._add(wait)
        try:
            yield
        except Exception as error:
            if wait.is_cut:
                raise TimeoutError(f"the database did not answer within {seconds:.3g} s") from error
            raise
        finally:
            with self._news:
                self._waits.discard(wait)
                os.close(wait.descriptor)

    def _add(self, wait: _Wait) -> None:
        with self._news:
            self._waits.add(wait)
            if self._thread is None or not self._thread.is_alive():
                self._looks_at = wait.until
                self._thread = threading.Thread(target=self._watch, name="celery-database-deadlines", daemon=True)
                self._thread.start()
            elif wait.until < self._looks_at:
                self._news.notify()

    def _watch(self) -> None:
        with self._news:
            while True:
                now = time.monotonic()
                for wait in self._waits:
                    if now >= wait.until and not wait.is_cut:
                        wait.is_cut = True
                        _cut(wait.descriptor)
                self._looks_at = min((wait.until for wait in self._waits if not wait.is_cut), default=float("inf"))
                self._news.wait(None if self._looks_at == float("inf") else self._looks_at - now)


def _cut(descriptor: int) -> None:
    """End the connection, so that whoever reads from it is told so."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)


#: Those of this process.
deadlines = Deadlines()


def _after_fork_in_child() -> None:
    deadlines.__init__()  # type: ignore[misc]  # its thread and its lock are the parent's


os.register_at_fork(after_in_child=_after_fork_in_child)
