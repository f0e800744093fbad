"""Revoked tasks on record: written by whoever revokes, read by every worker before it delivers anything newer.

``celeriac.revoked`` is a sorted set (score: when, in microseconds) and ``celeriac.revoked:version`` its newest score.
Every answer to a request for messages carries the version; if it is not the one we know, what is new is loaded first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kombu.log import get_logger

from celery.transports.redis.delaying import delayed_key
from celery.transports.redis.resp import ReplyError, pack
from celery.transports.redis.scripts import REVOKE
from celery.utils.failpoints import is_active

if TYPE_CHECKING:
    from celery.transports.redis.channel import Channel

__all__ = ("Revocations", "Revoking")

logger = get_logger("celery.transports.redis")

MEMBERS_A_CALL = 1000
#: As many as a worker remembers.
MOST_KEPT = int(os.environ.get("CELERY_WORKER_REVOKES_MAX", 50000))
#: Whether a test of the tests has switched this protection off.
_FORGETS = is_active("unprotect.revokes")


class Revoking:
    """Part of a channel."""

    @property
    def _revoked(self: Any) -> str:
        return f"{self.global_keyprefix}celeriac.revoked"

    def store_revoked(
        self: Any,
        ids: Iterable[str],
        stamps: Mapping[str, Iterable[Any]],
        queues: Iterable[str],
    ) -> None:
        """Record for ``revoke_ttl`` seconds that tasks are revoked, by id or stamp; the latest fifty thousand are kept.

        Those that are parked for one of ``queues`` go to their lists at once, where a worker meets and discards them.
        """
        if _FORGETS:
            return
        members = [f"i{task_id}" for task_id in ids]
        members += [f"s{json.dumps([header, value])}" for header, values in stamps.items() for value in values]
        parked = [delayed_key(self.global_keyprefix, queue) for queue in queues]
        head = (self._revoked, int(self.revoke_ttl), MOST_KEPT, len(parked), *parked)
        for start in range(0, len(members), MEMBERS_A_CALL):
            self.client.eval(REVOKE.text, 0, *head, *members[start : start + MEMBERS_A_CALL])


class Revocations:
    """What one connection knows of the record; messages wait while it is being read."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.version = b""
        self.is_loading = False

    def check(self, channel: Channel, version: bytes) -> None:
        """Read what is new if ``version``, as the broker has it, is not the one we know."""
        if (
            version
            and version != self.version
            and not self.is_loading
            and self.engine.transport.on_revoked
            and not _FORGETS
        ):
            self.load(channel)

    def load(self, channel: Channel) -> None:
        """Ask for what was revoked since the version that we know."""
        self.is_loading = True
        since = b"(" + self.version if self.version else b"-inf"
        self.engine.wire.send(pack(("ZRANGEBYSCORE", channel._revoked, since, "+inf", "WITHSCORES")), self._on_loaded)

    def _on_loaded(self, reply: Any) -> None:
        self.is_loading = False
        if isinstance(reply, ReplyError):
            raise self.engine.refused(reply)
        ids: list[str] = []
        stamps: dict[str, list[Any]] = {}
        for member, score in _pairs(reply):
            if member[:1] == b"i":
                ids.append(member[1:].decode())
            elif member[:1] == b"s":
                header, value = json.loads(member[1:])
                stamps.setdefault(header, []).append(value)
            self.version = b"%d" % float(score)
        if ids or stamps:
            self.engine.transport.on_revoked(ids, stamps)


def _pairs(reply: list[Any]) -> Iterable[tuple[bytes, Any]]:
    """Return members with their scores: pairs already in RESP 3, a flat list in RESP 2."""
    if reply and isinstance(reply[0], (list, tuple)):
        return reply
    return zip(reply[::2], reply[1::2], strict=True)
