"""RabbitMQ through kombu and py-amqp, with less work for each message.

Read: one ``recv`` for what the socket has (`reading`), one lean `Message` for each delivery.  Settle: what was
acknowledged in one turn of the loop goes out as one frame (`channel`).
"""

from __future__ import annotations

from typing import Any

from kombu.transport import pyamqp

from celery.transports.amqp.channel import Channel
from celery.transports.amqp.delaying import Parking
from celery.transports.amqp.reading import Message, ReadingAhead, frame_handler, pump
from celery.utils.inflate import MOST_BYTES

__all__ = ("Channel", "Connection", "Message", "SSLTransport", "Transport")


class Connection(pyamqp.Connection):
    """A connection that reads ahead, and whose channels are ours."""

    Channel = Channel

    def __init__(
        self, *args: Any, max_message_bytes: int = MOST_BYTES, max_redeliveries: Any = None, **kwargs: Any
    ) -> None:
        # ``max_redeliveries`` is an option of this transport, but the worker's business.
        #: Bytes of a body, compressed or not.
        self.max_message_bytes = max_message_bytes
        #: Where messages wait that are due later; on an event loop only.
        self.parking: Parking | None = None
        kwargs.setdefault("frame_handler", frame_handler)
        super().__init__(*args, **kwargs)

    def Transport(self, host: str, connect_timeout: float | None, ssl: Any = False, *args: Any, **kwargs: Any) -> Any:
        if ssl:
            return super().Transport(host, connect_timeout, ssl, *args, **kwargs)
        return ReadingAhead(host, connect_timeout, *args, **kwargs)

    def close(self, *args: Any, **kwargs: Any) -> Any:
        if self._transport is not None:
            if self.parking is not None:
                self.parking.flush()
            for channel in channels_of(self):
                channel.settle_quietly()
        return super().close(*args, **kwargs)

    def collect(self) -> None:
        parking, self.parking = self.parking, None
        if parking is not None:
            parking.close()
        super().collect()


class _OnLoop:
    """What a transport adds on an event loop: it reads what is there, and settles at the end of each turn."""

    Connection = Connection

    def register_with_event_loop(self: Any, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)

        def settle_all() -> None:
            for channel in channels_of(connection):
                channel.is_on_loop = True
                channel.settle()

        if connection.parking is None:
            connection.parking = Parking(connection.client, loop)
        settle_all()
        loop.on_tick.add(settle_all)

    def on_readable(self: Any, connection: Any, loop: Any) -> None:
        if isinstance(connection._transport, ReadingAhead):
            pump(connection, loop)
        else:
            super().on_readable(connection, loop)


def channels_of(connection: Any) -> list[Channel]:
    """Return the open channels, without the connection's own."""
    return [channel for channel in list((connection.channels or {}).values()) if isinstance(channel, Channel)]


class Transport(_OnLoop, pyamqp.Transport):
    """``amqp://`` and ``pyamqp://``."""


class SSLTransport(_OnLoop, pyamqp.SSLTransport):
    """``amqps://``."""
