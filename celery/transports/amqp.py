"""RabbitMQ through kombu and py-amqp, with acknowledgements sent together.

On an event loop, messages settled in one turn of it are acknowledged by one frame, up to the first that is still
being worked on; the others by a frame each.  Without a loop each is acknowledged at once.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import pyamqp

__all__ = ("Channel", "SSLTransport", "Transport")


class Channel(pyamqp.Channel):  # type: ignore[misc]  # kombu has no types
    """A channel that remembers what it owes the broker until the end of the loop's turn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: Whether a loop will call `settle`.
        self.is_on_loop = False
        self._acknowledged: set[int] = set()
        #: Every delivery up to here is settled; tags count up from 1 on each channel.
        self._settled_through = 0
        #: Settled beyond that: the broker knows it.
        self._settled_beyond: set[int] = set()
        super().__init__(*args, **kwargs)

    def basic_ack(self, delivery_tag: int, multiple: bool = False, argsig: str = "Lb") -> None:
        if multiple:
            super().basic_ack(delivery_tag, True, argsig)
            self._settled_through = max(self._settled_through, delivery_tag)
            self._settled_beyond = {tag for tag in self._settled_beyond if tag > delivery_tag}
            self._acknowledged = {tag for tag in self._acknowledged if tag > delivery_tag}
        elif self.is_on_loop:
            self._acknowledged.add(delivery_tag)
        else:
            super().basic_ack(delivery_tag, False, argsig)
            self._settled_beyond.add(delivery_tag)

    def basic_reject(self, delivery_tag: int, requeue: bool, argsig: str = "Lb") -> None:
        super().basic_reject(delivery_tag, requeue, argsig)
        self._settled_beyond.add(delivery_tag)

    def settle(self) -> None:
        """Acknowledge all that was settled since the last time."""
        waiting = self._acknowledged
        if not waiting:
            return
        through, beyond = self._settled_through, self._settled_beyond
        newest = 0  # the broker takes no tag that it has had before, also not as the end of a range
        while True:
            if through + 1 in waiting:
                waiting.discard(through + 1)
                newest = through + 1
            elif through + 1 in beyond:
                beyond.discard(through + 1)
            else:
                break
            through += 1
        self._settled_through = through
        if newest:
            super().basic_ack(newest, multiple=True)
        for tag in sorted(waiting):
            super().basic_ack(tag)
            beyond.add(tag)
        waiting.clear()

    def close(self, *args: Any, **kwargs: Any) -> Any:
        self.settle_quietly()
        return super().close(*args, **kwargs)

    def settle_quietly(self) -> None:
        """Acknowledge on the way out; where the connection is gone, the broker delivers those messages again."""
        if self._acknowledged and self.connection is not None and self.is_open:
            try:
                self.settle()
            except (OSError, *self.connection.connection_errors):
                self._acknowledged.clear()


class Connection(pyamqp.Connection):  # type: ignore[misc]  # kombu has no types
    """A connection whose channels are ours."""

    Channel = Channel


class _Settling:
    """What a transport adds: at the end of each turn of the loop, its channels settle."""

    Connection = Connection

    def register_with_event_loop(self: Any, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]

        def settle_all() -> None:
            for channel in _channels_of(connection):
                channel.is_on_loop = True
                channel.settle()

        settle_all()
        loop.on_tick.add(settle_all)

    def close_connection(self: Any, connection: Any) -> None:
        for channel in _channels_of(connection):
            channel.settle_quietly()
        super().close_connection(connection)  # type: ignore[misc]


def _channels_of(connection: Any) -> list[Channel]:
    """Return the open channels, without the connection's own."""
    return [channel for channel in list((connection.channels or {}).values()) if isinstance(channel, Channel)]


class Transport(_Settling, pyamqp.Transport):  # type: ignore[misc]  # kombu has no types
    """``amqp://`` and ``pyamqp://``."""


class SSLTransport(_Settling, pyamqp.SSLTransport):  # type: ignore[misc]  # kombu has no types
    """``amqps://``."""
