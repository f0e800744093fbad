"""The direct lane: a producer that gives messages to the transport's own ``Publisher``.

One long-lived socket for each thread and process, no pool, no channel.  Whoever asks such a producer for its channel
(a result backend may) gets one, opened at that moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import kombu
from kombu import Queue
from kombu.entity import Exchange, maybe_delivery_mode
from kombu.exceptions import KombuError, OperationalError

from celery import signals
from celery.app.encoding import encode
from celery.transports import resolve

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ("DirectProducer", "open_direct")

#: A batch is sent in pieces of this many messages, so that a huge group does not sit in memory as a whole.
BATCH_SIZE = 500


def open_direct(app: Celery) -> DirectProducer | None:
    """Return a new producer for this thread, or ``None`` if the broker's transport has no publisher of its own."""
    if app.amqp.Producer is not kombu.Producer:
        return None  # somebody wants to see every message
    transport = resolve(app.conf.broker_write_url or "amqp")
    make = getattr(transport, "Publisher", None)
    if make is None:
        return None
    connection = app.connection_for_write()
    return DirectProducer(app, connection, make)


class DirectProducer(kombu.Producer):
    """Publishes through a transport's ``Publisher``, with kombu's retry policies and errors."""

    def __init__(self, app: Celery, connection: Any, make_publisher: Callable[[Any], Any]) -> None:
        super().__init__(connection)
        self.app = app
        self.publisher = make_publisher(connection)
        self.errors = tuple(connection.connection_errors) + tuple(connection.channel_errors)
        self.seconds = 10.0
        self._declared: set[Any] = set()
        self._collected: list[tuple[Any, ...]] | None = None

    def publish(  # type: ignore[override]
        self,
        body: Any,
        routing_key: str | None = None,
        delivery_mode: Any = None,
        mandatory: bool | None = False,
        immediate: bool | None = False,
        priority: int | None = 0,
        content_type: str | None = None,
        content_encoding: str | None = None,
        serializer: str | None = None,
        headers: dict[str, Any] | None = None,
        compression: str | None = None,
        exchange: Any = None,
        retry: bool = False,
        retry_policy: Mapping[str, Any] | None = None,
        declare: Any = None,
        expiration: float | None = None,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
        **properties: Any,
    ) -> None:
        """Publish as kombu's producer does; an answer of the broker is waited for, so a return means it is stored."""
        headers = {} if headers is None else headers
        if content_type:
            if isinstance(body, str):
                content_encoding = content_encoding or "utf-8"
            content_encoding = content_encoding or "binary"
        else:
            body, content_type, content_encoding = encode(body, serializer or self.serializer, compression, headers)
        if delivery_mode is None and isinstance(exchange, Exchange):
            delivery_mode = exchange.delivery_mode
        properties["delivery_mode"] = maybe_delivery_mode(delivery_mode or self.exchange.delivery_mode)
        if priority is not None:
            properties["priority"] = priority
        if expiration is not None:
            properties["expiration"] = str(int(expiration * 1000))
        reply_to = properties.get("reply_to")
        if isinstance(reply_to, Queue):
            properties["reply_to"] = reply_to.name
        exchange_name = exchange.name if isinstance(exchange, Exchange) else exchange or ""
        if declare:
            for entity in declare:
                self._declare_once(entity)
        message = (body, headers, properties, content_type, content_encoding, exchange_name, routing_key or "")
        collected = self._collected
        if collected is None or signals.after_task_publish.receivers:
            self._ensured(self.publisher.publish, message, retry, retry_policy, timeout)
        else:
            collected.append(message)
            if len(collected) >= BATCH_SIZE:
                self._send_collected(collected)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep messages until the end of the context and send them together; after an error, none of the rest."""
        if self._collected is not None:
            yield  # the outer one sends
            return
        self._collected = collected = []
        try:
            yield
            self._send_collected(collected)
        finally:
            self._collected = None

    def _send_collected(self, collected: list[tuple[Any, ...]]) -> None:
        if collected:
            conf = self.app.conf
            self._ensured(
                self.publisher.publish_many,
                (list(collected),),
                conf.task_publish_retry,
                conf.task_publish_retry_policy,
                None,
            )
            collected.clear()

    def _declare_once(self, entity: Any) -> None:
        """Declare a queue or an exchange with a channel of the app's pool, the first time it is met."""
        if entity in self._declared:
            return
        with self.app.producer_or_acquire() as producer, producer.connection._reraise_as_library_errors():
            producer.maybe_declare(entity, retry=True, **self.app.conf.task_publish_retry_policy)
        self._declared.add(entity)

    def _ensured(
        self,
        send: Callable[..., Any],
        arguments: tuple[Any, ...],
        retry: bool,
        policy: Mapping[str, Any] | None,
        timeout: float | None,
    ) -> None:
        """Call ``send``; after an error of the connection again, as the policy says and never after the deadline.

        Raises:
            OperationalError: the last error, as kombu raises it.
        """
        try:
            send(*arguments)
            return
        except KombuError:
            raise
        except self.errors as error:
            failure: Any = error
            if not retry:
                raise OperationalError(str(error)) from error
        policy = policy or {}
        give_up_at = time.monotonic() + (self.seconds if timeout is None else timeout)
        limit = policy.get("max_retries", 3)
        interval = policy.get("interval_start", 0)
        errback = policy.get("errback")
        attempts = 0
        while limit is None or attempts < limit:
            if time.monotonic() + interval > give_up_at:
                break
            if errback is not None:
                errback(failure, interval)
            time.sleep(interval)
            attempts += 1
            interval = min(interval + policy.get("interval_step", 0.2), policy.get("interval_max", 1))
            try:
                send(*arguments)
                return
            except self.errors as error:
                failure = error
        raise OperationalError(str(failure)) from failure

    def release(self) -> None:
        """Nothing to give back: the producer belongs to its thread."""

    close = release
