"""kombu's handle on a store: channels, prefetch, settling, and waiting for what others write."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable
from queue import Empty
from time import monotonic, sleep
from typing import Any
from urllib.parse import unquote

from kombu.log import get_logger
from kombu.transport import base, virtual
from kombu.utils.json import dumps

from celery.exceptions import ImproperlyConfigured
from celery.transports.dead_letters import dead_envelope
from celery.transports.message import (
    LOSSES,
    STARTED_LOSSES,
    Malformed,
    count_loss,
    is_lost_too_often,
    lost_too_often,
    mark_redelivered,
    parse,
)
from celery.transports.message import Message as TakenMessage
from celery.transports.sqlite.store import Store, Taken

__all__ = ("Channel", "Transport")

logger = get_logger("celery.transports.sqlite")

#: Seconds between looks at the file; one costs about 10 µs.
LOOK_SECONDS = 0.02
#: Seconds between looks for holders that have died, and for queues that have expired.
SWEEP_SECONDS = 1.0
#: At most so many messages are taken at once.
BATCH = 50


class QoS(virtual.QoS):
    """Counts what is delivered and not yet settled."""

    def __init__(self, channel: Channel, prefetch_count: int = 0) -> None:
        self.channel = channel
        self.prefetch_count = prefetch_count or 0
        self._delivered: dict[int, TakenMessage] = {}
        self._dirty: set[int] = set()

    def ack(self, delivery_tag: int) -> None:
        self.channel.basic_ack(delivery_tag)

    def reject(self, delivery_tag: int, requeue: bool = False) -> None:
        self.channel.basic_reject(delivery_tag, requeue=requeue)

    def append(self, message: TakenMessage, delivery_tag: int) -> None:
        self._delivered[delivery_tag] = message

    def restore_unacked(self) -> list[Any]:
        self.channel.restore_unacked()
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        self.channel.restore_unacked()


class Channel(virtual.Channel):
    """A channel to one file."""

    QoS = QoS
    Message = TakenMessage
    supports_fanout = True
    #: A message is set aside when its worker was lost so often while it ran the task; ten times that in any case.
    max_redeliveries = 3

    from_transport_options = (*virtual.Channel.from_transport_options, "max_redeliveries")

    #: A broadcast may be held and acknowledged: given back it comes again here, and to nobody else.
    holds_broadcasts = True

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.store: Store = connection.store
        self.backlog: deque[Taken] = deque()
        self._callbacks: dict[str, dict[str, tuple[Callable[[Any], Any], bool]]] = {}
        self._expiring: set[str] = set()
        #: Whether the last look ended because the prefetch count was reached.
        self.was_full = False

    # -- taking

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **kwargs: Any
    ) -> None:
        self._tag_to_queue[consumer_tag] = queue
        self._consumers.add(consumer_tag)
        self._active_queues.append(queue)
        self._callbacks.setdefault(queue, {})[consumer_tag] = (callback, no_ack)
        self.connection.look_again()

    def basic_cancel(self, consumer_tag: str) -> None:
        queue = self._tag_to_queue.pop(consumer_tag, None)
        if queue is None:
            return
        self._consumers.discard(consumer_tag)
        self._active_queues.remove(queue)
        consumers = self._callbacks[queue]
        del consumers[consumer_tag]
        if not consumers:
            del self._callbacks[queue]
            waiting = [taken for taken in self.backlog if taken.queue == queue]
            for taken in waiting:
                self.backlog.remove(taken)
            self.store.put_back([taken.id for taken in waiting], redelivered=False)

    def drain_events(self, timeout: float | None = None, callback: Any = None) -> int:
        """Deliver one message.

        Raises:
            Empty: there is none, or no room for one.
        """
        while True:
            self.was_full = bool(self._active_queues) and not self.qos.can_consume()
            if not self._active_queues or self.was_full:
                raise Empty
            if not self.backlog:
                free = 1 if "can_consume" in self.qos.__dict__ else self.qos.can_consume_max_estimate()
                self.backlog.extend(self.store.take(list(dict.fromkeys(self._active_queues)), min(free or 1, BATCH)))
                if not self.backlog:
                    raise Empty
            if self._deliver(self.backlog.popleft()):
                return 1

    def _deliver(self, taken: Taken) -> bool:
        consumers = self._callbacks.get(taken.queue)
        if consumers is None:
            self.store.put_back([taken.id], redelivered=False)
            return False
        callback, no_ack = next(reversed(consumers.values()))
        message = self._message(taken, no_ack)
        if message is None:
            return False
        callback(message)
        return True

    def _message(self, taken: Taken, no_ack: bool) -> TakenMessage | None:
        """Return what was taken as a message; ``None`` if it had to be set aside."""
        try:
            envelope = parse(taken.payload)
        except Malformed as error:
            self._set_aside(taken, taken.payload, f"malformed: {error}")
            return None
        if taken.redelivered:
            mark_redelivered(envelope)
        if taken.losses:
            envelope["headers"][LOSSES] = taken.losses
        if taken.started_losses:
            envelope["headers"][STARTED_LOSSES] = taken.started_losses
        if is_lost_too_often(taken.started_losses, taken.losses, self.max_redeliveries):
            times = f"{taken.losses} times, {taken.started_losses} of them while it ran the task"
            self._set_aside(taken, envelope, f"its worker was lost {times}")
            return None
        message = TakenMessage(envelope, self, taken.id, taken.queue)  # type: ignore[arg-type]
        if no_ack:
            self.store.forget([taken.id])
        else:
            self.qos.append(message, taken.id)
        return message

    def _set_aside(self, taken: Taken, message: Any, reason: str) -> None:
        self.store.move(taken.id, f"{taken.queue}.dead", dead_envelope(message, taken.queue, reason).encode())
        self.connection.on_set_aside(taken.queue, message, reason)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> TakenMessage | None:
        while found := self.store.take([queue], 1):
            message = self._message(found[0], no_ack)
            if message is not None:
                return message
        return None

    def message_to_python(self, raw_message: Any) -> Any:
        return raw_message if isinstance(raw_message, TakenMessage) else TakenMessage(raw_message, self)

    # -- settling

    def basic_ack(self, delivery_tag: Any, multiple: bool = False) -> None:
        held = self.qos._delivered
        tags = [delivery_tag]
        if multiple and delivery_tag in held:
            tags = list(held)[: list(held).index(delivery_tag) + 1]
        for tag in tags:
            held.pop(tag, None)
        self.store.forget(tags)

    def basic_reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        if not requeue:
            self.basic_ack(delivery_tag)
        elif self.qos._delivered.pop(delivery_tag, None) is not None:
            self.store.put_back([delivery_tag], at_end=True)
            self.connection.look_again()

    def requeue_lost(self, message: TakenMessage, cause: str = "") -> str | None:
        """Put ``message`` back to be taken next, counting that what ran it was lost; once too often, set it aside.

        Returns the reason then.
        """
        losses, _ = count_loss(message._raw, started=True)
        if losses >= self.max_redeliveries:
            reason = lost_too_often(losses, cause)
            self.dead_letter(message, reason)
            return reason
        self.qos._delivered.pop(message.delivery_tag, None)
        self.store.count_loss(message.delivery_tag)
        self.connection.look_again()
        return None

    def dead_letter(self, message: TakenMessage, reason: str) -> None:
        """Set ``message`` aside: take it off its queue and keep it, with the reason, in the queue ``<queue>.dead``."""
        self.qos._delivered.pop(message.delivery_tag, None)
        kept = dead_envelope(message._raw, message.queue, reason).encode()
        self.store.move(message.delivery_tag, f"{message.queue}.dead", kept)
        message._state = "REJECTED"

    def message_started(self, message: TakenMessage) -> None:
        self.store.mark_started(message.delivery_tag)

    def basic_recover(self, requeue: bool = False) -> None:
        """Put back everything that is not settled."""
        if not requeue:
            raise NotImplementedError("use requeue=True: this broker cannot deliver again on the same channel")
        self.restore_unacked()

    def restore_unacked(self) -> None:
        held, waiting = self.qos._delivered, [taken.id for taken in self.backlog]
        self.backlog.clear()
        delivered = list(held)
        held.clear()
        if self.store.holders.own is None:  # this process holds nothing: a forked child closes what it inherited
            return
        if waiting:
            self.store.put_back(waiting, redelivered=False)
        if delivered and self.do_restore:
            self.store.put_back(delivered)

    # -- publishing

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        self._put_all([queue], message)

    def _put_all(self, queues: list[str], message: dict[str, Any]) -> None:
        self.store.put(queues, dumps(message).encode(), self._get_message_priority(message))
        self.connection.look_again()

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any) -> None:
        """Put one copy into each bound queue; a routing key selects as it does for topics."""
        topics: Any = self.exchange_types["topic"]
        queues = {
            queue
            for key, pattern, queue in self.get_table(exchange)
            if not key or not routing_key or topics._match(pattern or topics.key_to_pattern(key), routing_key)
        }
        if queues:
            self._put_all(sorted(queues), message)

    # -- queues

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        expires = (kwargs.get("arguments") or {}).get("x-expires")
        if expires is not None:
            self._expiring.add(queue)
        self.store.declare(queue, expires)

    def prepare_queue_arguments(self, arguments: Any, **kwargs: Any) -> Any:
        return base.to_rabbitmq_queue_arguments(arguments, **kwargs)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return self.store.exists(queue)

    def _size(self, queue: str) -> int:
        return self.store.size(queue)

    def _purge(self, queue: str) -> int:
        return self.store.purge(queue)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        self.store.delete(queue)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        if if_empty and self._size(queue):
            return
        self.store.delete(queue)
        self.state.queue_bindings_delete(queue)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        self.store.bind(exchange, routing_key or "", pattern or "", queue)

    def get_table(self, exchange: str) -> list[tuple[Any, ...]]:
        return self.store.bindings(exchange)

    @property
    def queues_in_use(self) -> set[str]:
        return self._expiring.intersection(self._active_queues)


class Transport(virtual.Transport):
    """SQLite as a broker."""

    Channel = Channel
    channels: list[Any]
    can_parse_url = True
    driver_type = "sqlite"
    driver_name = "sqlite3"
    polling_interval = LOOK_SECONDS
    connection_errors = (*virtual.Transport.connection_errors, sqlite3.OperationalError)
    channel_errors = (*virtual.Transport.channel_errors, sqlite3.DatabaseError)
    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset(["direct", "topic", "fanout"]), heartbeats=False
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        options = client.transport_options
        self.store = Store(
            path_of(client.hostname),
            float(options.get("busy_timeout", 10.0)),
            _synchronous(options.get("synchronous", "NORMAL")),
        )
        self._seen = -1
        self._must_look = True
        self._sweep_at = 0.0
        self._timer: Any = None
        self._hub: Any = None

    def driver_version(self) -> str:
        return sqlite3.sqlite_version

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        return uri

    def establish_connection(self) -> Any:
        self.store.version()  # opens the file, or says why not
        return super().establish_connection()

    def close_connection(self, connection: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._hub.on_tick.discard(self._on_tick)
            self._timer = None
        super().close_connection(connection)
        self.store.close()

    def on_set_aside(self, queue: str, message: Any, reason: str) -> None:
        """Called with what went to the queue ``<queue>.dead``; may be replaced."""
        task = message.get("headers", {}).get("id") if isinstance(message, dict) else None
        logger.error("Set a message aside in %r (task id %s): %s", f"{queue}.dead", task, reason)

    # -- waiting

    def look_again(self) -> None:
        """What we write ourselves does not change the version that we see."""
        self._must_look = True

    def _has_news(self) -> bool:
        version = self.store.version()
        if version == self._seen and not self._must_look:
            return False
        self._seen, self._must_look = version, False
        return True

    def _sweep(self, now: float) -> None:
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_SECONDS
        recovered = self.store.recover()
        if recovered:
            logger.warning("Put back %d message(s) whose worker is gone", recovered)
            self._must_look = True
        in_use = {queue for channel in self.channels for queue in channel.queues_in_use}
        if in_use:
            self.store.keep_in_use(in_use)

    def _deliver_all(self, limit: int = 1000) -> int:
        delivered = 0
        for channel in list(self.channels):
            try:
                while delivered < limit:
                    delivered += channel.drain_events()
            except Empty:
                pass
        return delivered

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        self._hub = loop
        loop.on_tick.add(self._on_tick)
        self._timer = loop.call_repeatedly(LOOK_SECONDS, self.look)

    def look(self) -> None:
        """Called by the timer: have others written?  The next tick deals with it."""
        try:
            self._sweep(monotonic())
            if self._has_news():
                self._must_look = True
        except sqlite3.OperationalError as error:  # locked or full for a while; the next look may do better
            logger.warning("The broker's file cannot be read just now: %s", error)

    def _on_tick(self) -> None:
        if self._must_look:
            self._must_look = False
            if self._deliver_all():
                self._must_look = True
        elif any(channel.was_full and channel.qos.can_consume() for channel in self.channels):
            self._deliver_all()  # an acknowledgement has made room

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver one message.

        Raises:
            TimeoutError: none came within ``timeout`` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            now = monotonic()
            self._sweep(now)
            if self._deliver_all(limit=1):
                return
            if deadline is not None and now >= deadline:
                raise TimeoutError("timed out")
            self._has_news()
            while not self._has_news() and (deadline is None or monotonic() < deadline):
                sleep(LOOK_SECONDS if deadline is None else max(0.0, min(LOOK_SECONDS, deadline - monotonic())))
                self._sweep(monotonic())


def path_of(url: str) -> str:
    """Return the path that ``sqlite:///path`` names.

    Raises:
        ImproperlyConfigured: it names none.
    """
    path = unquote(url.partition("://")[2]) if "://" in url else url
    if not path.startswith("/") or not path.strip("/") or path.endswith("/"):
        raise ImproperlyConfigured(
            f"`{url}` names no file. Write sqlite:///relative/path or sqlite:////absolute/path as `broker_url`."
        )
    path = path[1:]
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ImproperlyConfigured(f"The broker's file cannot be made: there is no directory {folder}.")
    return path


def _synchronous(mode: Any) -> str:
    if str(mode).upper() not in ("OFF", "NORMAL", "FULL", "EXTRA"):
        raise ImproperlyConfigured(f"`synchronous` must be OFF, NORMAL, FULL or EXTRA, is {mode!r}.")
    return str(mode).upper()
