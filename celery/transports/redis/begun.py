"""The engine's record of what began and must not run again: tasks that acknowledge early.

Their deliveries leave the index from which lost messages are given out, and stand in one of their own until they end.
What a dead worker left there did begin: it is not run again, but whoever waits for it can be told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kombu.log import get_logger

from celery.transports.message import Malformed, parse
from celery.transports.redis.lease import Lease
from celery.transports.redis.resp import ReplyError, bulk, pack
from celery.transports.redis.scripts import BEGIN, LEFT
from celery.utils.failpoints import failpoint

__all__ = ("Begun", "begin_arguments")

logger = get_logger("celery.transports.redis")

TAGS_A_CALL = 1000
#: At most so many are looked at in one sweep.
LEFT_AT_ONCE = 100


class Begun:
    """Part of an engine."""

    if TYPE_CHECKING:  # what the engine gives
        lease: Lease | None
        wire: Any
        transport: Any
        refused: Callable[[ReplyError], Exception]

    def send_begun(self: Any, lease: Lease) -> None:
        """Tell Redis what began and what ended."""
        if self.wire is None:
            return
        begins = lease.take_begins()
        if begins:
            failpoint("begun.before_send")
            self._send_begins(lease, begins)
        ends = lease.take_ends()
        if ends:
            self._ends_in_flight.append(ends)
            # The record first: an entry of the index without one is removed by the next sweep.
            self.wire.send(pack(("HDEL", lease.unacked, *ends)), self._on_ends_answered)
            self.wire.send(pack(("ZREM", lease.begun_index, *ends)), _ignore)

    def renew_begun(self: Any, lease: Lease) -> None:
        """Extend the time for which all that runs counts as running."""
        lease.begins.clear()
        lease.begun.update(dict.fromkeys(lease.begun, True))
        self._send_begins(lease, list(lease.begun))

    def _send_begins(self: Any, lease: Lease, tags: list[str]) -> None:
        ttl = self.channels[0].lease_ttl if self.channels else 60
        for start in range(0, len(tags), TAGS_A_CALL):
            arguments = begin_arguments(lease, ttl, tags[start : start + TAGS_A_CALL])
            self.wire.run(BEGIN, b"".join(map(bulk, arguments)), len(arguments), self._on_begins_answered)

    def _on_begins_answered(self: Any, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise self.refused(reply)
        failpoint("begun.after_send")
        for tag in reply:  # given up for lost while we were away; what it stores still counts
            self.lease.begun.pop(tag.decode(), None)

    def _on_ends_answered(self: Any, reply: Any) -> None:
        ends = self._ends_in_flight.popleft()
        if isinstance(reply, ReplyError):
            self.lease.ends[:0] = ends
            raise self.refused(reply)

    def look_for_left(self: Any, ttl: float) -> None:
        """Find what dead workers had begun, and tell of it: ``transport.on_left(queue, envelope, forget)``.

        It is told of again, here or elsewhere, unless ``forget()`` is called within ``ttl`` seconds.
        """
        lease = self.lease
        if lease is None or self.wire is None:
            return
        arguments = (0, lease.unacked, lease.begun_index, ttl, LEFT_AT_ONCE)
        self.wire.run(LEFT, b"".join(map(bulk, arguments)), len(arguments), self._on_left)

    def _on_left(self: Any, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise self.refused(reply)
        lease = self.lease
        for tag, record in zip(reply[::2], reply[1::2], strict=True):

            def forget(tag: str = tag.decode()) -> None:
                lease.ends.append(tag)
                self.wake()

            try:
                envelope, _, queue = json.loads(record)
                envelope = parse(json.dumps(envelope).encode())
            except (Malformed, ValueError, TypeError) as error:
                logger.error("A task that a lost worker had begun cannot be read: %s", error)
                forget()
                continue
            self.transport.on_left(queue, envelope, forget)


def begin_arguments(lease: Lease, ttl: float, tags: list[str]) -> tuple[Any, ...]:
    return (0, lease.unacked, lease.index, lease.begun_index, ttl, *tags)


def _ignore(reply: Any) -> None:
    """An error shows in the answer before."""
