"""Put messages back, set them aside, and find those whose holder is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from kombu.log import get_logger
from kombu.utils.json import dumps

from celery.transports.dead_letters import dead_envelope
from celery.transports.message import Malformed, Message, count_loss, is_lost_too_often, mark_redelivered, parse
from celery.transports.redis.keeper import tell_begun
from celery.transports.redis.lease import Lease, Unheard
from celery.transports.redis.resp import ReplyError, bulk, error_for
from celery.transports.redis.scripts import EXPIRED, MOVE, PARK, RESERVE
from celery.utils.failpoints import failpoint

__all__ = ("Move", "give_back", "move_calls", "moves_of_unheard", "settle", "sweep", "tags_of")

logger = get_logger("celery.transports.redis")

#: The consuming end of a list, and the publishing end.
NEXT, LAST = "R", "L"
#: At most so many deliveries, and about so many bytes, in one step: it keeps Redis from answering others.
MOVES_A_CALL = 100
BYTES_A_CALL = 1_000_000


class Move(NamedTuple):
    """One delivery to take out of the record; see ``move.lua``."""

    tag: str
    age: float
    side: str
    key: str
    payload: bytes | str


def move_calls(lease: Lease, moves: Sequence[Move]) -> Iterator[tuple[bytes, int]]:
    """Yield the arguments of one script call after the other, in pieces that do not hold up the server."""
    head = b"".join(map(bulk, (0, lease.unacked, lease.index)))
    part: list[bytes] = []
    size = 0
    for move in moves:
        if move.tag != "=" and (len(part) >= MOVES_A_CALL * 5 or size > BYTES_A_CALL):
            yield head + b"".join(part), 3 + len(part)
            part, size = [], 0
        part += map(bulk, move)
        size += len(move.payload)
    if part:
        yield head + b"".join(part), 3 + len(part)


def give_back(messages: Iterable[Message], key_of: Callable[[str, Any], str], redelivered: bool = True) -> list[Move]:
    """Return the moves that put unfinished messages back where they are taken next, the oldest first."""
    moves = []
    for message in sorted(messages, key=lambda each: _number(each.delivery_tag), reverse=True):
        envelope = message._raw
        if redelivered:
            mark_redelivered(envelope)
        moves.append(Move(message.delivery_tag, -1, NEXT, key_of(message.queue, envelope), dumps(envelope)))
    return moves


def tags_of(lease: Lease, unheard: Iterable[Unheard]) -> list[str]:
    """Return the tags under which something may be recorded that nobody heard of."""
    return [f"{lease.prefix}{number}" for each in unheard for number in each.numbers]


def moves_of_unheard(lease: Lease, unheard: Sequence[Unheard], records: Sequence[bytes | None]) -> list[Move]:
    """Return what puts ``records``, one a tag, back unchanged where they are taken next, the oldest first."""
    moves = []
    each_of = [each for each in unheard for _ in each.numbers]
    for tag, each, record in zip(tags_of(lease, unheard), each_of, records, strict=True):
        if record is not None and not each.is_heard and not lease.holds(tag):
            # As `reserve.lua` writes it: the message, the default exchange and the queue.
            end = record.rindex(b',"",')
            payload, queue = record[1:end], json.loads(record[end + 4 : -1])
            moves.append(Move(tag, -1, NEXT, each.key_of(queue, payload), payload))
    return moves[::-1]


def _number(tag: Any) -> int:
    return int(str(tag).rpartition(":")[2] or 0)


# -- sweeping


class Expired(NamedTuple):
    """A delivery whose holder is gone."""

    tag: str
    started: bool
    record: bytes

    @property
    def is_ours(self) -> bool:
        return self.tag.startswith("~")


def expired_call(lease: Lease, visibility_timeout: float, limit: int) -> tuple[bytes, int]:
    arguments = (0, lease.unacked, lease.index, visibility_timeout, limit)
    return b"".join(map(bulk, arguments)), len(arguments)


def parse_expired(reply: list[Any]) -> list[Expired]:
    return [
        Expired(tag.decode(), bool(started), record)
        for tag, started, record in zip(reply[::3], reply[1::3], reply[2::3], strict=True)
    ]


class Sweeper:
    """Decides what becomes of deliveries whose holder is gone."""

    def __init__(
        self,
        queues_of: Callable[[str, str], Iterable[str]],
        key_of: Callable[[str, Any], str],
        visibility_timeout: float,
        max_redeliveries: int,
    ) -> None:
        self.queues_of = queues_of
        self.key_of = key_of
        self.visibility_timeout = visibility_timeout
        self.max_redeliveries = max_redeliveries
        #: (queue, message, reason) of what was set aside by the last call of ``moves``.
        self.set_aside: list[tuple[str, Any, str]] = []

    def moves(self, found: Iterable[Expired]) -> list[Move]:
        """Return the moves for ``found``; each happens only if the holder has not come back by then."""
        self.set_aside = []
        moves: list[Move] = []
        for delivery in sorted(found, key=lambda each: _number(each.tag) if each.is_ours else 0, reverse=True):
            moves += self._moves_for(delivery)
        return moves

    def _moves_for(self, delivery: Expired) -> list[Move]:
        age = 0 if delivery.is_ours else self.visibility_timeout
        try:
            envelope, queues = self._read(delivery)
        except Malformed as error:
            return [self._aside(delivery, age, _queue_of(delivery.record), delivery.record, f"malformed: {error}")]
        if not queues:
            return []  # no binding leads anywhere just now: leave it where it is
        if not delivery.is_ours:
            mark_redelivered(envelope)
        else:
            after_start, at_all = count_loss(envelope, delivery.started)
            if is_lost_too_often(after_start, at_all, self.max_redeliveries):
                reason = f"its worker was lost {at_all} times, {after_start} of them while it ran the task"
                return [self._aside(delivery, age, queues[0], envelope, reason)]
        payload = dumps(envelope)
        first, *others = (self.key_of(queue, envelope) for queue in queues)
        return [Move(delivery.tag, age, NEXT, first, payload), *(Move("=", 0, NEXT, key, payload) for key in others)]

    def _read(self, delivery: Expired) -> tuple[dict[str, Any], list[str]]:
        try:
            envelope, exchange, routing_key = json.loads(delivery.record)
        except (ValueError, TypeError) as error:
            raise Malformed(f"not readable: {error}") from error
        envelope = parse(json.dumps(envelope).encode())
        return envelope, list(self.queues_of(exchange, routing_key))

    def _aside(self, delivery: Expired, age: float, queue: str, message: Any, reason: str) -> Move:
        self.set_aside.append((queue, message, reason))
        return Move(delivery.tag, age, LAST, f"{self.key_of(queue, None)}.dead", dead_envelope(message, queue, reason))


def _queue_of(record: bytes) -> str:
    """Return the routing key at the end of a record whose message cannot be read."""
    try:
        return str(json.loads(b"[" + record[record.rindex(b',"') + 1 :])[0])
    except (ValueError, IndexError):
        return "unreadable"


# -- the last minute


def settle(lease: Lease) -> None:
    """Acknowledge and give back everything at once, on a connection of its own; used when the process ends."""
    client = lease.open_client()
    acks = lease.take_acks()
    if acks:
        failpoint("ack.before_send")
        client.eval(RESERVE.text, 0, lease.unacked, lease.index, "", 0, 1, 1, 0, 0, *acks)
    if lease.parks:
        parks, lease.parks = lease.parks, []
        client.eval(PARK.text, 0, lease.unacked, lease.index, *(part for park in parks for part in park))
    if lease.begun:  # what still runs ends with this process: others may say so at once
        tell_begun(client, lease, 0)
    ends = lease.take_ends()
    if ends:
        client.hdel(lease.unacked, *ends)
        client.zrem(lease.begun_index, *ends)
    messages = [
        message
        for holder in (*lease.holders, lease.detached, lease.returns)
        for message in holder.values()
        if message.channel is not None
    ]
    moves, lease.moves = lease.moves, []
    unheard, lease.unheard = lease.unheard, []
    if unheard:
        moves += moves_of_unheard(lease, unheard, client.hmget(lease.unacked, tags_of(lease, unheard)))
    if messages:
        moves += give_back(messages, lambda queue, envelope: messages[0].channel.key_for(queue, envelope))
    if moves:
        for start in range(0, len(moves), MOVES_A_CALL):
            arguments = [part for move in moves[start : start + MOVES_A_CALL] for part in move]
            client.eval(MOVE.text, 0, lease.unacked, lease.index, *arguments)
    lease.holders.clear()
    lease.detached.clear()
    lease.returns.clear()


def sweep(
    wire: Any,
    lease: Lease,
    sweeper: Sweeper,
    done: Callable[[int, list[tuple[str, Any, str]]], None],
    refused: Callable[[Exception], Exception] = error_for,
) -> None:
    """Put back what expired, batch after batch; ``done`` gets the count and what was set aside of each batch."""
    tail, count = expired_call(lease, sweeper.visibility_timeout, MOVES_A_CALL)

    def on_found(reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise refused(reply)
        found = parse_expired(reply)
        if not found:
            return
        failpoint("sweep.after_read")
        moves = sweeper.moves(found)
        aside = sweeper.set_aside
        calls = list(move_calls(lease, moves))
        for number, (arguments, size) in enumerate(calls, 1):
            is_last = number == len(calls)
            wire.run(MOVE, arguments, size, on_moved(len(found), aside, is_last and len(found) >= MOVES_A_CALL))

    def on_moved(moved: int, aside: list[tuple[str, Any, str]], again: bool) -> Callable[[Any], None]:
        def callback(reply: Any) -> None:
            if isinstance(reply, ReplyError):
                raise refused(reply)
            failpoint("sweep.after_move")
            done(moved - len(reply), aside)
            if again and len(reply) < moved:
                sweep(wire, lease, sweeper, done, refused)

        return callback

    wire.run(EXPIRED, tail, count, on_found)
