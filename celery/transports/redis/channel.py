"""A channel: kombu's Redis channel with another heart.

What touches no message on its way (connection options, declaring, binding, counting, purging, sentinel) is kombu's.
Taking (``consuming.py``), settling (``settling.py``) and publishing are ours.  See docs/design/redis-broker.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from time import monotonic
from typing import Any

from kombu.log import get_logger
from kombu.transport import redis as upstream
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps
from kombu.utils.objects import cached_property
from redis import Redis
from redis.exceptions import OutOfMemoryError

from celery.transports.message import Malformed, Message, parse
from celery.transports.redis.consuming import Consuming
from celery.transports.redis.delaying import Delaying
from celery.transports.redis.engine import Engine
from celery.transports.redis.errors import MessageTooLarge, publish_error
from celery.transports.redis.hurrying import in_time
from celery.transports.redis.lease import Lease, lease_for
from celery.transports.redis.qos import QoS
from celery.transports.redis.resp import bulk, pack
from celery.transports.redis.revoking import Revoking
from celery.transports.redis.settling import Settling
from celery.utils.failpoints import is_active
from celery.utils.redis_driver import driver_arguments

__all__ = ("Channel", "SentinelChannel")

logger = get_logger("celery.transports.redis")

#: Seconds of silence after which the server is asked: 24 commands a minute, and what is dead is known in 15 seconds.
LONGEST_SILENCE = 5.0
#: Routes of named exchanges are remembered for so long.
ROUTE_SECONDS = 5.0
#: Whether a test of the tests has switched these protections off.
_RETURNS_ALL = is_active("unprotect.adoption")
_WAITS_FOREVER = is_active("unprotect.deadline")
_NEEDS_ROOM = is_active("unprotect.full")


class _OurChannel(Consuming, Delaying, Revoking, Settling):
    """What we change in kombu's channel; mixed into the plain and the sentinel one."""

    QoS = QoS
    Message = Message

    #: A broadcast may be held and acknowledged: given back it comes again here, and to nobody else.
    holds_broadcasts = True

    #: Seconds; see docs/design/redis-broker.md.
    lease_ttl = 60.0
    #: A message is set aside when its worker was lost so often while it ran the task.
    max_redeliveries = 3
    #: Bytes of a whole message, as it travels.
    max_message_bytes = 128 * 1024 * 1024
    #: Seconds for which it is remembered that a task was revoked.
    revoke_ttl = 86400.0
    #: Seconds that anything may take; upstream has no limit.
    socket_timeout = 10.0

    # -- life

    def __init__(self: Any, transport: Any, *args: Any, **kwargs: Any) -> None:
        self.engine: Engine = transport.cycle
        self.backlog: deque[tuple[str, str, bytes]] = deque()
        #: Publications that wait for their delivery; there is no record of them.
        self.broadcasts: deque[tuple[str, str, bytes]] = deque()
        self._broadcast_bytes = 0
        self._broadcasts_dropped = 0
        self._owes_lists = False
        self.keys: frozenset[bytes] = frozenset()
        self.news_keys: frozenset[bytes] = frozenset()
        #: When the next parked message of our queues is due, on the monotonic clock.
        self.due_at: float | None = None
        self._due_alarm = 0.0
        self._news_alarm = False
        self.is_ready = False
        self.is_asking = False
        self._callbacks: dict[str, dict[str, tuple[Callable[[Any], Any], bool]]] = {}
        self._requests: dict[tuple[str, ...], tuple[list[str], bytes, int]] = {}
        self._routes: dict[tuple[str, str], tuple[float, list[str]]] = {}
        self._push_heads: dict[tuple[str, int], bytes] = {}
        self._local_numbers = count(1)
        self._misses = 0
        self._rate = 0.0
        self._counted = 0
        self._counted_at = monotonic()
        self._delivered_at = 0.0
        self._stale_alarm = False
        self.socket_connect_timeout = transport.client.connect_timeout or 5
        super().__init__(transport, *args, **kwargs)  # type: ignore[call-arg]
        self.QoS = QoS
        lease = self.lease
        lease.holders.append(self.qos._delivered)
        lease.backlogs.append(self.backlog)

    @cached_property
    def lease(self: Any) -> Lease:
        options = self.pool.connection_kwargs
        address = tuple(str(options.get(name)) for name in ("host", "port", "path", "db", "username"))
        sentinels = (getattr(self, "master_name", None), *map(str, self.connection.client.alt or ()))
        key = (address, sentinels, self._unacked, self._unacked_index)
        return lease_for(key, self._client_factory, self._unacked, self._unacked_index)

    def _client_factory(self: Any) -> Callable[[], Any]:
        """Return a maker of clients that outlives this channel."""
        pool = self._get_pool()
        return lambda: Redis(connection_pool=pool)

    @property
    def _unacked(self: Any) -> str:
        return f"{self.global_keyprefix}{self.unacked_key}"

    @property
    def _unacked_index(self: Any) -> str:
        return f"{self.global_keyprefix}{self.unacked_index_key}"

    @property
    def patience(self: Any) -> float:
        """Seconds that the server may take to answer."""
        return float(self.socket_timeout or 10.0) if not _WAITS_FOREVER else 86400.0

    @property
    def ping_seconds(self: Any) -> float:
        """Seconds of silence after which we ask the server whether it is still there."""
        return min(float(self.health_check_interval or 25), max(self.lease_ttl / 3, 0.5), LONGEST_SILENCE)

    @property
    def async_pool(self: Any) -> Any:
        """kombu keeps a second pool for its blocking pops; we have none of those."""
        return self.pool

    @contextmanager
    def conn_or_acquire(self: Any, client: Any = None) -> Iterator[Any]:
        yield client or self.client

    def _connparams(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        params = {**driver_arguments(), **super()._connparams(*args, **kwargs)}
        return {**params, "connection_class": in_time(params["connection_class"])}

    def _after_fork(self: Any) -> None:
        pool = self._pool
        if pool is not None:
            pool.disconnect()

    def close(self: Any) -> None:
        if self.closed:
            return
        engine, lease = self.engine, self.lease
        self.keys = frozenset()
        if engine.is_foreign:
            # In a forked child the sockets are the parent's: a word, or a wait for one, would spoil its exchanges.
            self.closed = True
            return
        try:
            if engine.wire is not None and not engine.is_broken:
                self._hand_back()
        except engine.transport.connection_errors as error:
            engine.break_off(error)
        finally:
            self._leave(lease)
            engine.discard(self)
            try:
                super().close()
            except engine.transport.connection_errors as error:  # it deletes queues of its own before it lets go
                logger.debug("Closing a channel: %s", error)
                self._disconnect_pools()
                self._close_clients()
                self.closed = True

    def _hand_back(self: Any) -> None:
        """Put back what was not delivered, then what was delivered and neither settled nor started."""
        self._return_backlog(list(self.backlog))
        self.backlog.clear()
        self.broadcasts.clear()
        self.restore_unacked()
        self.engine.flush()

    def _leave(self: Any, lease: Lease) -> None:
        """Let the lease keep what outlives this channel."""
        held = self.qos._delivered
        lease.holders[:] = [holder for holder in lease.holders if holder is not held]
        lease.backlogs[:] = [backlog for backlog in lease.backlogs if backlog is not self.backlog]
        if self.engine.is_foreign:
            return
        for tag, message in held.items():
            if tag[0] == "~":
                (lease.detached if message.has_started and not _RETURNS_ALL else lease.returns)[tag] = message
        held.clear()
        for queue, tag, payload in self.backlog:
            if tag[0] == "~":
                try:
                    lease.returns[tag] = Message(parse(payload), self, tag, queue)
                except Malformed:
                    continue  # the lease ends, and the sweep sets it aside
        self.backlog.clear()

    # -- keys and routes

    def key_for(self: Any, queue: str, envelope: Any) -> str:
        """Return the list where ``envelope`` waits in ``queue``; without one, the list of priority 0."""
        name = queue if envelope is None else self._q_for_pri(queue, self._get_message_priority(envelope))
        return f"{self.global_keyprefix}{name}"

    def queues_for(self: Any, exchange: str, routing_key: str) -> list[str]:
        """Return the queues that a message for ``exchange`` and ``routing_key`` goes to."""
        return list(self._lookup(exchange, routing_key))

    def _lookup(self: Any, exchange: str, routing_key: str, default: Any = None) -> Any:
        if not exchange:
            return [routing_key or default or self.deadletter_queue]
        now = monotonic()
        known = self._routes.get((exchange, routing_key))
        if known is not None and known[0] > now:
            return known[1]
        queues = list(super()._lookup(exchange, routing_key, default))
        if queues:
            if len(self._routes) > 10_000:
                self._routes.clear()
            self._routes[exchange, routing_key] = (now + ROUTE_SECONDS, queues)
        return queues

    def _queue_bind(self: Any, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Store a binding; on a server without memory go on without, because consuming needs none and makes room."""
        self._routes.clear()
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except OutOfMemoryError:
            if _NEEDS_ROOM:
                raise
            logger.warning("The broker is full: the binding of queue %r to exchange %r is not stored", queue, exchange)

    def maybe_refresh_binding_expiry(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super().maybe_refresh_binding_expiry(*args, **kwargs)
        except OutOfMemoryError as error:  # the next round of housekeeping tries again
            logger.debug("The broker is full: bindings are not refreshed: %s", error)

    # Upstream wraps reads in MULTI, which a server without memory refuses; then no worker could start and make room.

    def _steps(self: Any, queue: str) -> list[str]:
        return [self._q_for_pri(queue, step) for step in self.priority_steps]

    def _size(self: Any, queue: str) -> int:
        pipe = self.client.pipeline(transaction=False)
        for name in self._steps(queue):
            pipe.llen(name)
        return sum(pipe.execute())

    def _has_queue(self: Any, queue: str, **kwargs: Any) -> bool:
        return bool(self._size(queue))  # an empty list does not exist

    def _purge(self: Any, queue: str) -> int:
        pipe = self.client.pipeline(transaction=False)
        for name in self._steps(queue):
            pipe.llen(name)
            pipe.delete(name)
        return sum(pipe.execute()[::2]) + self._delete_parked(queue)

    def rebind(self: Any) -> None:
        """Tell Redis the bindings again that were declared here: it has lost them."""
        self._routes.clear()
        for (queue, exchange, routing_key), arguments in list(self.state.bindings.items()):
            meta = self.typeof(exchange).prepare_bind(queue, exchange, routing_key, arguments)
            self._queue_bind(exchange, *meta)

    def _delete(self: Any, queue: str, *args: Any, **kwargs: Any) -> Any:
        self._routes.clear()
        self._delete_parked(queue)
        return super()._delete(queue, *args, **kwargs)

    # -- hooks, shared by all channels of a transport

    @property
    def on_lost_lease(self: Any) -> Callable[[list[str]], None]:
        """Called with tags whose lease was lost before they were settled; may be replaced."""
        return self.connection.on_lost_lease  # type: ignore[no-any-return]

    @on_lost_lease.setter
    def on_lost_lease(self: Any, hook: Callable[[list[str]], None]) -> None:
        self.connection.on_lost_lease = hook

    @property
    def on_set_aside(self: Any) -> Callable[[str, Any, str], None]:
        """Called with (queue, message, reason) of what went to a dead-letter list; may be replaced."""
        return self.connection.on_set_aside  # type: ignore[no-any-return]

    @on_set_aside.setter
    def on_set_aside(self: Any, hook: Callable[[str, Any, str], None]) -> None:
        self.connection.on_set_aside = hook

    # -- publishing

    def _put(self: Any, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if kwargs.get("_publish_batch") is not None:
            super()._put(queue, message, **kwargs)
            return
        self.put_payload(queue, self.key_for(queue, message), dumps(message).encode())

    def put_payload(self: Any, queue: str, key: str, payload: bytes) -> None:
        """Push a whole message onto a list."""
        if len(payload) > self.max_message_bytes:
            raise MessageTooLarge(len(payload), self.max_message_bytes)
        self._send(self.push_commands(queue, key, payload))

    def push_head(self: Any, queue: str, priority: Any, envelope: dict[str, Any]) -> bytes:
        """Return the packed beginning of the command that pushes onto a queue's list, up to the payload's length."""
        heads = self._push_heads
        try:
            return heads[queue, priority]  # type: ignore[no-any-return]
        except (KeyError, TypeError):
            head = b"*3\r\n" + bulk("LPUSH") + bulk(self.key_for(queue, envelope)) + b"$"
            if isinstance(priority, int) and len(heads) < 10_000:
                heads[queue, priority] = head
            return head

    def push_commands(self: Any, queue: str, key: str, payload: bytes) -> list[bytes]:
        """Return the commands that put a whole message into a queue."""
        commands = [pack(("LPUSH", key, payload))]
        expires = self._expires.get(queue)
        if expires:
            steps = (f"{self.global_keyprefix}{self._q_for_pri(queue, step)}" for step in self.priority_steps)
            commands += [pack(("PEXPIRE", step, expires)) for step in steps]
        return commands

    def _put_fanout(self: Any, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any) -> None:
        if kwargs.get("_publish_batch") is not None:
            super()._put_fanout(exchange, message, routing_key, **kwargs)
            return
        payload = dumps(message)
        topics = self._get_publish_topics(exchange, routing_key)
        self._send([pack(("PUBLISH", f"{self.global_keyprefix}{topic}", payload)) for topic in topics])

    def _send(self: Any, commands: list[bytes]) -> None:
        try:
            self.connection.sender.execute(commands, self)
        except Exception as error:
            where = self.connection.where
            translated = publish_error(error, where)
            if translated is error:
                raise
            raise translated from error

    def get_table(self: Any, exchange: str) -> list[tuple[str, ...]]:
        key = self.keyprefix_queue % exchange
        return [tuple(bytes_to_str(value).split(self.sep)) for value in self.client.smembers(key)]


_OPTIONS = ("lease_ttl", "max_redeliveries", "max_message_bytes", "revoke_ttl")


class Channel(_OurChannel, upstream.Channel):
    """A channel to one Redis server."""

    from_transport_options = (*upstream.Channel.from_transport_options, *_OPTIONS)


class SentinelChannel(_OurChannel, upstream.SentinelChannel):
    """A channel to the master that sentinels name."""

    from_transport_options = (*upstream.SentinelChannel.from_transport_options, *_OPTIONS)
