"""Publishing: one command a message, on a socket that stays open for each thread and process."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import threading
import weakref
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from time import monotonic
from typing import Any

from kombu.common import maybe_declare
from kombu.utils.json import JSONEncoder
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from celery.transports.redis.errors import MessageTooLarge, publish_error
from celery.transports.redis.resp import ReplyError, error_for, new_reader, pack
from celery.transports.redis.wire import open_connection
from celery.utils.deadlines import seconds_left
from celery.utils.failpoints import failpoint, is_active

__all__ = ("Publisher", "Sender")

#: A pipeline is sent in pieces of about this size, so that neither side has to buffer all of it.
PIECE_BYTES = 262_144
#: A line that was silent for so long is looked at before it is written to.
IDLE_SECONDS = 0.1
#: The patience of a socket is not changed for less than this.
UNHURRIED_SECONDS = 0.5

#: Protections that a test of the tests has switched off.
_TRUSTS_THE_SOCKET = is_active("unprotect.confirm")
_SENDS_ANY_SIZE = is_active("unprotect.size")

_generation = 0


def _after_fork() -> None:
    global _generation, _tag_prefix
    _generation += 1
    _tag_prefix = _new_tag_prefix()


def _new_tag_prefix() -> str:
    """Return the first 24 characters of a random UUID; a counter makes the rest."""
    text = os.urandom(10).hex()
    return f"{text[:8]}-{text[8:12]}-4{text[12:15]}-a{text[15:18]}-"


_tag_prefix = _new_tag_prefix()
_tag_numbers = count(1)
os.register_at_fork(after_in_child=_after_fork)


def new_delivery_tag() -> str:
    """Return a tag that no other message has; it looks like a UUID because peers' tags do."""
    return f"{_tag_prefix}{next(_tag_numbers):012x}"


class _Line:
    """One open socket of one thread."""

    __slots__ = ("__weakref__", "_is_hurried", "_is_plain", "connection", "generation", "patience", "sock", "used_at")

    def __init__(self, pool: Any, patience: float) -> None:
        self.generation = _generation
        self.patience = patience
        self.used_at = monotonic()
        self.connection = open_connection(pool)
        self.sock = sock = self.connection._sock
        # Deadlines kept by the kernel save a poll before each call; gevent's sockets and TLS keep their own.
        self._is_plain = type(sock) is socket.socket and sock.__class__.__module__ == "socket"
        if self._is_plain:
            sock.settimeout(None)
        self._wait_for(patience)

    def _wait_for(self, seconds: float) -> None:
        """Let reads and writes of the socket fail after so long."""
        sock = self.sock
        self._is_hurried = seconds < self.patience
        if self._is_plain:
            limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        else:
            sock.settimeout(seconds)

    def is_alive(self) -> bool:
        """Whether nothing has come in: on an idle line that can only be its end."""
        now = monotonic()
        if now - self.used_at < IDLE_SECONDS:
            return True
        self.used_at = now
        sock = self.sock
        try:
            if self._is_plain:
                sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            else:
                sock.setblocking(False)
                try:
                    sock.recv(1)
                finally:
                    sock.settimeout(self.patience)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            pass
        return False

    def exchange(self, data: bytes, replies: int) -> list[Any]:
        """Send commands and return their replies (error replies as values)."""
        sock = self.sock
        patience = seconds_left(self.patience)
        if patience < self.patience - UNHURRIED_SECONDS or self._is_hurried:
            self._wait_for(patience)
        try:
            sock.sendall(data)
            if _TRUSTS_THE_SOCKET:
                return [0] * replies
            received = sock.recv(65536)
            if replies == 1 and received[:1] == b":" and received[-2:] == b"\r\n":
                return [int(received[1:-2])]
            return self._read_all(received, replies, monotonic() + patience)
        except (BlockingIOError, TimeoutError) as error:
            self.close()
            raise RedisTimeoutError(f"Redis gave no answer for {patience:.3g} seconds") from error
        except OSError as error:
            self.close()
            raise RedisConnectionError(f"Lost the connection to Redis: {error}") from error
        except BaseException:  # an interrupt: the rest of the reply would be taken for the next one
            self.close()
            raise

    def _read_all(self, received: bytes, wanted: int, deadline: float) -> list[Any]:
        reader = new_reader()
        replies: list[Any] = []
        while True:
            if not received:
                raise ConnectionResetError("closed by the server")
            reader.feed(received)
            while len(replies) < wanted and (reply := reader.gets()) is not False:
                replies.append(reply)
            if len(replies) == wanted:
                return replies
            if monotonic() > deadline:
                raise TimeoutError
            received = self.sock.recv(65536)

    def close(self) -> None:
        try:
            self.connection.disconnect()
        except Exception:  # whatever a broken socket says now, it is closed
            pass

    def __del__(self) -> None:
        sock = getattr(self, "sock", None)
        if sock is not None:
            sock.close()  # only our descriptor: after a fork the line is still the parent's


