"""Calls to be made on the thread of the event loop, from whichever thread."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from celery.concurrency.base import tell

__all__ = ("Mailbox",)


class Mailbox:
    """A queue of calls, and a socket whose byte wakes the loop that makes them."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._has_rung = False
        self._hub: Any = None

    def use(self, hub: Any) -> None:
        """Let ``hub`` deliver."""
        self._hub = hub
        hub.add_reader(self._reader.fileno(), self.deliver)

    def put(self, function: Callable[..., Any], *args: Any) -> None:
        """Have ``function(*args)`` called on the loop's thread."""
        self._calls.append((function, args))
        if not self._has_rung:
            self._has_rung = True
            try:
                self._writer.send(b"\0")
            except OSError:  # full: the loop will wake anyway; closed: nobody listens
                pass

    def deliver(self) -> None:
        """Make the calls that are there now."""
        try:
            self._reader.recv(512)
        except OSError:
            pass
        self._has_rung = False  # before looking: whoever comes later rings again
        calls = self._calls
        for _ in range(len(calls)):
            function, args = calls.popleft()
            tell(function, *args)

    def wait(self, seconds: float) -> None:
        """Wait for calls, without a hub, and make them."""
        if not self._calls:
            select.select([self._reader], [], [], seconds)
        self.deliver()

    def close(self) -> None:
        if self._hub is not None:
            self._hub.remove(self._reader.fileno())
            self._hub = None
        self._reader.close()
        self._writer.close()
