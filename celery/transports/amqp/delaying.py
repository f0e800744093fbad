"""Messages that are due later wait in RabbitMQ, in a chain of queues, and not in the memory of a worker.

The chain is that of Celery's native delayed delivery, under names of our own (``celeriac_celery_delayed_27`` and so
on): in queue *n* a message waits 2^n seconds, and the binary digits in front of its routing key say in which queues.
Behind the last one it goes back into the queue that it came from.

A copy is published and confirmed before the original is acknowledged, on a connection of its own: RabbitMQ stops
reading from publishers when it is short of memory, and acknowledgements must still get through then.  See
docs/design/delayed.md.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time
from typing import Any

import amqp
from kombu.log import get_logger
from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    MAX_LEVEL,
    MAX_NUMBER_OF_BITS_TO_USE,
    calculate_routing_key,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)

from celery.utils.failpoints import is_active

__all__ = ("CHAIN", "Parking", "restore")

logger = get_logger("celery.transports.amqp")

PREFIX = "celeriac"
#: Where the chain begins, where it ends, and how the names of all its exchanges begin.
FIRST_EXCHANGE = level_name(MAX_LEVEL, PREFIX)
DELIVERY_EXCHANGE = f"{PREFIX}_{CELERY_DELAYED_DELIVERY_EXCHANGE}"
CHAIN = f"{PREFIX}_celery_delayed_"
LONGEST = 2 ** (MAX_LEVEL + 1) - 1
#: Whether a test of the tests has switched this protection off.
_SHARES = is_active("unprotect.publishing")
#: Header with the exchange and the routing key that the message was published with.
CAME_BY = "x-celeriac-parked"
#: What RabbitMQ notes on the way through the chain.
TRACES = ("x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason")
#: Routing keys are short strings of AMQP.
LONGEST_KEY = 255


def restore(info: dict[str, Any], headers: dict[str, Any]) -> bool:
    """Make ``info`` and ``headers`` of a delivery what they were before it waited; false if it was not parked by us."""
    came_by = headers.pop(CAME_BY, None)
    for name in TRACES:
        headers.pop(name, None)
    if came_by is None:
        return False
    info["exchange"], info["routing_key"] = came_by
    return True


class Parking:
    """Where one connection's messages are parked; ``client`` is a kombu connection to copy, ``loop`` kombu's hub."""

    def __init__(self, client: Any, loop: Any) -> None:
        self.client = client
        self.loop = loop
        self.is_refused = False
        #: Called with true when confirmations are waited for, and with false when none is any more.
        self.on_busy: Callable[[bool], None] = _nobody
        self._connection: Any = None
        self._channel: Any = None
        self._queues: set[str] = set()
        self._published = 0
        #: Those that wait for their confirmation, by the number under which they were published; in order.
        self._unconfirmed: dict[int, Any] = {}

    def park(self, message: Any, queue: str, due: float) -> bool:
        """Give ``message``, which came from ``queue``, to the broker until ``due`` (seconds since 1970).

        Returns false if it cannot be parked: less than a second is left, or the broker refuses.  It is acknowledged
        when the broker has confirmed the parked copy.
        """
        seconds = min(int(due - time()), LONGEST)
        if seconds < 1 or self.is_refused or "expiration" in message.properties or not _can_route(queue):
            return False
        try:
            self._prepare(queue)
        except (*amqp.Connection.channel_errors, *amqp.Connection.connection_errors, OSError) as error:
            self.is_refused = True
            self.close()
            logger.warning("Tasks that are due later wait in this worker: the broker cannot keep them (%s)", error)
            return False
        info = message.delivery_info
        headers = {**message.headers, CAME_BY: [info.get("exchange") or "", info.get("routing_key") or ""]}
        copy = amqp.Message(message.raw_body, **{**message.properties, "application_headers": headers})
        self._channel.basic_publish(copy, FIRST_EXCHANGE, calculate_routing_key(seconds, queue))
        self._published += 1
        if not self._unconfirmed:
            self.on_busy(True)
        self._unconfirmed[self._published] = message
        return True

    def _prepare(self, queue: str) -> None:
        """See to it that the chain exists and leads back into ``queue``."""
        if self._connection is None:
            self._connect()
        if queue not in self._queues:
            pattern = ".".join(["*"] * MAX_NUMBER_OF_BITS_TO_USE + [queue])
            self._channel.queue_bind(queue, DELIVERY_EXCHANGE, pattern)
            self._queues.add(queue)

    def _connect(self) -> None:
        connection = self._connection = self.client if _SHARES else self.client.clone(heartbeat=0)
        connection.connect()
        channel = connection.channel()
        declare_native_delayed_delivery_exchanges_and_queues(connection, "classic", PREFIX)
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_confirmed)
        channel.events["basic_nack"].add(self._on_refused)
        self._channel = channel
        if _SHARES:
            return
        connection.transport.register_with_event_loop(connection.connection, self.loop)

    def _on_confirmed(self, number: int, multiple: bool) -> None:
        for message in self._settled(number, multiple):
            message.ack()

    def _on_refused(self, number: int, multiple: bool) -> None:
        for message in self._settled(number, multiple):
            message.requeue()

    def _settled(self, number: int, multiple: bool) -> list[Any]:
        numbers = [each for each in self._unconfirmed if each <= number] if multiple else [number]
        settled = [self._unconfirmed.pop(each) for each in numbers if each in self._unconfirmed]
        if settled and not self._unconfirmed:
            self.on_busy(False)
        return settled

    def flush(self, seconds: float = 5.0) -> None:
        """Wait until the broker has confirmed what was parked; what it has not by then is delivered again."""
        deadline = time() + seconds
        while self._unconfirmed and self._connection is not None and time() < deadline:
            try:
                self._connection.drain_events(timeout=max(deadline - time(), 0.01))
            except (TimeoutError, OSError, *amqp.Connection.connection_errors):
                break

    def close(self) -> None:
        """Drop the connection, without waiting for the broker."""
        connection, self._connection = self._connection, None
        self._queues.clear()
        self._unconfirmed.clear()
        self._published = 0
        if connection is not None and not _SHARES:
            if connection.connected:
                self.loop.remove_reader(connection.connection.fileno())
            connection.collect()


def _nobody(is_busy: bool) -> None:
    """Nobody wants to know."""


def _can_route(queue: str) -> bool:
    """Whether a queue's name can be the end of a routing key, and mean itself in a pattern."""
    return "*" not in queue and "#" not in queue and len(queue.encode()) + 2 * MAX_NUMBER_OF_BITS_TO_USE <= LONGEST_KEY
