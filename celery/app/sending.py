"""Hand a built message to a producer: where to, how, and who is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kombu import Exchange
from kombu.common import Broadcast
from kombu.compression import compress

from celery import signals
from celery.app.deadlines import with_deadline
from celery.app.encoding import encode
from celery.protocol.task import task_message
from celery.utils.failpoints import is_active

if TYPE_CHECKING:
    from celery.app.amqp import AMQP

__all__ = ("MessageSender", "destination")

#: Whether a test of the tests has switched this protection off.
_NEEDS_BINDINGS = is_active("unprotect.direct")


def destination(
    exchange: Any, routing_key: str | None, exchange_type: str | None, queue: Any, queue_name: str | None
) -> tuple[Any, str | None]:
    """Return exchange and routing key for a message to ``queue``.

    Upstream: a direct queue is reached through the default exchange, unless exchange *and* routing key are given.
    """
    if exchange and routing_key:
        return exchange, routing_key
    if exchange_type is None and queue is not None and queue.exchange is not None:
        exchange_type = queue.exchange.type
    if (exchange_type or "direct") == "direct" and queue_name and not _NEEDS_BINDINGS:
        return "", queue_name
    if not exchange and queue is not None:
        return queue.exchange.name, routing_key or queue.routing_key
    return exchange or "", routing_key


def signed(
    signing: Any,
    body: Any,
    form: tuple[str | None, str | None],
    headers: dict[str, Any],
    properties: Mapping[str, Any],
    exchange: Any,
    routing_key: str | None,
) -> tuple[Any, str, str]:
    """Encode ``body`` and sign it with what else decides what runs; return it, its content type and encoding.

    ``form`` is serializer and compression.  The signature goes into ``headers``.
    """
    serializer, compression = form
    encoded, content_type, content_encoding = encode(body, serializer, None, headers)
    exchange_name = exchange.name if isinstance(exchange, Exchange) else exchange or ""
    signing.sign("task", encoded, content_type, content_encoding, headers, properties, exchange_name, routing_key or "")
    if compression:
        encoded, headers["compression"] = compress(encoded, compression)
    return encoded, content_type, content_encoding


class MessageSender:
    """``app.amqp.send_task_message``: publishes one message through the producer it is given.

    What the configuration says is read again only when the configuration changed.
    """

    def __init__(self, amqp: AMQP) -> None:
        self.amqp = amqp
        self.version: int | None = None

    def _configure(self, conf: Any) -> None:
        self.version = conf.version
        self.retry = conf.task_publish_retry
        self.retry_policy: Mapping[str, Any] = conf.task_publish_retry_policy or {}
        self.delivery_mode = conf.task_default_delivery_mode
        self.routing_key = conf.task_default_routing_key
        self.serializer = conf.task_serializer
        self.compression = conf.task_compression

    def __call__(
        self,
        producer: Any,
        name: str,
        message: task_message,
        exchange: Any = None,
        routing_key: str | None = None,
        queue: Any = None,
        event_dispatcher: Any = None,
        retry: bool | None = None,
        retry_policy: Mapping[str, Any] | None = None,
        serializer: str | None = None,
        delivery_mode: Any = None,
        compression: str | None = None,
        declare: Any = None,
        headers: Mapping[str, Any] | None = None,
        exchange_type: str | None = None,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Publish ``message``, a call of the task ``name``; ``kwargs`` become properties of the message."""
        conf = self.amqp.app.conf
        if conf.version != self.version:
            self._configure(conf)
        message_headers, properties, body, sent_event = message
        properties.update(kwargs)
        if headers:
            message_headers.update(headers)

        queue_name = None
        if queue is None:
            if exchange is None:
                queue = self.amqp.default_queue
                queue_name = queue.name
        elif isinstance(queue, str):
            queue_name, queue = queue, self.amqp.queues[queue]
        else:
            queue_name = queue.name
        if delivery_mode is None:
            own = None if queue is None or queue.exchange is None else queue.exchange.delivery_mode
            delivery_mode = own or self.delivery_mode
        exchange, routing_key = destination(exchange, routing_key, exchange_type, queue, queue_name)
        if routing_key is None and queue is None:
            routing_key = self.routing_key
        if declare is None and queue is not None and not isinstance(queue, Broadcast):
            declare = [queue]
        retry = self.retry if retry is None else retry
        policy = {**self.retry_policy, **retry_policy} if retry_policy else dict(self.retry_policy)

        before = signals.before_task_publish
        if before.receivers:
            before.send(
                sender=name,
                body=body,
                exchange=exchange,
                routing_key=routing_key,
                declare=declare,
                headers=message_headers,
                properties=properties,
                retry_policy=policy,
            )
        sent, content_type, content_encoding = body, None, None
        serializer, compression = serializer or self.serializer, compression or self.compression
        signing = self.amqp.app.signing
        if signing is not None:
            sent, content_type, content_encoding = signed(
                signing, body, (serializer, compression), message_headers, properties, exchange, routing_key
            )
            compression = None  # done
        result = producer.publish(
            sent,
            exchange=exchange,
            routing_key=routing_key,
            content_type=content_type,
            content_encoding=content_encoding,
            serializer=serializer,
            compression=compression,
            retry=retry,
            retry_policy=with_deadline(policy),
            delivery_mode=delivery_mode,
            declare=declare,
            headers=message_headers,
            timeout=timeout,
            confirm_timeout=confirm_timeout,
            **properties,
        )
        after, sent_signal = signals.after_task_publish, signals.task_sent
        if after.receivers:
            after.send(sender=name, body=body, headers=message_headers, exchange=exchange, routing_key=routing_key)
        if sent_signal.receivers:
            self._tell_sent(sent_signal, name, body, message_headers)
        if sent_event:
            sent_event.update(
                queue=queue_name,
                exchange=exchange.name if isinstance(exchange, Exchange) else exchange,
                routing_key=routing_key,
            )
            dispatcher = event_dispatcher or self.amqp._event_dispatcher
            dispatcher.publish("task-sent", sent_event, producer, retry=retry, retry_policy=policy)
        return result

    @staticmethod
    def _tell_sent(sent: Any, name: str, body: Any, headers: Mapping[str, Any]) -> None:
        """Send the signal of old, which describes the call in words of its own."""
        if isinstance(body, Mapping):
            sent.send(
                sender=name,
                task_id=body["id"],
                task=name,
                args=body["args"],
                kwargs=body["kwargs"],
                eta=body["eta"],
                taskset=body["taskset"],
            )
        else:
            sent.send(
                sender=name,
                task_id=headers["id"],
                task=name,
                args=body[0],
                kwargs=body[1],
                eta=headers["eta"],
                taskset=headers["group"],
            )
