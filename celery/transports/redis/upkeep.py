"""The engine's upkeep: renew, sweep, and check that the server still answers."""

from __future__ import annotations

import random
from typing import Any

from kombu.log import get_logger
from redis.exceptions import TimeoutError as RedisTimeoutError

from celery.transports.redis.recovery import Sweeper, sweep
from celery.transports.redis.requests import ignore
from celery.transports.redis.resp import pack
from celery.utils.failpoints import failpoint, is_active

__all__ = ("Upkeep",)

logger = get_logger("celery.transports.redis")

_PING = pack(("PING",))
_TIME = pack(("TIME",))
#: Whether a test of the tests has switched this protection off.
_ROBS_PEERS = is_active("unprotect.peers")

#: Housekeeping comes every second; after a pause as long as this, nobody was at it.
UNATTENDED_SECONDS = 5.0


class Upkeep:
    """Part of an engine."""

    def housekeeping(self: Any, now: float) -> None:
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
            self.wire.send(_TIME, self._on_time)
            for each in self.channels:
                each.wake_up()  # should the server ever forget to tell us, this does not last
        if now >= self._sweep_at:
            self._sweep_at = now + channel.lease_ttl / 4 * random.uniform(0.8, 1.2)
            self.sweep(channel)
            self.look_for_left(channel.lease_ttl)
        for each in list(self.channels):
            each.maybe_refresh_binding_expiry()
            each.watch_due(now)

    def sweep(self: Any, channel: Any) -> None:
        """Put back what holders that are gone have left."""
        if self.wire is None or self.lease is None:
            return
        patience = 0 if _ROBS_PEERS else channel.visibility_timeout
        sweeper = Sweeper(channel.queues_for, channel.key_for, patience, channel.max_redeliveries)
        failpoint("sweep.before_send")
        sweep(self.wire, self.lease, sweeper, self._on_swept, self.refused)

    def _on_swept(self: Any, moved: int, aside: list[tuple[str, Any, str]]) -> None:
        if moved:
            logger.warning("Put back %d message(s) whose worker is gone", moved)
            for channel in self.channels:
                channel.be_ready()  # nobody tells us of our own writes
        for queue, message, reason in aside:
            self.transport.on_set_aside(queue, message, reason)

    def _was_unattended(self: Any, now: float, interval: float) -> bool:
        """Return whether nobody has read for a while, as with a client's connection between two uses.

        Silence proves nothing then: ask now, and judge at the next look, when what has come meanwhile is read.
        """
        pause, self._looked_at = now - self._looked_at, now
        if pause < min(interval, UNATTENDED_SECONDS):
            return False
        for wire in (self.wire, self.sub):
            if wire is not None and not wire.closed:
                wire.heard_at = max(wire.heard_at, now - interval)
        return True

    def _check_health(self: Any, now: float, channel: Any) -> None:
        interval = channel.ping_seconds
        if self._was_unattended(now, interval):
            return
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
                    wire.send(_PING, ignore)
