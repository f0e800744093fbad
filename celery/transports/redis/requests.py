"""The engine's requests: reserve, acknowledge, renew, move; each with what its reply means."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery.transports.redis.delaying import Park
from celery.transports.redis.keeper import Keeper
from celery.transports.redis.lease import Lease, Unheard
from celery.transports.redis.recovery import Move, move_calls
from celery.transports.redis.resp import ReplyError, bulk
from celery.transports.redis.scripts import MOVE, PARK, RENEW
from celery.utils.failpoints import failpoint, is_active

__all__ = ("Requests", "ignore")

#: Whether a test of the tests has switched this protection off.
_NEVER_RENEWS = is_active("unprotect.renew")

RENEW_TAGS_A_CALL = 1000
PARKS_A_CALL = 200


class Requests:
    """Part of an engine."""

    if TYPE_CHECKING:  # what the engine gives
        lease: Lease | None
        wire: Any
        refused: Callable[[ReplyError], Exception]

    def reserve(self: Any, channel: Any, static: bytes, size: int, number: int, want: int, done: Any) -> None:
        """Send the reserve script with all waiting acknowledgements; ``done`` gets the pairs of its reply."""
        lease, wire = self.lease, self.wire
        assert lease is not None
        assert wire is not None
        acks = lease.take_acks() if lease.acks else []
        tail = b"%b%b%b" % (static, bulk(number), bulk(want))
        asked = Unheard(range(number, number + want), channel._key_of_payload) if want > 0 else None

        def on_reply(reply: Any) -> None:
            if asked is not None:
                self._note_answer(asked, reply)
            try:
                done(reply)
            finally:
                self._settle_acks(reply)

        try:
            if acks:
                failpoint("ack.before_send")
                tail += b"".join(map(bulk, acks))
            failpoint("fetch.before_send")
            wire.run(self.reserve_script, tail, size + 2 + len(acks), on_reply)
        except BaseException:
            lease.doubt(acks)
            if asked is not None:
                lease.unheard.append(asked)
            raise
        self._acks_in_flight.append(acks)
        if asked is not None:
            self._asks_in_flight.append(asked)

    def _note_answer(self: Any, asked: Unheard, reply: Any) -> None:
        asked.is_heard = not isinstance(reply, ReplyError)
        if asked in self._asks_in_flight:
            self._asks_in_flight.remove(asked)
            if not asked.is_heard:
                self.lease.unheard.append(asked)

    def _settle_acks(self: Any, reply: Any) -> None:
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

    def send_acks(self: Any) -> None:
        if self.wire is not None and self.lease is not None and self.lease.acks:
            head = (0, self.lease.unacked, self.lease.index, self.lease.prefix, 0, 1, 1)
            static = b"".join(map(bulk, head))
            self.reserve(self.channels[0] if self.channels else None, static, len(head), 0, 0, ignore)

    def send_parks(self: Any) -> None:
        """Send what is to be parked."""
        lease, wire = self.lease, self.wire
        if lease is None or wire is None or self.is_broken:
            return
        while lease.parks:
            parks, lease.parks = lease.parks[:PARKS_A_CALL], lease.parks[PARKS_A_CALL:]
            arguments = [0, lease.unacked, lease.index, *(part for park in parks for part in park)]
            self._parks_in_flight.append(parks)
            failpoint("park.before_send")
            wire.run(PARK, b"".join(map(bulk, arguments)), len(arguments), partial(self._on_parked, lease, parks))

    def _on_parked(self: Any, lease: Lease, parks: list[Park], reply: Any) -> None:
        self._parks_in_flight.remove(parks)
        if isinstance(reply, ReplyError):
            lease.doubt_parks(parks)
            raise self.refused(reply)
        failpoint("park.after_send")
        lost = [tag for tag in map(bytes.decode, reply) if tag not in lease.doubtful]
        lease.doubtful.difference_update(park.tag for park in parks)
        if lost:
            self.report_lost(lost)
        for channel in self.channels:
            channel.watch_due(monotonic())

    def _on_time(self: Any, reply: Any) -> None:
        """Note by how much the broker's clock differs from our monotonic one."""
        if isinstance(reply, ReplyError):
            raise self.refused(reply)
        seconds, microseconds = map(int, reply)
        self.clock_offset = seconds + microseconds / 1e6 - monotonic()

    def _send_marks(self: Any, lease: Lease) -> None:
        tags = lease.take_marks()
        if tags:
            self._send_renewal(lease, tags, started=True)

    def renew(self: Any) -> None:
        """Extend the lease of everything held here."""
        lease = self.lease
        if lease is None or self.wire is None or _NEVER_RENEWS:
            return
        lease.renewed_at = monotonic()
        lease.marks.clear()
        started, waiting = lease.held()
        for tags, has_started in ((started, True), (waiting, False)):
            for start in range(0, len(tags), RENEW_TAGS_A_CALL):
                self._send_renewal(lease, tags[start : start + RENEW_TAGS_A_CALL], has_started)
        self.renew_begun(lease)
        self.recall(lease)

    def _send_renewal(self: Any, lease: Lease, tags: list[str], started: bool) -> None:
        ttl = self.channels[0].lease_ttl if self.channels else 60
        arguments = (0, lease.unacked, lease.index, ttl, len(tags) if started else 0, *tags)
        assert self.wire is not None
        failpoint("renew.before_send")
        self.wire.run(RENEW, b"".join(map(bulk, arguments)), len(arguments), self._on_renewed)

    def _on_renewed(self: Any, reply: Any) -> None:
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

    def report_lost(self: Any, tags: list[str]) -> None:
        """Tell that deliveries were taken from us: their lease had ended, or somebody deleted the record."""
        self.transport.on_lost_lease(tags)

    def move(self: Any, moves: list[Move]) -> None:
        """Send moves; what is no longer ours is reported."""
        lease, wire = self.lease, self.wire
        if not moves or lease is None or wire is None:
            return

        def on_moved(reply: Any) -> None:
            if isinstance(reply, ReplyError):
                raise self.refused(reply)
            if reply:
                self.report_lost([tag.decode() for tag in reply])
            # Not before: a script that the server did not know is sent again, after what was sent meanwhile.
            self.wrote(keys)

        keys = {str(move.key).encode() for move in moves}
        failpoint("move.before_send")
        for tail, size in move_calls(lease, moves):
            wire.run(MOVE, tail, size, on_moved)

    def wrote(self: Any, keys: set[bytes]) -> None:
        """Wake up who reads these lists: the server does not tell us of what we write ourselves."""
        for channel in self.channels:
            if not keys.isdisjoint(channel.keys):
                channel.be_ready()

    def move_or_queue(self: Any, move: Move) -> None:
        """Send a move, or keep it for the next connection of this process if ours is lost."""
        if self.wire is not None and not self.is_broken:
            self.move([move])
        elif self.lease is not None:
            self.lease.moves.append(move)

    def keep(self: Any) -> None:
        """See to it that what is held is renewed although no event loop runs."""
        if (self.hub is None or self.needs_keeper) and self.lease is not None and self.channels:
            Keeper.watch(self.lease, self.channels[0].lease_ttl)


def ignore(reply: Any) -> None:
    """The reply says nothing that is not known."""
