"""Set a message aside, whatever the broker: off its queue, kept with the reason, never lost in silence."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from kombu.log import get_logger
from kombu.utils.json import dumps

from celery.transports.message import REASON, Malformed, parse
from celery.utils.failpoints import is_active

__all__ = ("DEAD_LETTER_QUEUE", "dead_envelope", "dead_letter")

logger = get_logger(__name__)

#: Where messages go on brokers that are not ours; ours use ``<queue>.dead``.
DEAD_LETTER_QUEUE = "celeriac.dead"
MOST_REASON = 1000

#: Whether a test of the tests has switched this protection off.
_DROPS = is_active("unprotect.aside")
QUEUE_HEADER = "x-celeriac-queue"


def dead_letter(message: Any, reason: str, queue: str = DEAD_LETTER_QUEUE) -> bool:
    """Set ``message`` aside and settle it; return whether it was kept.

    A transport of ours does it in one step.  Elsewhere the message is published as it came (body undecoded) to
    ``queue`` and then rejected; when that cannot be published it is still rejected, because a message that nobody
    can take must not come back for ever, and the log has what is known of it.
    """
    own = getattr(message.channel, "dead_letter", None)
    if own is not None:
        own(message, reason)
        return True
    kept = True
    try:
        if not _DROPS:
            _publish_copy(message, reason, queue)
    except Exception as error:  # whatever the broker has against it: the reason must not get lost
        kept = False
        logger.critical(
            "Could not keep a message that is set aside (%s): %s; headers: %r", reason, error, message.headers
        )
    if not message.acknowledged:
        message.reject(requeue=False)
    return kept


def _publish_copy(message: Any, reason: str, queue: str) -> None:
    channel = message.channel
    info = message.delivery_info or {}
    headers = message.headers if isinstance(message.headers, dict) else {}
    properties = message.properties if isinstance(message.properties, dict) else {}
    kept = {name: properties[name] for name in ("correlation_id", "reply_to", "priority") if properties.get(name)}
    kept["delivery_mode"] = 2
    headers = {
        **headers,
        REASON: reason[:MOST_REASON],
        QUEUE_HEADER: str(info.get("routing_key") or ""),
    }
    raw = getattr(message, "raw_body", None)
    if raw is None:
        headers.pop("compression", None)  # kombu's messages have been decompressed
        raw = message.body
    channel.queue_declare(queue=queue, durable=True, auto_delete=False)
    prepared = channel.prepare_message(
        b"" if raw is None else raw,
        priority=kept.pop("priority", None),
        content_type=message.content_type or "application/octet-stream",
        content_encoding=message.content_encoding or "binary",
        headers=headers,
        properties=kept,
    )
    channel.basic_publish(prepared, exchange="", routing_key=queue)


def dead_envelope(payload: bytes | dict[str, Any], queue: str, reason: str) -> str:
    """Return what is kept of a message that is set aside: the message itself, with the reason in its headers.

    What is no message is wrapped in one, so that the dead-letter list can be read like any queue.
    """
    if isinstance(payload, bytes):
        try:
            payload = parse(payload)
        except Malformed:
            payload = {
                "body": b64encode(payload).decode(),  # type: ignore[arg-type]  # still bytes
                "content-type": "application/octet-stream",
                "content-encoding": "binary",
                "headers": {},
                "properties": {
                    "delivery_info": {"exchange": "", "routing_key": queue},
                    "body_encoding": "base64",
                    "delivery_mode": 2,
                    "delivery_tag": "",
                    "priority": 0,
                },
            }
    headers = dict(payload.get("headers") or {})
    headers[REASON] = reason[:MOST_REASON]
    return dumps(dict(payload, headers=headers))
