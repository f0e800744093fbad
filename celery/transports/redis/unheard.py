"""What Redis handed out in an answer that never arrived, because the connection broke: it goes back at once.

Such messages are recorded under tags of ours, and nobody holds them: they would wait until the lease ends.  Which
numbers were asked for is known, so the next connection looks what is recorded under them.  It looks again later, for
a request may reach the server after the connection that sent it is gone.
"""

from __future__ import annotations

from typing import Any

from kombu.log import get_logger

from celery.transports.redis.lease import Lease, Unheard
from celery.transports.redis.recovery import moves_of_unheard, tags_of
from celery.transports.redis.resp import ReplyError, pack
from celery.utils.failpoints import is_active

__all__ = ("Recall",)

logger = get_logger("celery.transports.redis")

#: Whether a test of the tests has switched this protection off.
_FORGETS_WHAT_IT_ASKED = is_active("unprotect.recall")


class Recall:
    """Part of an engine."""

    def _lose_hearing(self: Any, lease: Lease) -> None:
        """Note what was asked for on a connection that is gone."""
        while self._asks_in_flight:
            ask = self._asks_in_flight.popleft()
            if not _FORGETS_WHAT_IT_ASKED:
                lease.unheard.append(ask)

    def recall_now(self: Any, lease: Lease) -> None:
        """Ask what an earlier connection was handed and nobody heard of, wait for the answer, and put that back."""
        unheard = list(lease.unheard)
        if not unheard:
            return
        try:
            records = self.wire.call(("HMGET", lease.unacked, *tags_of(lease, unheard)))
        except self.transport.connection_errors:
            raise
        except Exception as error:
            self._cannot_recall(lease, unheard, error)
        else:
            self._put_back(lease, unheard, records)

    def recall(self: Any, lease: Lease) -> None:
        """Look for it once more, some time later."""
        unheard = list(lease.unheard)
        if not unheard:
            return

        def on_reply(reply: Any) -> None:
            if isinstance(reply, ReplyError):
                error = self.refused(reply)
                if isinstance(error, self.transport.connection_errors):
                    raise error
                self._cannot_recall(lease, unheard, error)
            else:
                self._put_back(lease, unheard, reply)

        self.wire.send(pack(("HMGET", lease.unacked, *tags_of(lease, unheard))), on_reply)

    def _put_back(self: Any, lease: Lease, unheard: list[Unheard], records: list[bytes | None]) -> None:
        moves = moves_of_unheard(lease, unheard, records)
        if moves:
            logger.info("Putting back %d message(s) that a lost connection was to bring", len(moves))
            self.move(moves)
        for each in unheard:
            each.looks -= 1
            if each.looks <= 0 and each in lease.unheard:
                lease.unheard.remove(each)

    def _cannot_recall(self: Any, lease: Lease, unheard: list[Unheard], error: Exception) -> None:
        logger.debug("What a lost connection was to bring comes when the lease ends: %r", error)
        for each in unheard:
            if each in lease.unheard:
                lease.unheard.remove(each)
