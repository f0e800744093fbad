"""What drives a transport: its two sockets, its timers, and the turns in which messages are taken and settled.

Hub mode: ``on_readable`` and ``on_tick`` are called by kombu's event loop.  Without a hub ``drain`` waits by itself.
Either way one thread does it all, but for ``wake``, which any thread may call after an acknowledgement.
Requests, upkeep and the way without a hub are in files of their own.
"""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from kombu.log import get_logger

from celery.transports.redis.begun import Begun
from celery.transports.redis.blocking import Blocking
from celery.transports.redis.delaying import Park
from celery.transports.redis.lease import Lease, Unheard
from celery.transports.redis.requests import Requests
from celery.transports.redis.resp import ReplyError, error_for, pack
from celery.transports.redis.revoking import Revocations
from celery.transports.redis.scripts import RESERVE, RESERVE_ONE_BY_ONE
from celery.transports.redis.unheard import Recall
from celery.transports.redis.upkeep import Upkeep
from celery.transports.redis.wire import PUBLICATION_BYTES, Wire

if TYPE_CHECKING:
    from celery.transports.redis.channel import Channel

__all__ = ("Engine",)

logger = get_logger("celery.transports.redis")

#: Acknowledgements wait at most so long for company.
FLUSH_SECONDS = 0.002
#: Seconds until the rest is read where no poll would tell of it.
READ_ON_SECONDS = 0.0001
#: Where the server cannot tell us about new messages we ask: soon at first, then less and less often.
POLL_SECONDS = (0.010, 0.250)


class Engine(Requests, Recall, Begun, Upkeep, Blocking):
    """One per transport; kombu calls it the transport's ``cycle``."""

    #: kombu's channel asks for it.
    _in_protected_read = False

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.channels: list[Channel] = []
        self.hub: Any = None
        self.wire: Wire | None = None
        self.sub: Wire | None = None
        self.lease: Lease | None = None
        self.revocations = Revocations(self)
        #: What to add to the monotonic clock for the broker's time.
        self.clock_offset = 0.0
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
        self._asks_in_flight: deque[Unheard] = deque()
        self._parks_in_flight: list[list[Park]] = []
        self._ends_in_flight: deque[list[str]] = deque()
        self._flush_at = 0.0
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._alarm_numbers = count()
        self._flush_alarm = False
        self._poll_seconds = POLL_SECONDS[0]
        self._sweep_at = 0.0
        self._housekeeping_at = 0.0
        self._looked_at = 0.0
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
        self._on_time(wire.call(("TIME",)))
        self.lease = lease = channel.lease
        lease.is_cut_off = False
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
        self.recall_now(lease)
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
        if self.wire is not None and self.wire.fd == fd:
            self._guarded(self.wire.receive)
        elif self.sub is not None and self.sub.fd == fd:
            self._guarded(self._read_publications)
        self.on_tick()

    def _read_publications(self) -> None:
        sub = self.sub
        if sub is None or sub.closed:
            return
        sub.receive(PUBLICATION_BYTES)
        if sub.has_buffered:
            self.alarm(READ_ON_SECONDS, self._read_publications)

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

    def _doubt_what_is_in_flight(self, lease: Lease) -> None:
        self._lose_hearing(lease)
        while self._acks_in_flight:
            lease.doubt(self._acks_in_flight.pop())
        while self._parks_in_flight:
            lease.doubt_parks(self._parks_in_flight.pop())
        while self._ends_in_flight:
            lease.ends[:0] = self._ends_in_flight.pop()

    def break_off(self, error: BaseException) -> None:
        """Give up both sockets; whoever owns the connection builds a new one."""
        self._unwatch()
        for wire in (self.wire, self.sub):
            if wire is not None:
                wire.close()
        if self.lease is not None:
            self.lease.is_cut_off = True
            self._doubt_what_is_in_flight(self.lease)
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
            if channel.backlog or channel.broadcasts:
                delivered += channel.deliver(limit - delivered)
            if channel.is_ready and not channel.is_asking:
                channel.ask(now)
            if delivered >= limit:
                break
        lease = self.lease
        if lease is not None and (
            lease.acks or lease.marks or lease.moves or lease.parks or lease.begins or lease.ends
        ):
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
            if lease.parks:
                self.send_parks()
            if lease.begins or lease.ends:
                self.send_begun(lease)
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

    # -- news

    def _on_push(self, push: Any) -> None:
        """A list was written to (or all keys are gone): whoever reads it may ask again."""
        if not push or push[0] != b"invalidate":
            return
        keys = push[1]
        for channel in self.channels:
            if keys is None or any(key in channel.keys for key in keys):
                channel.wake_up()
            elif not channel.news_keys.isdisjoint(keys):
                channel.ask_soon()
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

    # -- the end

    def close(self) -> None:
        self.unregister()
        if not self.is_broken and not self.is_foreign:
            try:
                self.flush()
            except self.transport.connection_errors as error:
                self.break_off(error)
        if self.lease is not None and not self.is_foreign:
            self._doubt_what_is_in_flight(self.lease)
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
