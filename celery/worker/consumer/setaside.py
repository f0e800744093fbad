"""Where messages go that cannot be run: the queue ``<queue>.dead``, with the reason in a header.

They can be looked at, and sent again, like those of any queue.
"""

from __future__ import annotations

from typing import Any

from kombu import Producer, Queue

from celery.utils.log import get_logger

__all__ = ("REASON", "SUFFIX", "set_aside")

logger = get_logger(__name__)

SUFFIX = ".dead"

#: The header that says why; our Redis transport writes the same one.
REASON = "x-celeriac-reason"

#: The most messages that a dead-letter queue keeps, where the broker can limit that; the oldest go first.
MOST_KEPT = 10_000


def set_aside(consumer: Any, message: Any, reason: str) -> None:
    """Move ``message`` to the dead-letter queue of the queue that it came from.

    Nothing is raised but the loss of the connection: a message that resists is rejected.
    """
    own = getattr(message.channel, "dead_letter", None)
    try:
        if own is not None:
            own(message, reason)
            return
        _publish(message, f"{_origin(consumer, message)}{SUFFIX}", reason)
    except consumer.connection_errors:
        raise
    except Exception as exc:
        logger.error("A message could not be set aside and is rejected: %r", exc)
        message.reject_log_error(logger, consumer.connection_errors)
    else:
        message.ack_log_error(logger, consumer.connection_errors)


def _publish(message: Any, name: str, reason: str) -> None:
    """Send a copy of the message, its body as it came, to the queue ``name``."""
    channel = message.channel.connection.client.channel()
    properties = message.properties or {}
    queue = Queue(name, routing_key=name, durable=True, max_length=MOST_KEPT)
    body = message.body
    try:
        Producer(channel).publish(
            bytes(body) if isinstance(body, memoryview) else body,
            exchange="",
            routing_key=name,
            declare=[queue],
            content_type=message.content_type or "application/octet-stream",
            content_encoding=message.content_encoding or "binary",
            headers={**(message.headers or {}), REASON: reason},
            correlation_id=properties.get("correlation_id"),
            reply_to=properties.get("reply_to"),
        )
    finally:
        channel.close()


def _origin(consumer: Any, message: Any) -> str:
    """Return the name of the queue that the message came from, or the nearest that is known."""
    info = message.delivery_info or {}
    tags = getattr(consumer.task_consumer, "_active_tags", None) or {}
    for name, tag in tags.items():
        if tag == info.get("consumer_tag"):
            return str(name)
    return str(info.get("routing_key") or info.get("exchange") or "unknown")
