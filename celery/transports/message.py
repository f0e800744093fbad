"""A received message: kombu's interface, but nothing is decoded before somebody asks."""

from __future__ import annotations

import json
from binascii import a2b_base64
from typing import Any

from kombu.exceptions import DecodeError
from kombu.message import Message as KombuMessage
from kombu.utils.json import loads as typed_loads

from celery.utils.failpoints import is_active
from celery.utils.inflate import MOST_BYTES, inflate

__all__ = ("LARGE_BODY", "Malformed", "Message", "parse", "parse_in_place")

#: Header with the number of times a delivery was lost after its task had started.
STARTED_LOSSES = "x-celeriac-lost"
#: Header with the number of times a delivery was lost at all.
LOSSES = "x-celeriac-redelivered"
#: Header with the reason why a message was set aside.
REASON = "x-celeriac-reason"

#: From this size on, a body is not copied out of the message that it came in.
LARGE_BODY = 1 << 20
#: How kombu's messages, and ours, begin.
_BODY_FIRST = b'{"body": "'

_decode_json = json.JSONDecoder().decode

#: A message whose holder was lost before its task started may be innocent: it has that many times the tries.
INNOCENT_FACTOR = 10

_TEXT_OR_NONE = (str, type(None))

#: Protections that a test of the tests has switched off.
_LOSES_COUNT = is_active("unprotect.count")
_IS_CREDULOUS = is_active("unprotect.parse")


class Malformed(ValueError):
    """What was in the queue is no message; the text says why."""


