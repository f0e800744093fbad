"""A channel whose acknowledgements are sent together.

On an event loop, messages settled in one turn of it are acknowledged by one frame, up to the first that is still
being worked on; the others by a frame each.  Without a loop each is acknowledged at once.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from amqp.exceptions import RecoverableConnectionError
from kombu.transport import pyamqp

from celery.transports.amqp.reading import Message
from celery.transports.errors import MessageTooLarge
from celery.utils.failpoints import is_active

__all__ = ("Channel",)

#: Class and method of ``basic.ack``, and its arguments: tag, and whether all before it are meant, too.
ACK = (60, 80)
_ack_arguments = Struct(">QB").pack

#: Whether a test of the tests has switched a protection off.
_SENDS_ANY_SIZE = is_active("unprotect.size")
_KEEPS_NOTHING = is_active("unprotect.durable")


class Channel(pyamqp.Channel):
    """A channel that remembers what it owes the broker until the end of the loop's turn."""

    Message = Message

    #: A broadcast may be held and acknowledged: given back it comes again here, and to nobody else.
    holds_broadcasts = True

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        #: Whether a loop will call `settle`.
        self.is_on_loop = False
        self._acknowledged: set[int] = set()
        #: Every delivery up to here is settled; tags count up from 1 on each channel.
        self._settled_through = 0
        #: Settled beyond that: the broker knows it.
        self._settled_beyond: set[int] = set()
        #: The queue of each consumer, by its tag.
        self._queues: dict[str, str] = {}
        self.max_message_bytes: int = connection.max_message_bytes
        super().__init__(connection, *args, **kwargs)

    # -- messages ------------------------------------------------------------------------------------------------

    def message_to_python(self, raw_message: Any) -> Any:
        """Return what was delivered as a message; what came by ``basic_get`` is still py-amqp's."""
        if isinstance(raw_message, Message):
            return raw_message
        info = raw_message.delivery_info
        return self.Message(raw_message.body, self, info.get("delivery_tag"), raw_message.properties, info)

    def prepare_message(self, body: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the message that will be sent.

        Raises:
            MessageTooLarge: the body is over ``max_message_bytes``.
        """
        if len(body) > self.max_message_bytes and not _SENDS_ANY_SIZE:
            raise MessageTooLarge(len(body), self.max_message_bytes)
        message = super().prepare_message(body, *args, **kwargs)
        if _KEEPS_NOTHING:
            message.properties["delivery_mode"] = 1
        return message

    def basic_consume(self, queue: str = "", *args: Any, **kwargs: Any) -> Any:
        consumer_tag = super().basic_consume(queue, *args, **kwargs)
        self._queues[consumer_tag] = queue
        return consumer_tag

    def park(self, message: Any, due: float) -> bool:
        """Give ``message`` to the broker until ``due`` (seconds since 1970); false if that cannot be."""
        queue = self._queues.get(message.delivery_info.get("consumer_tag", ""))
        parking = self.connection.parking if self.connection is not None else None
        if not queue or parking is None or message.acknowledged or self.no_ack_consumers:
            return False
        return bool(parking.park(message, queue, due))

    # -- acknowledgements ----------------------------------------------------------------------------------------

    def basic_ack(self, delivery_tag: int, multiple: bool = False, argsig: str = "Lb") -> None:
        if multiple:
            self._send_ack(delivery_tag, True)
            self._settled_through = max(self._settled_through, delivery_tag)
            self._settled_beyond = {tag for tag in self._settled_beyond if tag > delivery_tag}
            self._acknowledged = {tag for tag in self._acknowledged if tag > delivery_tag}
        elif self.is_on_loop:
            self._acknowledged.add(delivery_tag)
        else:
            self._send_ack(delivery_tag)
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
            self._send_ack(newest, True)
        for tag in sorted(waiting):
            self._send_ack(tag)
            beyond.add(tag)
        waiting.clear()

    def _send_ack(self, tag: int, multiple: bool = False) -> None:
        connection = self.connection
        if connection is None:
            raise RecoverableConnectionError("connection already closed")
        connection.frame_writer(1, self.channel_id, ACK, _ack_arguments(tag, multiple), None)

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
