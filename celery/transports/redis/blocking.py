"""The engine without an event loop: wait for messages, and for replies."""

from __future__ import annotations

import select
import socket
from time import monotonic
from typing import Any

from celery.transports.redis.resp import pack
from celery.transports.redis.wire import PUBLICATION_BYTES

__all__ = ("Blocking",)

_PING = pack(("PING",))


class Blocking:
    """Part of an engine."""

    def drain(self: Any, timeout: float | None) -> None:
        """Wait for at least one message and deliver it.

        Raises:
            TimeoutError: nothing came within ``timeout`` seconds.
        """
        if self.failure is not None:
            raise self.failure
        self._is_draining = True
        try:
            self._guarded(lambda: self._drain(timeout))
            if self.lease is not None and not any(channel.backlog for channel in self.channels):
                self.send_acks()
                self.send_parks()
        finally:
            self._is_draining = False

    def _drain(self: Any, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            now = monotonic()
            if now >= self._housekeeping_at:
                self.housekeeping(now)
            delivered = self.turn(limit=1)
            if self.lease is not None and not self.lease.is_idle:
                self.keep()
            if delivered:
                return
            if deadline is not None and now >= deadline:
                raise TimeoutError("timed out")
            self._wait(now, deadline)

    def _wait(self: Any, now: float, deadline: float | None) -> None:
        until = self._housekeeping_at or now + 1
        if self._alarms:
            until = min(until, self._alarms[0][0])
        if deadline is not None:
            until = min(until, deadline)
        wakers = self._wakers = self._wakers or _wake_pair()
        wires = [wire for wire in (self.wire, self.sub) if wire is not None]
        if any(wire.has_buffered for wire in wires):
            until = now
        self._is_waiting = True
        if self.lease is not None and (self.lease.acks or self.lease.begins or self.lease.ends):
            until = min(until, max(self._flush_at, now))
        try:
            ready = _wait_readable([*(wire.fd for wire in wires), wakers[0].fileno()], max(0.0, until - now))
        finally:
            self._is_waiting = False
        for wire in wires:
            if wire.fd in ready or wire.has_buffered:
                wire.receive(PUBLICATION_BYTES if wire is self.sub else None)
        if wakers[0].fileno() in ready:
            wakers[0].recv(4096)

    def wake(self: Any) -> None:
        """See to it that an acknowledgement leaves soon; any thread may call this."""
        if self.hub is not None:
            return  # the next tick comes by itself
        if not self._is_draining:
            if not self.is_broken:
                self._guarded(self.send_acks)
                self._guarded(self.send_parks)
        elif self._is_waiting and self._wakers is not None:
            try:
                self._wakers[1].send(b"\0")
            except OSError:  # full of wake-ups already
                pass

    def wait_for_replies(self: Any) -> None:
        """Return when everything that was sent is answered, or the patience ends."""
        wire = self.wire
        # More than once: a script that the server did not know is sent again after what we wait for.
        while wire is not None and not wire.closed and wire.is_busy:
            wire.wait(lambda done: wire.send(_PING, done))

    def flush(self: Any) -> None:
        """Send every waiting acknowledgement, and what has started, now and wait until it is confirmed."""
        if self.wire is not None and not self.is_broken:
            self.send_acks()
            self.send_parks()
            if self.lease is not None:
                self._send_marks(self.lease)
                self.send_begun(self.lease)
            self.wait_for_replies()


def _wake_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
    return pair


def _wait_readable(fds: list[int], seconds: float) -> set[int]:
    if hasattr(select, "poll"):
        poller = select.poll()
        for fd in fds:
            poller.register(fd, select.POLLIN)
        return {fd for fd, _ in poller.poll(seconds * 1000)}
    return set(select.select(fds, [], [], seconds)[0])