def parse(payload: bytes) -> dict[str, Any]:
    """Return the envelope of a message as it lay in the queue.

    Raises:
        Malformed: it is no JSON object, or its parts are not of the kinds that kombu sends.
    """
    try:
        # Typed values are rare; a search is cheaper than a hook for every object.
        envelope = typed_loads(payload) if b'"__type__"' in payload else _decode_json(str(payload, "utf-8"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from error
    if _IS_CREDULOUS:
        return envelope  # type: ignore[no-any-return]
    try:
        properties, headers = envelope["properties"], envelope["headers"]
        if type(properties) is not dict:
            raise Malformed("`properties` is no object")
        if type(headers) is not dict:
            if headers is not None:
                raise Malformed("`headers` is no object")
            envelope["headers"] = {}
        if type(properties.get("delivery_info")) is not dict:
            raise Malformed("`properties.delivery_info` is no object")
        for name in ("content-type", "content-encoding"):
            if type(envelope.get(name, "")) not in _TEXT_OR_NONE:
                raise Malformed(f"`{name}` is no text")
    except (KeyError, TypeError) as error:
        raise Malformed(f"no message envelope: {error!r}") from error
    return envelope  # type: ignore[no-any-return]


def parse_in_place(payload: bytes) -> dict[str, Any]:
    """Like `parse`, but a large body in base64 stays where it is: it is a view of ``payload``."""
    end = payload.find(b'"', len(_BODY_FIRST)) if len(payload) > LARGE_BODY and payload.startswith(_BODY_FIRST) else 0
    if end > LARGE_BODY and payload.find(b"\\", 0, end) < 0 and payload.isascii():
        envelope = parse(_BODY_FIRST + payload[end:])
        if envelope["body"] == "" and envelope["properties"].get("body_encoding") == "base64":
            envelope["body"] = memoryview(payload)[len(_BODY_FIRST) : end]
            return envelope
    return parse(payload)


class Message(KombuMessage):
    """One delivery.

    ``raw_body`` is the body's text as it was in the envelope (a view of it, if it is large), encoded as
    ``body_encoding`` says (``"base64"`` or ``None``): for those who hand it on undecoded.  ``body`` decodes and
    decompresses it, once.
    """

    __slots__ = ("_body", "_envelope", "body_encoding", "has_started", "is_lost", "queue", "raw_body")

    #: Nothing is decoded at reception, so there are no errors of decoding yet.
    errors: Any = None

    def __init__(self, payload: dict[str, Any], channel: Any = None, tag: str | None = None, queue: str = "") -> None:
        properties = payload["properties"]
        self._envelope = payload
        self.channel = channel
        self.delivery_tag = tag if tag is not None else properties.get("delivery_tag")
        self.queue = queue
        self.properties = properties
        self.delivery_info = properties["delivery_info"]
        self.headers = payload["headers"]
        self.content_type = payload.get("content-type")
        self.content_encoding = payload.get("content-encoding")
        self.raw_body = payload.get("body")
        self._body = None
        self.body_encoding = properties.get("body_encoding")
        self.accept = None
        self.has_started = False
        self.is_lost = False
        self._decoded_cache = None
        self._state = "RECEIVED"

    @property
    def _raw(self) -> dict[str, Any]:
        """The envelope, fit to become JSON again."""
        envelope = self._envelope
        body = envelope.get("body")
        if type(body) is memoryview:
            envelope["body"] = self.raw_body = str(body, "ascii")
        return envelope

    @property
    def body(self) -> Any:
        """The body's bytes.

        Raises:
            DecodeError: it is not encoded or compressed as the message says.
        """
        body = self._body
        if body is None:
            try:
                body = self._body = self._decode_body()
            except Exception as error:
                raise DecodeError(f"the body cannot be decoded: {type(error).__name__}: {error}") from error
        return body

    def _decode_body(self) -> Any:
        body: Any = self.raw_body
        if body is not None and not isinstance(body, (str, bytes, memoryview)):
            raise TypeError(f"it is no text but {type(body).__name__}")
        if body and self.body_encoding == "base64":
            body = a2b_base64(body)
        elif body and self.body_encoding and self.body_encoding.lower() != "utf-8":
            body = self.channel.decode_body(body, self.body_encoding)
        compression = self.headers.get("compression")
        if compression:
            body = inflate(body, compression, getattr(self.channel, "max_message_bytes", MOST_BYTES))
        return body.encode() if isinstance(body, str) else body

    @property
    def redelivery_count(self) -> int:
        """How often a worker was lost while it ran this message's task."""
        count = self.headers.get(STARTED_LOSSES, 0)
        return count if type(count) is int else 0

    @property
    def was_parked(self) -> bool:
        """Whether it was received before, and then waited at the broker for its time."""
        return "celeriac-parked" in self._raw

    def park(self, due: float) -> bool:
        """Give it back to the broker until ``due`` (seconds since 1970, by the broker's clock); false if it cannot.

        It is settled then, and will be delivered again, to whichever consumer has room.
        """
        park = getattr(self.channel, "park", None)
        return park is not None and park(self, due, str(self.headers["id"]))

    def ack(self, multiple: bool = False) -> None:
        channel = self.channel
        if channel is None or self._state != "RECEIVED":
            super().ack(multiple)  # says what is wrong
            return
        channel.basic_ack(self.delivery_tag, multiple)
        self._state = "ACK"

    def started(self) -> None:
        """Say that a task now runs for this message.

        From now on the delivery outlives its channel: it stays leased when the connection is lost, and may be
        acknowledged on the next one.  If its holder dies, the loss counts as one of this message.
        """
        if not self.has_started:
            self.has_started = True
            if self._state == "RECEIVED" and self.channel is not None:
                self.channel.message_started(self)

    def record_start(self) -> None:
        """Say that a task is about to run for this message, and wait until that is on record."""
        self.started()
        flush = getattr(self.channel, "flush", None)
        if flush is not None:
            flush()

    def unstart(self) -> None:
        """Take `started` back: it did not run after all, and goes back with the others that did not."""
        self.has_started = False

    def begin(self) -> bool:
        """Say that a task now runs for this message which must not run a second time (early acknowledgement).

        The delivery stays on record until ``ack``, without a place in the prefetch count: if its holder dies, the task
        is not run again, but somebody hears of it.  Returns false where the transport has no such record; then
        acknowledge now.
        """
        begin = getattr(self.channel, "message_begun", None)
        if begin is None or self._state != "RECEIVED" or not begin(self):
            return False
        self.has_started = True
        return True

    def requeue_lost(self, cause: str = "") -> str | None:
        """Put the message back at once because what ran it was lost, and count that.

        Returns why it was set aside instead, if that has happened too often; ``cause`` is told there.
        """
        if self._state != "RECEIVED" or self.channel is None:
            super().requeue()  # says what is wrong
            return None
        reason: str | None = self.channel.requeue_lost(self, cause)
        self._state = "REQUEUED" if reason is None else "REJECTED"
        return reason

    def serializable(self) -> dict[str, Any]:
        return self._raw


def count_loss(envelope: dict[str, Any], started: bool) -> tuple[int, int]:
    """Note in ``envelope`` that its holder was lost; return how often that happened: (after start, at all)."""
    if _LOSES_COUNT:
        return 0, 0
    headers = envelope["headers"]
    counts = []
    for name, more in ((STARTED_LOSSES, int(started)), (LOSSES, 1)):
        before = headers.get(name, 0)
        count = (before if type(before) is int else 0) + more
        if count:
            headers[name] = count
        counts.append(count)
    mark_redelivered(envelope)
    return counts[0], counts[1]


def is_lost_too_often(started_losses: int, losses: int, most: int) -> bool:
    """Return whether a message is to be set aside that lost its worker ``losses`` times.

    ``started_losses`` of them came after its task is known to have started.  A task that kills its worker at once
    may do so before that is on record, but only the first time: the next start of a message that was lost is recorded
    before it begins.  So one loss of which nothing is known counts, if all others came after a start.
    """
    if started_losses >= most or losses >= most * INNOCENT_FACTOR:
        return True
    return losses == most and started_losses == most - 1 > 0


def lost_too_often(losses: int, cause: str = "") -> str:
    """Return why a message is set aside whose task has ended its process ``losses`` times, at last by ``cause``."""
    return f"its worker was lost {losses} times while it ran the task" + (f"; the last time: {cause}" if cause else "")


def mark_redelivered(envelope: dict[str, Any]) -> None:
    """Note in ``envelope``, as kombu does, that it was delivered before."""
    envelope["headers"]["redelivered"] = True
    envelope["properties"]["delivery_info"]["redelivered"] = True
