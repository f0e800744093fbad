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
import kombu.messaging
from kombu import Queue
from kombu.entity import Exchange, maybe_delivery_mode
from kombu.exceptions import OperationalError

from celery import signals
from celery.app.deadlines import PUBLISH_SECONDS
from celery.app.encoding import encode
from celery.transports import resolve, scheme_of
from celery.utils.deadlines import current as deadlines

if TYPE_CHECKING:
    from celery.app.base import Celery

__all__ = ("DirectProducer", "is_watched", "open_publisher")

#: The arguments of ``Publisher.publish``.
Message = tuple[Any, dict[str, Any], dict[str, Any], str | None, str | None, str, str]

#: A batch is sent in pieces of this many messages, so that a huge group does not sit in memory as a whole.
BATCH_SIZE = 500


def is_watched(app: Celery) -> bool:
    """Whether somebody wants to see every message in kombu's producer: monitoring libraries wrap its ``publish``."""
    publish = kombu.Producer.publish
    if app.amqp.Producer is not kombu.Producer:
        return True
    return publish is not _untouched and getattr(publish, "__code__", None) is not _untouched.__code__


def open_publisher(app: Celery) -> Any:
    """Return a publisher of this process, or ``None`` if the broker's transport has none of its own."""
    make = getattr(resolve(app.conf.broker_transport or app.conf.broker_write_url), "Publisher", None)
    if make is None or _fails_over(app.conf.broker_write_url):
        return None
    connection = app.connection_for_write()
    # Trying again is done here, by the policy of the call; kombu would do it by its own.
    connection.transport_options = {"max_retries": 0, **connection.transport_options}
    return make(connection)


def _fails_over(urls: Any) -> bool:
    """Whether there are several brokers to choose from; kombu's connection does that.  Sentinels are one broker."""
    if isinstance(urls, str):
        urls = urls.split(";")
    return isinstance(urls, (list, tuple)) and len(urls) > 1 and scheme_of(urls[0]) != "sentinel"


# A wrapper that was there before us is recognised by the file it comes from.
_untouched: Any = kombu.Producer.publish
if _untouched.__code__.co_filename != kombu.messaging.__file__:
    _untouched = open_publisher


class DirectProducer(kombu.Producer):
    """Publishes through a transport's ``Publisher``, with kombu's retry policies and errors; for one thread."""

    def __init__(self, app: Celery, publisher: Any) -> None:
        connection = publisher.connection
        super().__init__(connection)
        self.app = app
        self.publisher = publisher
        self.errors = tuple(connection.connection_errors) + tuple(connection.channel_errors)
        self._collected: list[Message] | None = None

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
        own: Any = self.exchange  # kombu says None and makes it an exchange
        properties["delivery_mode"] = maybe_delivery_mode(delivery_mode or own.delivery_mode)
        if priority is not None:
            properties["priority"] = priority
        if expiration is not None:
            properties["expiration"] = str(int(expiration * 1000))
        reply_to = properties.get("reply_to")
        if isinstance(reply_to, Queue):
            properties["reply_to"] = reply_to.name
        exchange_name = exchange.name if isinstance(exchange, Exchange) else exchange or ""
        message = (body, headers, properties, content_type, content_encoding, exchange_name, routing_key or "")
        collected = self._collected
        if collected is None or signals.after_task_publish.receivers:
            self._ensured(lambda: self._send(message, declare), retry, retry_policy, timeout)
            return
        if declare:
            self._ensured(lambda: self._declare(declare), retry, retry_policy, timeout)
        collected.append(message)
        if len(collected) >= BATCH_SIZE:
            self._send_collected(collected)

    def _send(self, message: Message, declare: Any) -> None:
        if declare:
            self._declare(declare)
        self.publisher.publish(*message)

    def _declare(self, entities: Any) -> None:
        for entity in entities:
            self.publisher.declare(entity)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep messages until the end of the context and send them together; after an error, none of the rest."""
        if self._collected is not None:
            yield  # the outer one sends
            return
        collected: list[Message] = []
        self._collected = collected
        try:
            yield
            self._send_collected(collected)
        finally:
            self._collected = None

    def _send_collected(self, collected: list[Message]) -> None:
        if collected:
            conf = self.app.conf
            publish_many = self.publisher.publish_many
            self._ensured(
                lambda: publish_many(collected), conf.task_publish_retry, conf.task_publish_retry_policy, None
            )
            collected.clear()

    def _ensured(
        self,
        send: Callable[[], Any],
        retry: bool | None,
        policy: Mapping[str, Any] | None,
        timeout: float | None,
    ) -> None:
        """Call ``send``; after an error of the connection again, as the policy says and never after the deadline.

        Raises:
            OperationalError: the last error, as kombu raises it.
        """
        give_up_at = time.monotonic() + (timeout or PUBLISH_SECONDS)
        before, deadlines.ends_at = deadlines.ends_at, give_up_at
        try:
            failure = self._attempt(send, self.errors)
            if failure is None:
                return
            policy = policy or {}
            errors = (*self.errors, *(policy.get("retry_errors") or ()))
            errback = policy.get("errback")
            for interval in _intervals(policy) if retry else ():
                if time.monotonic() + interval >= give_up_at:
                    break
                if errback is not None:
                    errback(failure, interval)
                time.sleep(interval)
                failure = self._attempt(send, errors)
                if failure is None:
                    return
        finally:
            deadlines.ends_at = before
        where = self.publisher.connection.as_uri()
        raise OperationalError(f"{str(failure) or repr(failure)} (broker: {where})") from failure

    @staticmethod
    def _attempt(send: Callable[[], Any], errors: tuple[type[BaseException], ...]) -> BaseException | None:
        """Call ``send``; return the error after which another attempt may help."""
        try:
            send()
        except errors as error:
            return error
        except OperationalError as error:
            # What kombu makes of an error while it connects; a broker that is full says so by a class of its own.
            if type(error) is OperationalError and isinstance(error.__cause__, errors):
                return error.__cause__
            raise
        return None

    def release(self) -> None:
        """Nothing to give back: the producer belongs to its thread."""

    close = release


def _intervals(policy: Mapping[str, Any]) -> Iterator[float]:
    """Yield the seconds to wait before each further try."""
    limit = policy.get("max_retries", 3)
    interval = policy.get("interval_start", 0)
    tries = 0
    while limit is None or tries < limit:
        yield interval
        tries += 1
        interval = min(interval + policy.get("interval_step", 0.2), policy.get("interval_max", 1))
