"""The channel's side of consuming: ask for as much as there is room for, hand over, give back what goes stale."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from kombu.log import get_logger
from kombu.utils.scheduling import round_robin_cycle

from celery.transports.message import Malformed, Message, parse, parse_in_place
from celery.transports.redis.delaying import delayed_key
from celery.transports.redis.recovery import NEXT, Move
from celery.transports.redis.resp import ReplyError, bulk, pack
from celery.utils.failpoints import failpoint, is_active

__all__ = ("Consuming",)

logger = get_logger("celery.transports.redis")

#: At most so many messages are taken at once.
BATCH = 100
#: A worker that settles more than this many messages a second takes as many ahead as it settles in AHEAD_SECONDS.
FAST_RATE = 500
AHEAD_SECONDS = 0.010
#: What was taken ahead and could not be delivered for so long goes back.
STALE_SECONDS = 0.100
#: Broadcasts that wait for their delivery; the server would keep 32 MiB, and then close the connection.
MOST_BROADCAST_BYTES = 256 * 1024 * 1024
#: Where many workers wait for one list, those that find it empty wait a random while, at most this long.
LONGEST_MISS_SECONDS = 0.010


class Consuming:
    """Part of a channel."""

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
        news = [f"{key}:due" for key in self._delayed_keys(self.active_queues)]
        self.news_keys = frozenset(key.encode() for key in (*news, f"{self._revoked}:version"))
        self.due_at = None
        self.is_ready = bool(lists)

    def _delayed_keys(self: Any, queues: Iterable[str]) -> list[str]:
        return [delayed_key(self.global_keyprefix, queue) for queue in queues]

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
        keys += [*self._delayed_keys(queues), f"{self._revoked}:version"]
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
        elapsed = now - self._counted_at
        rate = self._counted / elapsed if elapsed > 0 else 0.0
        self._rate = rate if elapsed > 0.1 else (self._rate + rate) / 2
        self._counted, self._counted_at = 0, now
        self.ask_for(want)

    def ask_for(self: Any, want: int) -> None:
        """Ask for so many messages; -1 only sees to it that what is due can be taken by others."""
        order, static, size = self._request()
        lease = self.lease
        number = lease.next_number
        lease.next_number = number + max(want, 0)
        keys = self.keys

        def on_reply(reply: Any) -> None:
            self._on_reserved(reply, order, number, want, keys)

        self.engine.reserve(self, static, size, number, want, on_reply)
        self.is_asking = True

    def _on_reserved(self: Any, reply: Any, order: list[str], number: int, want: int, keys: frozenset[bytes]) -> None:
        self.is_asking = False
        if isinstance(reply, ReplyError):
            self.is_ready = False
            self.engine.alarm(1.0, self.be_ready)
            return
        prefix, add, first = self.lease.prefix, self.backlog.append, number
        for position in range(3, len(reply), 2):
            queue = order[reply[position] - 1]
            self._queue_cycle.rotate(queue)
            for payload in reply[position + 1]:
                add((queue, f"{prefix}{number}", payload))
                number += 1
        taken = number - first
        if taken:
            failpoint("fetch.after_lease")
        if keys is self.keys:
            self.note_due(reply[1])
        if reply[2]:
            self.engine.revocations.check(self, reply[2])
        if want < 0:
            return
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
        broadcasts = self.broadcasts
        delivered = 0
        if self.engine.revocations.is_loading:
            return 0
        while (backlog or broadcasts) and delivered < limit:
            if not qos.can_consume():
                if backlog:
                    self._watch_for_stale()
                break
            if broadcasts and not (backlog and self._owes_lists):
                self._owes_lists = True
                queue, tag, payload = self._next_broadcast()
            else:
                self._owes_lists = False
                queue, tag, payload = backlog.popleft()
            try:
                envelope = parse_in_place(payload)
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
        self.keep_broadcast(queue, f"local:{next(self._local_numbers)}", payload)

    def keep_broadcast(self: Any, queue: str, tag: str, payload: bytes) -> None:
        """Keep a publication until its delivery.  Beyond `MOST_BROADCAST_BYTES` it is dropped, and the log says so."""
        if self._broadcast_bytes + len(payload) > MOST_BROADCAST_BYTES and self.broadcasts:
            self._broadcasts_dropped += 1
            if self._broadcasts_dropped == 1:
                logger.error(
                    "Broadcasts come faster than they are dealt with: %d MiB of them wait for queue %r; what comes "
                    "until there is room is dropped",
                    self._broadcast_bytes >> 20,
                    queue,
                )
            return
        self._broadcast_bytes += len(payload)
        self.broadcasts.append((queue, tag, payload))

    def _next_broadcast(self: Any) -> tuple[str, str, bytes]:
        entry: tuple[str, str, bytes] = self.broadcasts.popleft()
        self._broadcast_bytes -= len(entry[2])
        if not self.broadcasts and self._broadcasts_dropped:
            logger.error("%d broadcasts for queue %r were dropped", self._broadcasts_dropped, entry[0])
            self._broadcasts_dropped = 0
        return entry

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
        lists = [f"{self.global_keyprefix}{self._q_for_pri(queue, step)}" for step in self.priority_steps]
        keys = [*lists, *self._delayed_keys([queue]), f"{self._revoked}:version"]
        suffix = "" if no_ack or not self.ack_emulation else f',"",{json.dumps(queue)}]'
        number = lease.next_number
        lease.next_number += 1
        arguments = [len(keys), *keys, lease.unacked, lease.index, lease.prefix, self.lease_ttl, 1, 1]
        arguments += [suffix] * len(lists)
        reply = wire.wait(
            lambda done: engine.reserve(self, b"".join(map(bulk, arguments)), len(arguments), number, 1, done)
        )
        if len(reply) < 5:
            return None
        tag, payload = f"{lease.prefix}{number}", reply[4][0]
        failpoint("fetch.after_lease")
        try:
            message = Message(parse_in_place(payload), self, tag, queue)
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


def _nothing(*args: Any) -> None:
    """Nothing is left to do."""
