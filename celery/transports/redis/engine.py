"""What drives a transport: its two sockets, its timers, and the turns in which messages are taken and settled.

Hub mode: ``on_readable`` and ``on_tick`` are called by kombu's event loop.  Without a hub ``drain`` waits by itself.
Either way one thread does it all, but for ``wake``, which any thread may call after an acknowledgement.
"""

from __future__ import annotations

import os
import random
import select
import socket
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from kombu.log import get_logger
from redis.exceptions import TimeoutError as RedisTimeoutError

from celery.transports.redis.keeper import Keeper
from celery.transports.redis.lease import Lease
from celery.transports.redis.recovery import Move, Sweeper, move_calls, sweep
from celery.transports.redis.resp import ReplyError, bulk, error_for, pack
from celery.transports.redis.scripts import MOVE, RENEW, RESERVE, RESERVE_ONE_BY_ONE
from celery.transports.redis.wire import Wire
from celery.utils.failpoints import failpoint

if TYPE_CHECKING:
    from celery.transports.redis.channel import Channel

__all__ = ("Engine",)

logger = get_logger("celery.transports.redis")

#: Acknowledgements wait at most so long for company.
FLUSH_SECONDS = 0.002
#: Where the server cannot tell us about new messages we ask: soon at first, then less and less often.
POLL_SECONDS = (0.010, 0.250)
RENEW_TAGS_A_CALL = 1000
_PING = pack(("PING",))


