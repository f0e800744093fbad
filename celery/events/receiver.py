"""Receives events and hands them to handlers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

from kombu import Queue
from kombu.connection import maybe_channel
from kombu.mixins import ConsumerMixin
from kombu.utils.uuid import uuid

from celery._state import app_or_default
from celery.events.event import get_exchange
from celery.exceptions import ImproperlyConfigured
from celery.utils.time import adjust_timestamp

__all__ = ("EventReceiver",)

CLIENT_CLOCK_SKEW = -1

_time_fields = itemgetter("utcoffset", "timestamp")


class EventReceiver(ConsumerMixin):
    """Calls ``handlers[type](event)`` for each event, ``handlers["*"]`` for those without a handler of their own.

    ``routing_key`` selects events (``task.#``); the queue is this receiver's own, and goes away with it.
    """

    app: Any = None

    def __init__(
        self,
        channel: Any,
        handlers: dict[str, Callable[[dict[str, Any]], Any]] | None = None,
        routing_key: str = "#",
        node_id: str | None = None,
        app: Any = None,
        queue_prefix: str | None = None,
        accept: Any = None,
        queue_ttl: float | None = None,
        queue_expires: float | None = None,
        queue_exclusive: bool | None = None,
        queue_durable: bool | None = None,
    ) -> None:
        self.app = app_or_default(app or self.app)
        conf = self.app.conf
        self.channel = maybe_channel(channel)
        self.handlers = {} if handlers is None else handlers
        self.routing_key = routing_key
        self.node_id = node_id or uuid()
        self.queue_prefix = queue_prefix or conf.event_queue_prefix
        exclusive = conf.event_queue_exclusive if queue_exclusive is None else queue_exclusive
        durable = conf.event_queue_durable if queue_durable is None else queue_durable
        if exclusive and durable:
            raise ImproperlyConfigured(
                "event_queue_exclusive and event_queue_durable cannot both be set: "
                "an exclusive queue ends with its connection, a durable one outlives it."
            )
        self.exchange = get_exchange(self.connection or self.app.connection_for_write(), name=conf.event_exchange)
        self.queue = Queue(
            f"{self.queue_prefix}.{self.node_id}",
            exchange=self.exchange,
            routing_key=routing_key,
            auto_delete=True,
            durable=durable,
            exclusive=exclusive,
            message_ttl=conf.event_queue_ttl if queue_ttl is None else queue_ttl,
            expires=conf.event_queue_expires if queue_expires is None else queue_expires,
        )
        self.clock = self.app.clock
        self.adjust_clock = self.clock.adjust
        self.forward_clock = self.clock.forward
        self.accept = {conf.event_serializer, "json"} if accept is None else accept

    @property
    def connection(self) -> Any:
        return self.channel.connection.client if self.channel else None

    def process(self, type: str, event: dict[str, Any]) -> None:
        """Hand one event to its handler."""
        handler = self.handlers.get(type) or self.handlers.get("*")
        if handler:
            handler(event)

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:
        return [Consumer(queues=[self.queue], callbacks=[self._receive], no_ack=True, accept=self.accept)]

    def on_consume_ready(
        self, connection: Any, channel: Any, consumers: list[Any], wakeup: bool = True, **kwargs: Any
    ) -> None:
        if wakeup:
            self.wakeup_workers(channel=channel)

    def itercapture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> Iterator[Any]:
        """Consume events, and yield between them; the arguments are those of ``capture``."""
        return self.consume(limit=limit, timeout=timeout, wakeup=wakeup)  # type: ignore[no-any-return]

    def capture(self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True) -> None:
        """Consume events until ``limit`` of them came, or none for ``timeout`` seconds (`socket.timeout` then).

        This blocks, and never ends without either.
        """
        for _ in self.consume(limit=limit, timeout=timeout, wakeup=wakeup):
            pass

    def wakeup_workers(self, channel: Any = None) -> None:
        """Ask every worker for a heartbeat, so that all are known at once."""
        self.app.control.broadcast("heartbeat", connection=self.connection, channel=channel)

    def event_from_message(
        self,
        body: dict[str, Any],
        localize: bool = True,
        now: Callable[[], float] = time.time,
        tzfields: Callable[[dict[str, Any]], tuple[Any, Any]] = _time_fields,
        adjust_timestamp: Callable[..., float] = adjust_timestamp,
        CLIENT_CLOCK_SKEW: int = CLIENT_CLOCK_SKEW,
    ) -> tuple[str, dict[str, Any]]:
        """Return type and event of a message's body; ``localize`` turns its time into this host's."""
        type = body["type"]
        if type == "task-sent":
            # Clients keep no clock: what they sent comes just before what a worker does next.
            body["clock"] = (self.clock.value or 1) + CLIENT_CLOCK_SKEW
        else:
            clock = body.get("clock")
            if clock is None:
                body["clock"] = self.forward_clock()
            else:
                self.adjust_clock(clock)
        if localize:
            try:
                offset, timestamp = tzfields(body)
            except KeyError:
                pass
            else:
                body["timestamp"] = adjust_timestamp(timestamp, offset)
        body["local_received"] = now()
        return type, body

    def _receive(self, body: Any, message: Any) -> None:
        events = body if isinstance(body, list) else [body]
        for event in events:
            self.process(*self.event_from_message(event))
