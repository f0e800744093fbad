"""From the socket to a message: the frames of a delivery are read together and decoded once.

Everything else (answers, heartbeats, returned messages) goes the way of py-amqp.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from struct import Struct
from typing import Any

from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.method_framing import frame_handler as other_frame_handler
from amqp.serialization import decode_properties_basic
from amqp.transport import TCPTransport
from kombu.exceptions import DecodeError
from kombu.message import Message as KombuMessage

from celery.transports.amqp.delaying import CHAIN, restore
from celery.utils.inflate import MOST_BYTES, inflate

__all__ = ("Message", "ReadingAhead", "frame_handler", "pump")

#: Bytes asked for in one read: a frame of RabbitMQ's greatest usual size.
READ_BYTES = 131072

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
#: Class and method of ``basic.deliver``, as a frame begins with them.
DELIVER = b"\x00\x3c\x00\x3c"
FRAME_END = 0xCE

#: How messages are compressed is told to the child, which does the decompressing.
COMPRESSED = "raw"

_frame_head = Struct(">BHI").unpack_from
_content_head = Struct(">HHQH").unpack_from
_u32 = Struct(">I").unpack_from
_i32 = Struct(">i").unpack_from
_i64 = Struct(">q").unpack_from
_double = Struct(">d").unpack_from


class ReadingAhead(TCPTransport):
    """A socket of which `pump` may have read more than one frame."""

    def _setup_transport(self) -> None:
        self._ahead, self._at = b"", 0
        super()._setup_transport()

    @property
    def _read_buffer(self) -> bytes:
        return self._ahead[self._at :]

    @_read_buffer.setter
    def _read_buffer(self, value: bytes) -> None:
        self._ahead, self._at = value, 0

    def _read(self, n: int, *args: Any, **kwargs: Any) -> bytes:
        at = self._at
        if len(self._ahead) - at >= n:
            self._at = at + n
            return self._ahead[at : at + n]
        found: bytes = super()._read(n, *args, **kwargs)
        return found

    def read_ahead(self) -> bool:
        """Read what is there, without waiting; false if that is nothing."""
        try:
            data = self.sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.connected = False
            raise
        if not data:
            self.connected = False
            raise OSError("Server unexpectedly closed connection")
        self._ahead, self._at = (self._ahead[self._at :] + data if self._at < len(self._ahead) else data), 0
        return True

    def next_frame(self) -> tuple[int, int, bytes] | None:
        """Return the next frame that is here as a whole."""
        ahead, at = self._ahead, self._at
        if len(ahead) - at < 8:
            return None
        kind, channel, size = _frame_head(ahead, at)
        end = at + 7 + size
        if len(ahead) <= end:
            return None
        if ahead[end] != FRAME_END:
            raise UnexpectedFrame(f"Received frame_end {ahead[end]:#04x} while expecting 0xce")
        self._at = end + 1
        return kind, channel, ahead[at + 7 : end]


def pump(connection: Any, loop: Any) -> None:
    """Read once, and deal with each whole frame."""
    transport = connection._transport
    if not connection.connected:
        raise RecoverableConnectionError("Socket was disconnected")
    if not transport.read_ahead():
        return
    on_frame, next_frame = connection.on_inbound_frame, transport.next_frame
    try:
        while (frame := next_frame()) is not None:
            on_frame(frame)
    except BaseException:
        if transport.connected:  # an error of one channel: the frames behind it are not its fault
            loop.call_soon(_go_on, connection, transport, loop)
        raise


def _go_on(connection: Any, transport: Any, loop: Any) -> None:
    """Deal with the frames that were read together with one that failed."""
    if connection._transport is transport and transport.connected:
        while (frame := transport.next_frame()) is not None:
            connection.on_inbound_frame(frame)


class Message(KombuMessage):
    """One delivery.  ``raw_body`` is what came; ``body`` decodes and decompresses it, once, when it is asked for."""

    __slots__ = ("_body", "body_encoding", "raw_body", "was_parked")

    #: Nothing is decoded at reception, so there are no errors of decoding yet.
    errors: Any = None

    def __init__(
        self,
        body: Any,
        channel: Any = None,
        delivery_tag: Any = None,
        properties: Any = None,
        delivery_info: Any = None,
    ) -> None:
        self.raw_body = body
        self.channel = channel
        self.delivery_tag = delivery_tag
        self.properties = properties or {}
        self.delivery_info = delivery_info or {}
        self.headers = headers = self.properties.get("application_headers") or {}
        self.content_type = self.properties.get("content_type")
        self.content_encoding = self.properties.get("content_encoding")
        self.body_encoding = COMPRESSED if headers.get("compression") else None
        self.accept = None
        self._body = None
        self._decoded_cache = None
        #: Whether it was received before, and then waited at the broker for its time.
        self.was_parked = False
        self._state = "RECEIVED"

    def park(self, due: float) -> bool:
        """Give it back to the broker until ``due`` (seconds since 1970); false if it cannot be kept there."""
        park = getattr(self.channel, "park", None)
        return park is not None and park(self, due)

    @property
    def body(self) -> Any:
        """Text where the message names its encoding, else bytes.

        Raises:
            DecodeError: it is not compressed as the message says, or too large without that.
        """
        if self._body is None:
            body = self.raw_body
            if self.body_encoding == COMPRESSED:
                most = getattr(self.channel, "max_message_bytes", MOST_BYTES)
                try:
                    body = inflate(_as_bytes(body), self.headers["compression"], most)
                except Exception as error:  # each compression has errors of its own
                    raise DecodeError(f"the body cannot be decoded: {type(error).__name__}: {error}") from error
            elif isinstance(body, bytes) and self.content_encoding and getattr(self.channel, "auto_decode", True):
                try:
                    body = body.decode(self.content_encoding)
                except (LookupError, ValueError):  # "binary", for one
                    pass
            self._body = body
        return self._body

    def ack(self, multiple: bool = False) -> None:
        channel = self.channel
        if self._state != "RECEIVED" or channel is None or channel.no_ack_consumers:
            super().ack(multiple)
            return
        channel.basic_ack(self.delivery_tag, multiple)
        self._state = "ACK"

    def __getattr__(self, name: str) -> Any:
        # Consumers on the bare channel expect py-amqp's message, whose properties are attributes.
        slot: Any = KombuMessage.properties
        properties = slot.__get__(self)
        try:
            return properties[name]
        except (KeyError, TypeError):
            raise AttributeError(name) from None


def _as_bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)


class _Delivery:
    """The frames of a delivery so far."""

    __slots__ = ("body", "method", "missing", "pieces", "properties")

    def __init__(self, method: bytes) -> None:
        self.method = method
        self.properties: dict[str, Any] | None = None
        self.missing = 0
        self.body = b""
        self.pieces: list[bytes] = []

    def add(self, kind: int, payload: bytes) -> bool:
        """Take the next frame; true if it was the last."""
        if self.properties is None:
            if kind != HEADER:
                raise UnexpectedFrame(f"Received frame {kind} while expecting type: {HEADER}")
            self.missing = _content_head(payload)[2]
            self.properties = read_properties(payload, 12)
            return not self.missing
        if kind != BODY:
            raise UnexpectedFrame(f"Received frame {kind} while expecting type: {BODY}")
        self.missing -= len(payload)
        if self.missing <= 0 and not self.pieces:
            self.body = payload
        else:
            self.pieces.append(payload)
            if self.missing <= 0:
                self.body = b"".join(self.pieces)
                self.pieces.clear()
        return self.missing <= 0


def frame_handler(connection: Any, callback: Callable[..., Any]) -> Callable[[tuple[int, int, bytes]], bool]:
    """Return the function that takes each frame; it returns whether something was complete with that."""
    on_other = other_frame_handler(connection, callback)
    deliveries: dict[int, _Delivery] = {}

    def on_frame(frame: tuple[int, int, bytes]) -> bool:
        kind, channel_id, payload = frame
        delivery = deliveries.get(channel_id)
        if delivery is None:
            if kind != METHOD or payload[:4] != DELIVER:
                return bool(on_other(frame))
            connection.bytes_recv += 1
            deliveries[channel_id] = _Delivery(payload)
            return False
        connection.bytes_recv += 1
        if kind == HEARTBEAT or not delivery.add(kind, payload):
            return False
        del deliveries[channel_id]
        _deliver(connection, channel_id, delivery)
        return True

    return on_frame


def _deliver(connection: Any, channel_id: int, delivery: _Delivery) -> None:
    """Hand a whole delivery to its consumer."""
    if connection.channels is None:
        raise RecoverableConnectionError("Connection already closed")
    channel = connection.channels[channel_id]
    if channel.is_closing:
        return  # the broker takes it back with the channel
    method = delivery.method
    at = 5 + method[4]
    consumer_tag = str(method[5:at], "utf-8")
    (tag,) = _i64(method, at)
    is_redelivered = bool(method[at + 8] & 1)
    at += 9
    end = at + 1 + method[at]
    exchange = str(method[at + 1 : end], "utf-8")
    routing_key = str(method[end + 1 : end + 1 + method[end]], "utf-8")
    info = {
        "consumer_tag": consumer_tag,
        "delivery_tag": tag,
        "redelivered": is_redelivered,
        "exchange": exchange,
        "routing_key": routing_key,
    }
    message = Message(delivery.body, channel, tag, delivery.properties, info)
    if exchange.startswith(CHAIN):
        message.was_parked = restore(info, message.headers)
    consume = channel.callbacks.get(consumer_tag)
    if consume is None:  # py-amqp says so, and gives it back
        channel._on_basic_deliver(consumer_tag, tag, is_redelivered, exchange, routing_key, message)
    else:
        consume(message)


# -- properties and headers ------------------------------------------------------------------------------------------

#: Properties in their order, by the bit that tells of them; those that are no short strings are read apart.
CONTENT_TYPE, CONTENT_ENCODING, HEADERS = 0x8000, 0x4000, 0x2000
DELIVERY_MODE, PRIORITY, CORRELATION_ID, REPLY_TO = 0x1000, 0x0800, 0x0400, 0x0200
USUAL = CONTENT_TYPE | CONTENT_ENCODING | HEADERS | DELIVERY_MODE | PRIORITY | CORRELATION_ID | REPLY_TO


def read_properties(payload: bytes, at: int) -> dict[str, Any]:
    """Return the properties that begin at ``at`` in a content header.

    Those that task messages have are read here; any others by py-amqp, in the same form.
    """
    flags = payload[at] << 8 | payload[at + 1]
    if flags & ~USUAL:
        return decode_properties_basic(payload, at)[0]  # type: ignore[no-any-return]
    try:
        return _usual_properties(payload, flags, at + 2)
    except _Unusual:
        return decode_properties_basic(payload, at)[0]  # type: ignore[no-any-return]


class _Unusual(Exception):
    """A value of a kind that is left to py-amqp."""


def _usual_properties(payload: bytes, flags: int, at: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if flags & CONTENT_TYPE:
        end = at + 1 + payload[at]
        found["content_type"] = str(payload[at + 1 : end], "utf-8")
        at = end
    if flags & CONTENT_ENCODING:
        end = at + 1 + payload[at]
        found["content_encoding"] = str(payload[at + 1 : end], "utf-8")
        at = end
    if flags & HEADERS:
        (size,) = _u32(payload, at)
        at += 4
        found["application_headers"] = _table(payload, at, at + size)
        at += size
    if flags & DELIVERY_MODE:
        found["delivery_mode"] = payload[at]
        at += 1
    if flags & PRIORITY:
        found["priority"] = payload[at]
        at += 1
    if flags & CORRELATION_ID:
        end = at + 1 + payload[at]
        found["correlation_id"] = str(payload[at + 1 : end], "utf-8")
        at = end
    if flags & REPLY_TO:
        end = at + 1 + payload[at]
        found["reply_to"] = str(payload[at + 1 : end], "utf-8")
    return found


def _table(data: bytes, at: int, end: int) -> dict[str, Any]:
    """Return the table in ``data[at:end]``."""
    table: dict[str, Any] = {}
    while at < end:
        start = at + 1
        at = start + data[at]
        try:
            name = str(data[start:at], "utf-8")
        except UnicodeDecodeError:
            raise _Unusual from None
        kind = data[at]
        if kind == 83:  # S, as most are; `_value` knows it, too
            stop = at + 5 + _u32(data, at + 1)[0]
            try:
                table[name] = str(data[at + 5 : stop], "utf-8")
            except UnicodeDecodeError:
                table[name] = data[at + 5 : stop]
            at = stop
        elif kind == 86:  # V, as most others
            table[name] = None
            at += 1
        else:
            table[name], at = _value(data, at)
    return table


def _value(data: bytes, at: int) -> tuple[Any, int]:
    """Return the value that begins at ``at``, and where the next begins."""
    kind = data[at]
    at += 1
    if kind == 83:  # S: text
        (size,) = _u32(data, at)
        at += 4
        end = at + size
        try:
            return str(data[at:end], "utf-8"), end
        except UnicodeDecodeError:
            return data[at:end], end
    if kind == 86:  # V: nothing
        return None, at
    if kind == 73:  # I
        return _i32(data, at)[0], at + 4
    if kind == 116:  # t: true or false
        return data[at] != 0, at + 1
    if kind == 108 or kind == 76:  # l, L
        return _i64(data, at)[0], at + 8
    if kind == 70:  # F: table
        (size,) = _u32(data, at)
        at += 4
        return _table(data, at, at + size), at + size
    if kind == 65:  # A: array
        (size,) = _u32(data, at)
        at += 4
        end = at + size
        values = []
        while at < end:
            value, at = _value(data, at)
            values.append(value)
        return values, at
    if kind == 100:  # d
        return _double(data, at)[0], at + 8
    raise _Unusual
