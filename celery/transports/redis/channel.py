"""A channel: kombu's Redis channel with another heart.

What touches no message on its way (connection options, declaring, binding, counting, purging, sentinel) is kombu's.
Taking, settling, putting back and publishing are ours.  See docs/design/redis-broker.md.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from time import monotonic
from typing import Any

from kombu.log import get_logger
from kombu.transport import redis as upstream
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps
from kombu.utils.objects import cached_property
from kombu.utils.scheduling import round_robin_cycle
from redis import Redis
from redis.exceptions import OutOfMemoryError

from celery.transports.dead_letters import dead_envelope
from celery.transports.message import Malformed, Message, count_loss, lost_too_often, mark_redelivered, parse
from celery.transports.redis.engine import Engine
from celery.transports.redis.errors import MessageTooLarge, publish_error
from celery.transports.redis.lease import Lease, lease_for
from celery.transports.redis.qos import QoS
from celery.transports.redis.recovery import LAST, NEXT, Move, give_back
from celery.transports.redis.resp import ReplyError, bulk, pack
from celery.utils.failpoints import failpoint, is_active

__all__ = ("Channel", "SentinelChannel")

logger = get_logger("celery.transports.redis")

#: At most so many messages are taken at once.
BATCH = 100
#: A worker that settles more than this many messages a second takes as many ahead as it settles in AHEAD_SECONDS.
FAST_RATE = 500
AHEAD_SECONDS = 0.010
#: What was taken ahead and could not be delivered for so long goes back.
STALE_SECONDS = 0.100
#: Where many workers wait for one list, those that find it empty wait a random while, at most this long.
LONGEST_MISS_SECONDS = 0.010
#: Routes of named exchanges are remembered for so long.
ROUTE_SECONDS = 5.0


class _OurChannel:
    """What we change in kombu's channel; mixed into the plain and the sentinel one."""

    QoS = QoS
    Message = Message

    #: Seconds; see docs/design/redis-broker.md.
    lease_ttl = 60.0
    #: A message is set aside when its worker was lost so often while it ran the task.
    max_redeliveries = 3
    #: Bytes of a whole message, as it travels.
    max_message_bytes = 128 * 1024 * 1024
    #: Seconds that anything may take; upstream has no limit.
    socket_timeout = 10.0

    # -- life

    def __init__(self: Any, transport: Any, *args: Any, **kwargs: Any) -> None:
        self.engine: Engine = transport.cycle
        self.backlog: deque[tuple[str, str, bytes]] = deque()
        self.keys: frozenset[bytes] = frozenset()
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
        return float(self.socket_timeout or 10.0)

    @property
    def ping_seconds(self: Any) -> float:
        """Seconds of silence after which we ask the server whether it is still there."""
        return min(float(self.health_check_interval or 25), max(self.lease_ttl / 3, 0.5))

    @property
    def async_pool(self: Any) -> Any:
        """kombu keeps a second pool for its blocking pops; we have none of those."""
        return self.pool

    @contextmanager
    def conn_or_acquire(self: Any, client: Any = None) -> Iterator[Any]:
        yield client or self.client

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
            super().close()  # type: ignore[misc]

    def _hand_back(self: Any) -> None:
        """Put back what was not delivered, then what was delivered and neither settled nor started."""
        self._return_backlog(list(self.backlog))
        self.backlog.clear()
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
                (lease.detached if message.has_started else lease.returns)[tag] = message
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
        queues = list(super()._lookup(exchange, routing_key, default))  # type: ignore[misc]
        if queues:
            if len(self._routes) > 10_000:
                self._routes.clear()
            self._routes[exchange, routing_key] = (now + ROUTE_SECONDS, queues)
        return queues

    def _queue_bind(self: Any, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Store a binding; on a server without memory go on without, because consuming needs none and makes room."""
        self._routes.clear()
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]
        except OutOfMemoryError:
            logger.warning("The broker is full: the binding of queue %r to exchange %r is not stored", queue, exchange)

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
        return sum(pipe.execute()[::2])

    def rebind(self: Any) -> None:
        """Tell Redis the bindings again that were declared here: it has lost them."""
        self._routes.clear()
        for (queue, exchange, routing_key), arguments in list(self.state.bindings.items()):
            meta = self.typeof(exchange).prepare_bind(queue, exchange, routing_key, arguments)
            self._queue_bind(exchange, *meta)

    def _delete(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._routes.clear()
        return super()._delete(*args, **kwargs)  # type: ignore[misc]

    # -- consuming

    def basic_consume(
        self: Any, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **kwargs: Any
    ) -> None:
        """Consume from ``queue``; of several consumers of one channel and queue, the latest gets the messages."""
        engine = self.engine
        self._tag_to_queue[consumer_tag] = queue
        self._consumers.add(consumer_tag)
        self._active_queues.append(queue)
        self._callbacks.setdefault(queue, {})[consumer_tag] = (callback, no_ack)
        if queue in self._fanout_queues:
            exchange, _ = self._fanout_queues[queue]
            self.active_fanout_queues.add(queue)
            self._fanout_to_queue[exchange] = queue
            engine._guarded(lambda: engine.subscribe(self, self._prefixed_topics(queue), queue))
        else:
            engine._guarded(lambda: engine.connect(self))
        self._queues_changed()

    def _prefixed_topics(self: Any, queue: str) -> list[str]:
        return [f"{self.global_keyprefix}{topic}" for topic in self._get_subscribe_topics(queue)]

    def _basic_cancel(self: Any, consumer_tag: str) -> None:
        queue = self._tag_to_queue.pop(consumer_tag, None)
        if queue is None:
            return
        self._consumers.discard(consumer_tag)
        self._active_queues.remove(queue)
        consumers = self._callbacks[queue]
        del consumers[consumer_tag]
        if not consumers:
            del self._callbacks[queue]
            if queue in self.active_fanout_queues:
                self.active_fanout_queues.discard(queue)
                self._fanout_to_queue.pop(self._fanout_queues[queue][0], None)
                if not self.engine.is_broken:
                    self.engine.unsubscribe(self, self._prefixed_topics(queue), queue)
        self._queues_changed()
        if not self.engine.is_broken and not self.engine.is_foreign:
            self._return_backlog([entry for entry in self.backlog if entry[0] == queue])

    def _queues_changed(self: Any) -> None:
        self._update_queue_cycle()
        self._requests.clear()
        lists = [self._q_for_pri(queue, step) for queue in self.active_queues for step in self.priority_steps]
        self.keys = frozenset(f"{self.global_keyprefix}{name}".encode() for name in lists)
        self.is_ready = bool(lists)

    def _request(self: Any) -> tuple[list[str], bytes, int]:
        """Return (queue of each key, packed arguments, how many) of a reservation in the present order of queues."""
        queues = tuple(self._queue_cycle.consume(len(self.active_queues)))
        try:
            return self._requests[queues]  # type: ignore[no-any-return]
        except KeyError:
            request = self._requests[queues] = self._pack_request(queues)
            return request

    def _pack_request(self: Any, queues: tuple[str, ...]) -> tuple[list[str], bytes, int]:
        order = [queue for _ in self.priority_steps for queue in queues]
        keys = [
            f"{self.global_keyprefix}{self._q_for_pri(queue, step)}" for step in self.priority_steps for queue in queues
        ]
        fair = 1 if type(self._queue_cycle) is round_robin_cycle else 0
        lease = self.lease
        arguments = [len(keys), *keys, lease.unacked, lease.index, lease.prefix, self.lease_ttl, len(queues), fair]
        arguments += [self._suffix(queue) for queue in order]
        return order, b"".join(map(bulk, arguments)), len(arguments)

    def _suffix(self: Any, queue: str) -> str:
        """Return what follows the message in its record: the way back into ``queue``; nothing if there is none."""
        consumers = self._callbacks.get(queue)
        no_ack = bool(consumers) and next(reversed(consumers.values()))[1]
        if is_active("unprotect.lease"):  # for tests of the tests: take without a record, as a blocking pop does
            return ""
        return "" if no_ack or not self.ack_emulation else f',"",{json.dumps(queue)}]'

    def wake_up(self: Any) -> None:
        """Something may be in the queues."""
        if self._misses > 1 and not self.is_ready:
            delay = random.random() * min(0.00025 * 2**self._misses, LONGEST_MISS_SECONDS)
            self.engine.alarm(delay, self.be_ready)
        else:
            self.be_ready()

    def be_ready(self: Any) -> None:
        """Ask at the next turn."""
        self.is_ready = bool(self.keys)

    def _room(self: Any, now: float) -> int:
        """Return how many messages to ask for now; 0 to wait."""
        qos, waiting = self.qos, len(self.backlog)
        prefetch = qos.prefetch_count
        if "can_consume" in qos.__dict__:  # somebody decides for each message, so ask for one at a time
            return 1 if not waiting and qos.can_consume() else 0
        if self.engine.hub is None:
            return min(prefetch - len(qos._delivered), BATCH) - waiting if prefetch else 1 - waiting
        if not prefetch:
            return BATCH - waiting if waiting <= BATCH // 2 else 0
        ahead = 0
        if self._rate > FAST_RATE and now - self._delivered_at < AHEAD_SECONDS * 2:
            ahead = min(int(self._rate * AHEAD_SECONDS), BATCH)
        room = min(prefetch - len(qos._delivered) + ahead, BATCH) - waiting
        if room < ahead // 2:
            self.engine.alarm(AHEAD_SECONDS, _nothing)
            return 0
        return room  # type: ignore[no-any-return]

    def ask(self: Any, now: float) -> None:
        """Ask for messages, if there is room for any."""
        want = self._room(now)
        if want <= 0:
            return
        order, static, size = self._request()
        lease = self.lease
        number = lease.next_number
        lease.next_number = number + want
        self.is_asking = True
        elapsed = now - self._counted_at
        rate = self._counted / elapsed if elapsed > 0 else 0.0
        self._rate = rate if elapsed > 0.1 else (self._rate + rate) / 2
        self._counted, self._counted_at = 0, now

        keys = self.keys

        def on_reply(reply: Any) -> None:
            self._on_reserved(reply, order, number, want, keys)

        self.engine.reserve(self, static, size, number, want, on_reply)

    def _on_reserved(
        self: Any, reply: Any, order: list[str], number: int, want: int, keys: frozenset[bytes]
    ) -> None:
        self.is_asking = False
        if isinstance(reply, ReplyError):
            self.is_ready = False
            self.engine.alarm(1.0, self.be_ready)
            return
        failpoint("fetch.after_lease")
        prefix, add, first = self.lease.prefix, self.backlog.append, number
        for position in range(1, len(reply), 2):
            queue = order[reply[position] - 1]
            self._queue_cycle.rotate(queue)
            for payload in reply[position + 1]:
                add((queue, f"{prefix}{number}", payload))
                number += 1
        taken = number - first
        self._misses = 0 if taken else self._misses + 1
        if taken < want and keys is self.keys:  # else the answer says nothing of the queues of now
            self.is_ready = False
            if not self.engine.is_tracking:
                self.engine.polled(taken)
        if self.closed or not self.keys:  # cancelled while the answer was on its way
            self._return_backlog(list(self.backlog))

    def deliver(self: Any, limit: int) -> int:
        """Hand over what waits here, as far as the prefetch count allows; return how many."""
        backlog, held, callbacks, qos = self.backlog, self.qos._delivered, self._callbacks, self.qos
        delivered = 0
        while backlog and delivered < limit:
            if not qos.can_consume():
                self._watch_for_stale()
                break
            queue, tag, payload = backlog.popleft()
            try:
                envelope = parse(payload)
            except Malformed as error:
                self._set_aside_raw(queue, tag, payload, f"malformed: {error}")
                continue
            message = Message(envelope, self, tag, queue)
            consumers = callbacks.get(queue)
            if consumers is None:
                self._return_backlog([(queue, tag, payload)])
                continue
            callback, no_ack = next(reversed(consumers.values()))
            if not no_ack:
                held[tag] = message
            delivered += 1
            failpoint("deliver.before_callback")
            callback(message)
        if delivered:
            self._counted += delivered
            self._delivered_at = monotonic()
        return delivered

    def on_fanout(self: Any, queue: str, topic: bytes, payload: bytes) -> None:
        """Queue a publication for delivery; there is no record of it in Redis."""
        if getattr(self, "_fanout_compat_active", False):
            try:
                exchange = self._fanout_queues[queue][0]
                if self._is_duplicate_fanout_message(parse(payload), exchange):
                    return
            except Malformed:
                pass  # deliver() says so
        self.backlog.append((queue, f"local:{next(self._local_numbers)}", payload))

    def _watch_for_stale(self: Any) -> None:
        if self.engine.hub is not None and not self._stale_alarm:
            self._stale_alarm = True
            self.engine.alarm(STALE_SECONDS, self._return_stale)

    def _return_stale(self: Any) -> None:
        """Put back what was taken ahead by a worker that was fast and now is not."""
        self._stale_alarm = False
        if self.backlog and monotonic() - self._delivered_at >= STALE_SECONDS / 2:
            self._rate = 0.0
            self._return_backlog(list(self.backlog))
        elif self.backlog:
            self._watch_for_stale()

    def _return_backlog(self: Any, entries: list[tuple[str, str, bytes]]) -> None:
        """Put undelivered messages back unchanged, in their old order."""
        moves = []
        for entry in reversed(entries):
            queue, tag, payload = entry
            if entry in self.backlog:
                self.backlog.remove(entry)
            if tag[0] == "~" and self._suffix(queue):
                moves.append(Move(tag, -1, NEXT, self._key_of_payload(queue, payload), payload))
            elif tag[0] == "~":
                self._push_raw(queue, payload)
        self.engine.move(moves)

    def _key_of_payload(self: Any, queue: str, payload: bytes) -> str:
        try:
            return self.key_for(queue, parse(payload))  # type: ignore[no-any-return]
        except Malformed:
            return self.key_for(queue, None)  # type: ignore[no-any-return]

    def _push_raw(self: Any, queue: str, payload: bytes) -> None:
        if self.engine.wire is not None:
            key = self._key_of_payload(queue, payload)
            self.engine.wire.send(pack(("RPUSH", key, payload)), _nothing)
            self.engine.wrote({key.encode()})

    def _get(self: Any, queue: str, timeout: float | None = None) -> Any:
        raise NotImplementedError("messages are taken by basic_get and basic_consume")

    def basic_get(self: Any, queue: str, no_ack: bool = False, **kwargs: Any) -> Message | None:
        """Return one message of ``queue`` at once, ``None`` if there is none."""
        engine = self.engine
        return engine._guarded(lambda: self._take_one(queue, no_ack))  # type: ignore[no-any-return]

    def _take_one(self: Any, queue: str, no_ack: bool) -> Message | None:
        engine = self.engine
        wire, lease = engine.connect(self), self.lease
        keys = [f"{self.global_keyprefix}{self._q_for_pri(queue, step)}" for step in self.priority_steps]
        suffix = "" if no_ack or not self.ack_emulation else f',"",{json.dumps(queue)}]'
        number = lease.next_number
        lease.next_number += 1
        arguments = [len(keys), *keys, lease.unacked, lease.index, lease.prefix, self.lease_ttl, 1, 1]
        arguments += [suffix] * len(keys)
        reply = wire.wait(
            lambda done: engine.reserve(self, b"".join(map(bulk, arguments)), len(arguments), number, 1, done)
        )
        if len(reply) < 3:
            return None
        tag, payload = f"{lease.prefix}{number}", reply[2][0]
        failpoint("fetch.after_lease")
        try:
            message = Message(parse(payload), self, tag, queue)
        except Malformed as error:
            self._set_aside_raw(queue, tag, payload, f"malformed: {error}")
            return None
        if not no_ack:
            self.qos._delivered[tag] = message
            self.engine.keep()
        self._maybe_update_queues_expire(self.client, queue)
        return message

    def message_to_python(self: Any, raw_message: Any) -> Any:
        return raw_message if isinstance(raw_message, Message) else Message(raw_message, self)

    # -- settling

    def basic_ack(self: Any, delivery_tag: str, multiple: bool = False) -> None:
        held = self.qos._delivered
        if multiple and delivery_tag in held:
            for tag in list(held):
                if tag == delivery_tag:
                    break
                self.basic_ack(tag)
        lease = self.lease
        message = held.pop(delivery_tag, None) or lease.detached.pop(delivery_tag, None)
        if delivery_tag[0] == "~" and (message is not None or delivery_tag in lease.returns):
            lease.returns.pop(delivery_tag, None)
            if self.ack_emulation:
                lease.acks.append(delivery_tag)
                self.engine.wake()

    def basic_reject(self: Any, delivery_tag: str, requeue: bool = False) -> None:
        if not requeue:
            self.basic_ack(delivery_tag)
            return
        message = self._release(delivery_tag)
        if message is not None:
            mark_redelivered(message._raw)
            self._move_to(message, LAST)

    def requeue_lost(self: Any, message: Message, cause: str = "") -> str | None:
        """Put ``message`` back to be taken next, counting that what ran it was lost; once too often, set it aside.

        Returns the reason then.
        """
        if self._release(message.delivery_tag) is None:
            return None
        losses, _ = count_loss(message._raw, started=True)
        if losses >= self.max_redeliveries:
            reason = lost_too_often(losses, cause)
            self.dead_letter(message, reason)
            return reason
        self._move_to(message, NEXT)
        return None

    def dead_letter(self: Any, message: Message, reason: str) -> None:
        """Set ``message`` aside: take it off the queue and keep it, with the reason, in the list ``<queue>.dead``."""
        self._release(message.delivery_tag)
        payload = dead_envelope(message._raw, message.queue, reason)
        self._settle(message.delivery_tag, LAST, f"{self.key_for(message.queue, None)}.dead", payload)
        message._state = "REJECTED"

    def message_started(self: Any, message: Message) -> None:
        if message.delivery_tag[0] == "~":
            self.lease.marks.append(message.delivery_tag)

    def basic_recover(self: Any, requeue: bool = False) -> None:
        """Put back everything that is not settled."""
        if not requeue:
            raise NotImplementedError("Redis cannot deliver again on the same channel; use requeue=True")
        self.restore_unacked(started_too=True)
        self.engine.flush()

    def restore_unacked(self: Any, started_too: bool = False) -> None:
        """Put back what was delivered and is neither settled nor (but if asked for) started."""
        held = self.qos._delivered
        messages = [message for message in held.values() if started_too or not message.has_started]
        for message in messages:
            del held[message.delivery_tag]
        if messages and not self.do_restore:
            return
        recorded = [message for message in messages if message.delivery_tag[0] == "~"]
        if recorded and self.ack_emulation:
            logger.info("Putting back %d unacknowledged message(s)", len(recorded))
            self.engine.move(self.moves_back(recorded))
        elif recorded:
            for message in recorded:
                self._push_raw(message.queue, dumps(message._raw).encode())

    def moves_back(self: Any, messages: Iterable[Message]) -> list[Move]:
        return give_back(messages, self.key_for)

    def _release(self: Any, tag: str) -> Message | None:
        lease = self.lease
        for holder in (self.qos._delivered, lease.detached, lease.returns):
            if tag in holder:
                return holder.pop(tag)  # type: ignore[no-any-return]
        return None

    def _move_to(self: Any, message: Message, side: str) -> None:
        if message.delivery_tag[0] != "~":  # a publication: nobody else has it, so it is ours to deliver again
            self.backlog.append((message.queue, message.delivery_tag, dumps(message._raw).encode()))
            return
        self._settle(message.delivery_tag, side, self.key_for(message.queue, message._raw), dumps(message._raw))

    def _settle(self: Any, tag: str, side: str, key: str, payload: str) -> None:
        """Take ``tag`` out of the record and push ``payload``, now; on another connection if ours is lost."""
        if tag[0] != "~" or not self.ack_emulation:
            self._send([pack(("RPUSH" if side == NEXT else "LPUSH", key, payload))])
            return
        self.engine.move_or_queue(Move(tag, -1, side, key, payload))

    def _set_aside_raw(self: Any, queue: str, tag: str, payload: bytes, reason: str) -> None:
        key = f"{self.key_for(queue, None)}.dead"
        kept = dead_envelope(payload, queue, reason)
        if tag[0] == "~" and self._suffix(queue):
            self.engine.move([Move(tag, -1, LAST, key, kept)])
        else:
            self._send([pack(("LPUSH", key, kept))])
        self.connection.on_set_aside(queue, payload, reason)

    def flush(self: Any) -> None:
        """Send every waiting acknowledgement and wait until Redis has confirmed it."""
        self.engine._guarded(self.engine.flush)

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
            super()._put(queue, message, **kwargs)  # type: ignore[misc]
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
            super()._put_fanout(exchange, message, routing_key, **kwargs)  # type: ignore[misc]
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


def _nothing(*args: Any) -> None:
    """Nothing is left to do."""


_OPTIONS = ("lease_ttl", "max_redeliveries", "max_message_bytes")


class Channel(_OurChannel, upstream.Channel):
    """A channel to one Redis server."""

    from_transport_options = (*upstream.Channel.from_transport_options, *_OPTIONS)


class SentinelChannel(_OurChannel, upstream.SentinelChannel):
    """A channel to the master that sentinels name."""

    from_transport_options = (*upstream.SentinelChannel.from_transport_options, *_OPTIONS)
