"""A broker that does not answer holds up no stop: its sockets are cut when the main thread gets no further.

Whatever waits for an answer then (a library may do so without a limit) ends with an error of the connection.  What was
not acknowledged by then is delivered again, as after any lost connection.
"""

from __future__ import annotations

import _thread
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery.utils.failpoints import is_active
from celery.utils.log import get_logger
from celery.utils.threads import broker_sockets

__all__ = ("Impatience",)

logger = get_logger(__name__)

#: Seconds without progress after which the broker has had its chance, and what it gets in the same stop after that.
PATIENCE = 1.0
SECOND_PATIENCE = 0.3
#: Seconds between two looks.
PACE = 0.05

#: Where Linux lists the descriptors of a process; without it these are tried.
DESCRIPTORS = "/proc/self/fd"
LIKELY_DESCRIPTORS = range(3, 1024)

#: Whether a test of the tests has switched this protection off.
_WAITS_FOR_EVER = is_active("unprotect.impatience")


class Impatience:
    """Watches the stop of one worker, from a thread that is started by the first `watch`.

    ``is_excused()`` says whether the main thread may be busy with something that has nothing to do with the broker.
    """

    def __init__(
        self, is_excused: Callable[[], bool] = lambda: False, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_excused = is_excused
        self._monotonic = monotonic
        #: Addresses that this worker was connected to, as sockets tell them.
        self.peers: set[Any] = set()
        self._progress_at: float | None = None
        self._is_running = False
        self._has_cut = False

    def note_peers(self, connection: Any) -> None:
        """Remember where ``connection`` leads to."""
        for sock in broker_sockets(connection):
            try:
                self.peers.add(sock.getpeername())
            except OSError:
                pass

    def watch(self) -> None:
        """From now on there must be progress; may be called in a signal handler."""
        self._progress_at = self._monotonic()
        if not self._is_running and self.peers and not _WAITS_FOR_EVER:
            self._is_running = True
            _thread.start_new_thread(self._run, ())  # takes no lock that the interrupted code may hold

    def progress(self) -> None:
        """Say that the main thread does not wait for the broker just now."""
        if self._progress_at is not None:
            self._progress_at = self._monotonic()

    def rest(self) -> None:
        """What comes now may take its time."""
        self._progress_at = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Expect progress in the context, and none after it."""
        self.watch()
        try:
            yield
        finally:
            self.rest()

    def _run(self) -> None:
        while self._is_running:
            since = self._progress_at
            patience = PATIENCE if not self._has_cut else SECOND_PATIENCE
            if since is not None and self._monotonic() - since > patience and not self.is_excused():
                self._cut()
            time.sleep(PACE)
            if self._progress_at is None:
                self._is_running = False
                self._is_running = self._progress_at is not None  # if `watch` came in between

    def _cut(self) -> None:
        if not self._has_cut:
            self._has_cut = True
            logger.warning("The broker does not answer: stopping without it.")
        for descriptor in _descriptors():
            try:
                with _socket_at(descriptor) as sock:
                    if sock.getpeername() in self.peers:
                        sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed meanwhile, or no socket, or not connected
                pass


def _socket_at(descriptor: int) -> socket.socket:
    """Return a socket of our own for what is open at ``descriptor``."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir(DESCRIPTORS)]
    except OSError:
        return list(LIKELY_DESCRIPTORS)
