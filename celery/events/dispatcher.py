"""Sends events, one by one or in groups, and keeps those that the broker could not take."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kombu import Producer

from celery._state import app_or_default
from celery.events.event import Event, get_exchange, group_from
from celery.utils.nodenames import anon_nodename
from celery.utils.time import utcoffset

if TYPE_CHECKING:
    from kombu import Connection

__all__ = ("EventDispatcher",)

#: Events kept while the broker is away; the oldest give way.
MAX_OFFLINE_EVENTS = 10_000


class EventDispatcher:
    """Publishes events for one node.

    ``groups`` limits it to these groups of events (none: all).  Events of a group named in ``buffer_group`` are
    collected and sent together, at the latest when ``buffer_limit`` of them wait, or on `flush`; ``on_send_buffered``
    is called after each.  With ``buffer_while_offline``, events that cannot be sent wait for the next connection.
    """

    DISABLED_TRANSPORTS = {"sql"}

    app: Any = None

    #: Called when sending begins, and when it ends.
    on_enabled: set[Callable[[], None]] | None = None
    on_disabled: set[Callable[[], None]] | None = None

    def __init__(
        self,
        connection: Connection | None = None,
        hostname: str | None = None,
        enabled: bool = True,
        channel: Any = None,
        buffer_while_offline: bool = True,
        app: Any = None,
        serializer: str | None = None,
        groups: Iterable[str] | None = None,
        delivery_mode: int = 1,
        buffer_group: Iterable[str] | None = None,
        buffer_limit: int = 24,
        on_send_buffered: Callable[[], None] | None = None,
    ) -> None:
        self.app = app_or_default(app or self.app)
        self.connection = connection
        self.channel = channel
        self.hostname = hostname or anon_nodename()
        self.buffer_while_offline = buffer_while_offline
        self.buffer_group = frozenset(buffer_group or ())
        self.buffer_limit = buffer_limit
        self.on_send_buffered = on_send_buffered
        self.mutex = threading.Lock()
        self.producer: Producer | None = None
        self.serializer = serializer or self.app.conf.event_serializer
        self.groups = set(groups or ())
        self.delivery_mode = delivery_mode
        self.pid = os.getpid()
        self.tzoffset = [-time.timezone, -time.altzone]
        self.clock = self.app.clock
        self.on_enabled = set()
        self.on_disabled = set()
        self._offline: deque[tuple[str, dict[str, Any], Any]] = deque(maxlen=MAX_OFFLINE_EVENTS)
        self._grouped: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

        if not connection and channel:
            self.connection = channel.connection.client
        self.enabled = enabled
        transport = self.connection.transport if self.connection else None
        if transport is not None and transport.driver_type in self.DISABLED_TRANSPORTS:
            self.enabled = False
        self.exchange = get_exchange(self.connection or self.app.connection_for_write(), self.app.conf.event_exchange)
        self.headers = {"hostname": self.hostname}
        if self.enabled:
            self.enable()

    def __enter__(self) -> EventDispatcher:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    @property
    def publisher(self) -> Producer | None:
        """Upstream: an older name of ``producer``."""
        return self.producer

    @publisher.setter
    def publisher(self, producer: Producer | None) -> None:
        self.producer = producer

    def enable(self) -> None:
        """Begin to send."""
        self.producer = Producer(
            self.channel or self.connection,
            exchange=self.exchange,
            serializer=self.serializer,
            auto_declare=False,
        )
        self.enabled = True
        for callback in self.on_enabled or ():
            callback()

    def disable(self) -> None:
        """Stop sending; the channel is closed."""
        if self.enabled:
            self.enabled = False
            self.close()
            for callback in self.on_disabled or ():
                callback()

    def publish(
        self,
        type: str,
        fields: dict[str, Any],
        producer: Producer,
        blind: bool = False,
        Event: Callable[..., dict[str, Any]] = Event,
        **kwargs: Any,
    ) -> None:
        """Send one event by ``producer``; ``blind`` leaves the logical clock alone, ``kwargs`` go to the producer."""
        clock = None if blind else self.clock.forward()
        event = Event(type, hostname=self.hostname, utcoffset=utcoffset(), pid=self.pid, clock=clock, **fields)
        with self.mutex:
            self._publish(event, producer, routing_key=type.replace("-", "."), **kwargs)

    def send(
        self,
        type: str,
        blind: bool = False,
        utcoffset: Callable[..., float] = utcoffset,
        retry: bool = False,
        retry_policy: dict[str, Any] | None = None,
        Event: Callable[..., dict[str, Any]] = Event,
        **fields: Any,
    ) -> None:
        """Send one event, or add it to its group's buffer."""
        if not self.enabled:
            return
        group = group_from(type)
        if self.groups and group not in self.groups:
            return
        if group not in self.buffer_group:
            clock = None if blind else self.clock.forward()
            event = Event(type, hostname=self.hostname, utcoffset=utcoffset(), pid=self.pid, clock=clock, **fields)
            self._send_or_keep(event, type.replace("-", "."), retry, retry_policy)
            return
        clock = self.clock.forward()
        event = Event(type, hostname=self.hostname, utcoffset=utcoffset(), pid=self.pid, clock=clock, **fields)
        waiting = self._grouped[group]
        waiting.append(event)
        if len(waiting) >= self.buffer_limit:
            self.flush()
        elif self.on_send_buffered:
            self.on_send_buffered()

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send what waits: events kept while offline (``errors``), and groups."""
        if errors:
            waiting, self._offline = self._offline, deque(maxlen=MAX_OFFLINE_EVENTS)
            while waiting:
                routing_key, event, policy = waiting.popleft()
                try:
                    self._send_now(event, routing_key, *policy)
                except Exception:
                    # Put back, in order, what was not sent; the next connection tries again.
                    self._offline.extendleft(reversed([(routing_key, event, policy), *waiting]))
                    raise
        if groups:
            for group, events in self._grouped.items():
                if events:
                    self._grouped[group] = []
                    self._send_or_keep(events, f"{group}.multi", False, None)

    def extend_buffer(self, other: EventDispatcher) -> None:
        """Take over the events that ``other``, of a connection that was lost, could not send."""
        self._offline.extend(other._offline)

    def close(self) -> None:
        """Forget the producer; a dispatcher that is closed can be enabled again."""
        self.producer = None

    def _send_or_keep(self, event: Any, routing_key: str, retry: bool, policy: dict[str, Any] | None) -> None:
        try:
            self._send_now(event, routing_key, retry, policy)
        except Exception:
            if not self.buffer_while_offline:
                raise
            self._offline.append((routing_key, event, (retry, policy)))

    def _send_now(self, event: Any, routing_key: str, retry: bool, policy: dict[str, Any] | None) -> None:
        with self.mutex:
            self._publish(event, self.producer, routing_key, retry=retry, retry_policy=policy)

    def _publish(self, event: Any, producer: Any, routing_key: str, **options: Any) -> None:
        exchange = self.exchange
        producer.publish(
            event,
            routing_key=routing_key,
            exchange=exchange.name,
            declare=[exchange],
            serializer=self.serializer,
            headers=self.headers,
            delivery_mode=self.delivery_mode,
            **options,
        )