class Engine:
    """One per transport; kombu calls it the transport's ``cycle``."""

    #: kombu's channel asks for these two.
    _in_protected_read = False

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.channels: list[Channel] = []
        self.hub: Any = None
        self.wire: Wire | None = None
        self.sub: Wire | None = None
        self.lease: Lease | None = None
        self.pid = os.getpid()
        self.failure: Exception | None = None
        self._has_raised = False
        self.is_tracking = False
        #: Whether tasks may run on the loop's own thread, so that the loop cannot be relied on to renew.
        self.needs_keeper = False
        self.reserve_script = RESERVE
        self.after_read: set[Any] = set()
        self._topics: dict[bytes, list[tuple[Channel, str]]] = {}
        self._acks_in_flight: deque[list[str]] = deque()
        self._flush_at = 0.0
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._alarm_numbers = count()
        self._flush_alarm = False
        self._poll_seconds = POLL_SECONDS[0]
        self._sweep_at = 0.0
        self._housekeeping_at = 0.0
        self._wakers: tuple[socket.socket, socket.socket] | None = None
        self._is_waiting = False
        self._is_draining = False
        self._timer: Any = None
        self._turn = 0

    # -- channels

    def add(self, channel: Channel) -> None:
        self.channels.append(channel)

    def discard(self, channel: Channel) -> None:
        if channel in self.channels:
            self.channels.remove(channel)

    @property
    def is_foreign(self) -> bool:
        """Whether this engine was inherited over a fork; then its sockets belong to the parent."""
        return self.pid != os.getpid()

    @property
    def is_broken(self) -> bool:
        return self.failure is not None or (self.wire is not None and self.wire.closed)

    # -- connecting

    def connect(self, channel: Channel) -> Wire:
        """Return the wire for commands, opened if need be."""
        if self.wire is not None:
            return self.wire
        self.pid = os.getpid()
        wire = Wire(channel.pool, channel.patience, self._on_push)
        self.reserve_script = RESERVE_ONE_BY_ONE
        if wire.upgrade() and wire.server_version >= (6, 2):
            self.reserve_script = RESERVE
        self.is_tracking = self._track(wire)
        self.wire = wire
        self.lease = lease = channel.lease
        now = monotonic()
        self._sweep_at = now + channel.lease_ttl / 4 * random.uniform(0.5, 1)
        self._watch(wire)
        self._return_leftovers(lease, channel)
        if not self.is_tracking:
            self._schedule_poll()
        return wire

    def _track(self, wire: Wire) -> bool:
        if wire.protocol < 3:
            return self._no_tracking("the server speaks RESP 2 only")
        try:
            wire.call(("CLIENT", "TRACKING", "ON", "NOLOOP"))
        except self.transport.connection_errors:
            raise
        except Exception as error:  # refused by an ACL, unknown to a proxy
            return self._no_tracking(str(error))
        return True

    def _no_tracking(self, reason: str) -> bool:
        if not Engine._told:
            Engine._told = True
            logger.warning(
                "Redis does not announce new messages (%s); asking for them every %d to %d ms instead",
                reason,
                *(seconds * 1000 for seconds in POLL_SECONDS),
            )
        return False

    _told = False

    def _return_leftovers(self, lease: Lease, channel: Channel) -> None:
        """Put back what an earlier connection of this process held and nobody runs, and renew the rest."""
        lease.renewed_at = 0.0
        if lease.returns:
            returns, lease.returns = lease.returns, {}
            self.move(channel.moves_back(returns.values()))
        self._send_moves(lease)

    def _send_moves(self, lease: Lease) -> None:
        moves, lease.moves = lease.moves, []
        self.move(moves)

    def subscribe(self, channel: Channel, topics: list[str], queue: str) -> None:
        if self.sub is None:
            self.sub = Wire(channel.pool, channel.patience, self._on_publication)
            self._watch(self.sub)
        new = []
        for topic in topics:
            key = topic.encode()
            listeners = self._topics.setdefault(key, [])
            if not listeners:
                new.append(key)
            if (channel, queue) not in listeners:
                listeners.append((channel, queue))
        if new:
            self.sub.cast(pack(("PSUBSCRIBE", *new)))

    def unsubscribe(self, channel: Channel, topics: list[str], queue: str) -> None:
        gone = []
        for topic in topics:
            key = topic.encode()
            listeners = self._topics.get(key, [])
            if (channel, queue) in listeners:
                listeners.remove((channel, queue))
                if not listeners:
                    del self._topics[key]
                    gone.append(key)
        if gone and self.sub is not None and not self.sub.closed:
            self.sub.cast(pack(("PUNSUBSCRIBE", *gone)))

    # -- event loop

    def register(self, hub: Any) -> None:
        self.unregister()
        self.hub = hub
        hub.on_tick.add(self.on_tick)
        interval = min([1.0, *(channel.lease_ttl / 6 for channel in self.channels)])
        self._timer = hub.call_repeatedly(interval, self._on_timer)
        for wire in (self.wire, self.sub):
            if wire is not None and not wire.closed:
                hub.add_reader(wire.fd, self.on_readable, wire.fd)

    def unregister(self) -> None:
        if self.hub is None:
            return
        self._unwatch()
        self.hub.on_tick.discard(self.on_tick)
        self.hub = None
        if self._timer is not None:
            self._timer.cancel()

    def _unwatch(self) -> None:
        for wire in (self.wire, self.sub):
            if self.hub is None or wire is None:
                continue
            callback, _ = self.hub.readers.get(wire.fd) or (None, ())
            if callback == self.on_readable:  # a closed descriptor's number may have been given to another
                self.hub.remove_reader(wire.fd)

    def _watch(self, wire: Wire) -> None:
        if self.hub is not None:
            self.hub.add_reader(wire.fd, self.on_readable, wire.fd)

    def on_readable(self, fd: int) -> None:
        for wire in (self.wire, self.sub):
            if wire is not None and wire.fd == fd:
                self._guarded(wire.receive)
        self.on_tick()

    def on_tick(self) -> None:
        if self.failure is not None:
            self._raise_once()
            return
        self._guarded(self.turn)

    def _raise_once(self) -> None:
        """Raise what ended this connection to whoever turns the loop; who goes on turning it has heard it."""
        if not self._has_raised and self.failure is not None:
            self._has_raised = True
            raise self.failure

    def _on_timer(self) -> None:
        """Housekeeping; a timer's error would only be logged, so the next tick raises it."""
        if self.failure is not None:
            return
        try:
            self._guarded(lambda: self.housekeeping(monotonic()))
        except Exception as error:
            self.failure = self.failure or error

    def _guarded(self, step: Callable[[], Any]) -> Any:
        """Run ``step``; if it finds a socket dead, give up both.  Errors of consumers' callbacks just pass."""
        try:
            return step()
        except self.transport.connection_errors as error:
            if any(wire is not None and wire.closed for wire in (self.wire, self.sub)):
                self.break_off(error)
            raise

    def refused(self, reply: Exception) -> Exception:
        """Return the error that an error reply stands for; one that needs a new connection ends this one."""
        error = error_for(reply)
        if isinstance(error, self.transport.connection_errors):
            self.break_off(error)
        return error

    def break_off(self, error: BaseException) -> None:
        """Give up both sockets; whoever owns the connection builds a new one."""
        self._unwatch()
        for wire in (self.wire, self.sub):
            if wire is not None:
                wire.close()
        if self.lease is not None:
            while self._acks_in_flight:
                self.lease.doubt(self._acks_in_flight.pop())
        if self.failure is None and isinstance(error, Exception):
            self.failure = error

    # -- turns

    def turn(self, limit: int = 1_000_000) -> int:
        """Deliver what is here, ask for more where there is room, send what is due; return how many were delivered."""
        now = monotonic()
        if self._alarms and self._alarms[0][0] <= now:
            self._ring(now)
        delivered = 0
        self._turn += 1
        if self.needs_keeper:
            self.keep()
        for number in range(len(self.channels)):
            if number >= len(self.channels):
                break
            channel = self.channels[(number + self._turn) % len(self.channels)]
            if channel.backlog:
                delivered += channel.deliver(limit - delivered)
            if channel.is_ready and not channel.is_asking:
                channel.ask(now)
            if delivered >= limit:
                break
        lease = self.lease
        if lease is not None and (lease.acks or lease.marks or lease.moves):
            self._maybe_flush(lease, now)
        return delivered

    def _maybe_flush(self, lease: Lease, now: float) -> None:
        if now >= self._flush_at:
            if lease.acks:
                self.send_acks()
            if lease.moves:
                self._send_moves(lease)
            if lease.marks:
                self._send_marks(lease)
            self._flush_at = now + FLUSH_SECONDS
        elif not self._flush_alarm:
            self._flush_alarm = True
            self.alarm(self._flush_at - now, self._on_flush_alarm)

    def _on_flush_alarm(self) -> None:
        self._flush_alarm = False

    def alarm(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` at the first turn after ``seconds``, and see to it that there is one."""
        heappush(self._alarms, (monotonic() + seconds, next(self._alarm_numbers), callback))
        if self.hub is not None:
            self.hub.call_later(seconds, _nothing)

    def _ring(self, now: float) -> None:
        while self._alarms and self._alarms[0][0] <= now:
            heappop(self._alarms)[2]()

    # -- requests

    def reserve(self, channel: Channel, static: bytes, size: int, number: int, want: int, done: Any) -> None:
        """Send the reserve script with all waiting acknowledgements; ``done`` gets the pairs of its reply."""
        lease, wire = self.lease, self.wire
        assert lease is not None
        assert wire is not None
        acks = lease.take_acks() if lease.acks else []
        self._acks_in_flight.append(acks)
        tail = b"%b%b%b" % (static, bulk(number), bulk(want))
        if acks:
            failpoint("ack.before_send")
            tail += b"".join(map(bulk, acks))

        def on_reply(reply: Any) -> None:
            done(reply)
            self._settle_acks(reply)

        failpoint("fetch.before_send")
        wire.run(self.reserve_script, tail, size + 2 + len(acks), on_reply)

    def _settle_acks(self, reply: Any) -> None:
        lease = self.lease
        assert lease is not None
        acks = self._acks_in_flight.popleft()
        if isinstance(reply, ReplyError):
            lease.doubt(acks)
            raise self.refused(reply)
        if acks:
            failpoint("ack.after_send")
        if reply[0] or lease.doubtful:
            lost = {tag.decode() for tag in reply[0]} - lease.doubtful
            lease.doubtful.difference_update(acks)
            if lost:
                self.report_lost(sorted(lost))

    def send_acks(self) -> None:
        if self.wire is not None and self.lease is not None and self.lease.acks:
            head = (0, self.lease.unacked, self.lease.index, self.lease.prefix, 0, 1, 1)
            static = b"".join(map(bulk, head))
            self.reserve(self.channels[0] if self.channels else None, static, len(head), 0, 0, _ignore)  # type: ignore[arg-type]

    def _send_marks(self, lease: Lease) -> None:
        tags = lease.take_marks()
        if tags:
            self._send_renewal(lease, tags, started=True)

    def renew(self) -> None:
        """Extend the lease of everything held here."""
        lease = self.lease
        if lease is None or self.wire is None:
            return
        lease.renewed_at = monotonic()
        lease.marks.clear()
        started, waiting = lease.held()
        for tags, has_started in ((started, True), (waiting, False)):
            for start in range(0, len(tags), RENEW_TAGS_A_CALL):
                self._send_renewal(lease, tags[start : start + RENEW_TAGS_A_CALL], has_started)

    def _send_renewal(self, lease: Lease, tags: list[str], started: bool) -> None:
        ttl = self.channels[0].lease_ttl if self.channels else 60
        arguments = (0, lease.unacked, lease.index, ttl, len(tags) if started else 0, *tags)
        assert self.wire is not None
        failpoint("renew.before_send")
        self.wire.run(RENEW, b"".join(map(bulk, arguments)), len(arguments), self._on_renewed)

    def _on_renewed(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise self.refused(reply)
        lease = self.lease
        if reply and lease is not None:
            acked = {*lease.acks, *(tag for acks in self._acks_in_flight for tag in acks)}
            lost = [tag for tag in (each.decode() for each in reply) if tag not in acked]
            known = [tag for tag in lost if lease.holds(tag)]
            lease.forget(known)
            if known:
                self.report_lost(known)

    def report_lost(self, tags: list[str]) -> None:
        """Tell that deliveries were taken from us: their lease had ended, or somebody deleted the record."""
        self.transport.on_lost_lease(tags)

    def move(self, moves: list[Move]) -> None:
        """Send moves; what is no longer ours is reported."""
        lease, wire = self.lease, self.wire
        if not moves or lease is None or wire is None:
            return

        def on_moved(reply: Any) -> None:
            if isinstance(reply, ReplyError):
                raise self.refused(reply)
            if reply:
                self.report_lost([tag.decode() for tag in reply])

        failpoint("move.before_send")
        for tail, size in move_calls(lease, moves):
            wire.run(MOVE, tail, size, on_moved)
        self.wrote({str(move.key).encode() for move in moves})

    def wrote(self, keys: set[bytes]) -> None:
        """Wake up who reads these lists: the server does not tell us of what we write ourselves."""
        for channel in self.channels:
            if not keys.isdisjoint(channel.keys):
                channel.be_ready()

    def move_or_queue(self, move: Move) -> None:
        """Send a move, or keep it for the next connection of this process if ours is lost."""
        if self.wire is not None and not self.is_broken:
            self.move([move])
        elif self.lease is not None:
            self.lease.moves.append(move)

    def keep(self) -> None:
        """See to it that what is held is renewed although no event loop runs."""
        if (self.hub is None or self.needs_keeper) and self.lease is not None and self.channels:
            Keeper.watch(self.lease, self.channels[0].lease_ttl)

    # -- news

    def _on_push(self, push: Any) -> None:
        """A list was written to (or all keys are gone): whoever reads it may ask again."""
        if not push or push[0] != b"invalidate":
            return
        keys = push[1]
        for channel in self.channels:
            if keys is None or any(key in channel.keys for key in keys):
                channel.wake_up()
        if keys is None:
            logger.warning("Redis was flushed: messages, leases and bindings that it held are gone")
            self.transport.on_flushed()

    def _on_publication(self, push: Any) -> None:
        if isinstance(push, ReplyError):
            raise self.refused(push)
        if isinstance(push, (list, tuple)) and push and push[0] == b"pmessage":
            for channel, queue in self._topics.get(push[1], ()):
                channel.on_fanout(queue, push[2], push[3])

    def _schedule_poll(self) -> None:
        self.alarm(self._poll_seconds, self._poll)

    def _poll(self) -> None:
        for channel in self.channels:
            channel.wake_up()
        self._schedule_poll()

    def polled(self, taken: int) -> None:
        """Adapt the pace of asking to what came of it."""
        shortest, longest = POLL_SECONDS
        self._poll_seconds = shortest if taken else min(self._poll_seconds * 1.5, longest)

    # -- housekeeping

    def housekeeping(self, now: float) -> None:
        """Renew, sweep, and check that the server still answers."""
        if not self.channels or self.is_foreign:
            return
        channel = self.channels[0]
        self._housekeeping_at = now + min(1.0, channel.lease_ttl / 6)
        self._check_health(now, channel)
        lease = self.lease
        if lease is None or self.wire is None:
            return
        if now - lease.renewed_at >= channel.lease_ttl / 3:
            self.renew()
            for each in self.channels:
                each.wake_up()  # should the server ever forget to tell us, this does not last
        if now >= self._sweep_at:
            self._sweep_at = now + channel.lease_ttl / 4 * random.uniform(0.8, 1.2)
            self.sweep(channel)
        for each in list(self.channels):
            each.maybe_refresh_binding_expiry()

    def sweep(self, channel: Channel) -> None:
        """Put back what holders that are gone have left."""
        if self.wire is None or self.lease is None:
            return
        sweeper = Sweeper(channel.queues_for, channel.key_for, channel.visibility_timeout, channel.max_redeliveries)
        failpoint("sweep.before_send")
        sweep(self.wire, self.lease, sweeper, self._on_swept, self.refused)

    def _on_swept(self, moved: int, aside: list[tuple[str, Any, str]]) -> None:
        if moved:
            logger.warning("Put back %d message(s) whose worker is gone", moved)
        for queue, message, reason in aside:
            self.transport.on_set_aside(queue, message, reason)

    def _check_health(self, now: float, channel: Channel) -> None:
        interval = channel.ping_seconds
        for wire in (self.wire, self.sub):
            if wire is None or wire.closed:
                continue
            silence = now - wire.heard_at
            if wire.overdue(now) > wire.patience or (wire is self.sub and silence > interval + wire.patience):
                error = RedisTimeoutError(f"Redis gave no answer for {wire.patience:g} seconds")
                self.break_off(error)
                raise error
            if silence >= interval and not wire.is_busy:
                if wire is self.sub:
                    wire.cast(_PING)
                else:
                    wire.send(_PING, _ignore)

    # -- without an event loop

    def drain(self, timeout: float | None) -> None:
        """Wait for at least one message and deliver it.

        Raises:
            TimeoutError: nothing came within ``timeout`` seconds.
        """
        if self.failure is not None:
            raise self.failure
        self._is_draining = True
        try:
            self._guarded(lambda: self._drain(timeout))
            if self.lease is not None and self.lease.acks and not any(channel.backlog for channel in self.channels):
                self.send_acks()
        finally:
            self._is_draining = False

    def _drain(self, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            now = monotonic()
            if now >= self._housekeeping_at:
                self.housekeeping(now)
            delivered = self.turn(limit=1)
            if self.lease is not None and not self.lease.is_idle:
                self.keep()
            if delivered:
                return
            if deadline is not None and now >= deadline:
                raise TimeoutError("timed out")
            self._wait(now, deadline)

    def _wait(self, now: float, deadline: float | None) -> None:
        until = self._housekeeping_at or now + 1
        if self._alarms:
            until = min(until, self._alarms[0][0])
        if deadline is not None:
            until = min(until, deadline)
        wakers = self._wakers = self._wakers or _wake_pair()
        wires = [wire for wire in (self.wire, self.sub) if wire is not None]
        self._is_waiting = True
        if self.lease is not None and self.lease.acks:
            until = min(until, max(self._flush_at, now))
        try:
            ready = _wait_readable([*(wire.fd for wire in wires), wakers[0].fileno()], max(0.0, until - now))
        finally:
            self._is_waiting = False
        for wire in wires:
            if wire.fd in ready or wire.has_buffered:
                wire.receive()
        if wakers[0].fileno() in ready:
            wakers[0].recv(4096)

    def wake(self) -> None:
        """See to it that an acknowledgement leaves soon; any thread may call this."""
        if self.hub is not None:
            return  # the next tick comes by itself
        if not self._is_draining:
            if not self.is_broken:
                self._guarded(self.send_acks)
        elif self._is_waiting and self._wakers is not None:
            try:
                self._wakers[1].send(b"\0")
            except OSError:  # full of wake-ups already
                pass

    def wait_for_replies(self) -> None:
        """Return when everything that was sent is answered, or the patience ends."""
        wire = self.wire
        if wire is not None and not wire.closed and wire.is_busy:
            wire.wait(lambda done: wire.send(_PING, done))

    def flush(self) -> None:
        """Send every waiting acknowledgement now and wait until it is confirmed."""
        if self.wire is not None and not self.is_broken:
            self.send_acks()
            self.wait_for_replies()

    def close(self) -> None:
        self.unregister()
        if not self.is_broken and not self.is_foreign:
            try:
                self.flush()
            except self.transport.connection_errors as error:
                self.break_off(error)
        if self.lease is not None and not self.is_foreign:
            while self._acks_in_flight:
                self.lease.doubt(self._acks_in_flight.pop())
        for wire in (self.wire, self.sub):
            if wire is not None:
                wire.close()
        self.wire = self.sub = None
        self._topics.clear()
        for waker in self._wakers or ():
            waker.close()
        self._wakers = None


def _nothing() -> None:
    """A timer that only makes the loop turn."""


def _ignore(reply: Any) -> None:
    """The reply says nothing that is not known."""


def _wake_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
    return pair


def _wait_readable(fds: list[int], seconds: float) -> set[int]:
    if hasattr(select, "poll"):
        poller = select.poll()
        for fd in fds:
            poller.register(fd, select.POLLIN)
        return {fd for fd, _ in poller.poll(seconds * 1000)}
    return set(select.select(fds, [], [], seconds)[0])