class Sender:
    """The publishing side of a transport: a line for each thread, opened when first needed; it ends with its thread."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lines: weakref.WeakSet[_Line] = weakref.WeakSet()

    def _line(self, channel: Any) -> _Line:
        line: _Line | None = getattr(self._local, "line", None)
        if line is not None:
            if line.generation == _generation and line.is_alive():
                return line
            line.close()
        line = self._local.line = _Line(channel.pool, channel.patience)
        self._lines.add(line)
        return line

    def execute(self, commands: list[bytes], channel: Any) -> list[Any]:
        """Send packed commands in one go and return their replies; the first error reply is raised."""
        line = self._line(channel)
        failpoint("publish.before_send")
        replies: list[Any] = []
        try:
            if len(commands) == 1:
                replies = line.exchange(commands[0], 1)
            else:
                for piece in _pieces(commands):
                    replies += line.exchange(b"".join(piece), len(piece))
        except BaseException:
            self._local.line = None
            raise
        failpoint("publish.after_send")
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise error_for(reply)
        return replies

    def close(self) -> None:
        lines, self._lines = list(self._lines), weakref.WeakSet()
        for line in lines:
            line.close()
        self._local = threading.local()


def _pieces(commands: list[bytes]) -> Iterable[list[bytes]]:
    pieces: list[list[bytes]] = [[]]
    size = 0
    for command in commands:
        if size > PIECE_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(command)
        size += len(command)
    return pieces


def _encoder() -> Callable[[Any], str]:
    """Return kombu's JSON encoding of a whole message, made once instead of once a message."""
    default = JSONEncoder().default
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # no C
        return json.JSONEncoder(default=default).encode
    # No markers: what refers to itself ends in RecursionError.
    encode = make(None, default, json.encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return lambda value: "".join(encode(value, 0))


_encode = _encoder()


class Publisher:
    """Publishes encoded bodies; safe to use from many threads and after a fork.

    ``connection`` is a :class:`kombu.Connection` whose transport is ours.  It is connected when first needed.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._channel: Any = None
        self._lock = threading.Lock()
        self._declared: set[Any] = set()

    @property
    def channel(self) -> Any:
        """The channel that knows exchanges and bindings; declare entities on it, or by ``declare``."""
        channel = self._channel
        if channel is None or channel.closed:
            with self._lock:
                channel = self._channel
                if channel is None or channel.closed:
                    channel = self._channel = self.connection.default_channel
                    self._declared = set()
        return channel

    def declare(self, entity: Any) -> None:
        """Declare a queue or exchange, once for this publisher."""
        if entity not in self._declared:
            channel = self.channel
            with self._lock:
                maybe_declare(entity, channel)
                self._declared.add(entity)

    def publish(
        self,
        body: bytes | str,
        headers: Mapping[str, Any] | None = None,
        properties: Mapping[str, Any] | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        exchange: str = "",
        routing_key: str = "",
    ) -> None:
        """Send one message; when this returns, Redis has it.

        Raises:
            MessageTooLarge: it is over ``max_message_bytes``; nothing was sent.
            BrokerFull: Redis has no memory left.
            transport.connection_errors: the connection was lost, or no answer came in time; the message may have
                been sent.
        """
        channel = self.channel
        envelope = self._envelope(
            channel, body, headers, properties, content_type, content_encoding, exchange, routing_key
        )
        commands = self._commands(channel, envelope, exchange, routing_key)
        if commands:  # else no queue is bound that takes it: as with kombu, and any AMQP broker, it is dropped
            self._execute(channel, commands)

    def publish_many(self, messages: Iterable[Sequence[Any]]) -> None:
        """Send messages, each a tuple of the arguments of ``publish`` in their order, in one pipeline.

        If an error is raised, some of them may have been sent.
        """
        channel = self.channel
        commands: list[bytes] = []
        for message in messages:
            body, headers, properties, content_type, content_encoding, exchange, routing_key = message
            envelope = self._envelope(
                channel, body, headers, properties, content_type, content_encoding, exchange, routing_key
            )
            commands += self._commands(channel, envelope, exchange, routing_key)
        if commands:
            self._execute(channel, commands)

    def close(self) -> None:
        """Close the connection, with the sockets of all threads."""
        with self._lock:
            self._channel = None
            self.connection.release()

    @staticmethod
    def _envelope(
        channel: Any,
        body: bytes | str,
        headers: Mapping[str, Any] | None,
        properties: Mapping[str, Any] | None,
        content_type: str | None,
        content_encoding: str | None,
        exchange: str,
        routing_key: str,
    ) -> dict[str, Any]:
        encoding = channel.body_encoding
        if encoding == "base64":
            text: Any = b64encode(body.encode() if isinstance(body, str) else body).decode()
        else:
            text, encoding = channel.encode_body(body, encoding)
        merged = dict(properties) if properties else {}
        merged["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
        if merged.get("priority") is None:
            merged["priority"] = channel.default_priority
        merged["body_encoding"] = encoding
        merged["delivery_tag"] = new_delivery_tag()
        return {
            "body": text,
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": headers or {},
            "properties": merged,
        }

    @staticmethod
    def _commands(channel: Any, envelope: dict[str, Any], exchange: str, routing_key: str) -> list[bytes]:
        payload = _encode(envelope).encode()
        if len(payload) > channel.max_message_bytes and not _SENDS_ANY_SIZE:
            raise MessageTooLarge(len(payload), channel.max_message_bytes)
        if not exchange:
            if routing_key not in channel._expires:
                head = channel.push_head(routing_key, envelope["properties"]["priority"], envelope)
                return [b"%b%d\r\n%b\r\n" % (head, len(payload), payload)]
            queues: Iterable[str] = (routing_key,)
        elif channel.typeof(exchange).type == "fanout":
            topics = channel._get_publish_topics(exchange, routing_key)
            return [pack(("PUBLISH", f"{channel.global_keyprefix}{topic}", payload)) for topic in topics]
        else:
            queues = channel.queues_for(exchange, routing_key)
        commands = []
        for queue in queues:
            commands += channel.push_commands(queue, channel.key_for(queue, envelope), payload)
        return commands

    @staticmethod
    def _execute(channel: Any, commands: list[bytes]) -> None:
        try:
            channel.connection.sender.execute(commands, channel)
        except Exception as error:
            translated = publish_error(error, channel.connection.where)
            if translated is error:
                raise
            raise translated from error
