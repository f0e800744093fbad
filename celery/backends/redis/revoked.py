"""Revoked tasks on record in the result store, for fleets whose broker keeps no such record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from celery.utils.failpoints import is_active

__all__ = ("RevokedRecord",)

#: How many are kept, the latest, and for how many seconds.
MOST_KEPT = int(os.environ.get("CELERY_WORKER_REVOKES_MAX", 50000))
KEPT_SECONDS = 86400
#: Whether a test of the tests has switched this protection off.
_FORGETS = is_active("unprotect.revokes")


class RevokedRecord:
    """Part of the backend.  A sorted set, by the time of the revoke: ``i`` and an id, or ``s`` and a stamp as JSON."""

    @property
    def _revoked_key(self: Any) -> str:
        prefix = (self.app.conf.result_backend_transport_options or {}).get("global_keyprefix") or ""
        return f"{prefix}celeriac.revoked"

    def remember_revoked(self: Any, ids: Iterable[str], stamps: Mapping[str, Iterable[Any]]) -> bool:
        members = [f"i{task_id}" for task_id in ids]
        members += [f"s{json.dumps([header, value])}" for header, values in stamps.items() for value in values]
        if not members or _FORGETS:
            return True
        seconds, microseconds = self.client.time()
        now, key = seconds + microseconds / 1e6, self._revoked_key
        with self.client.pipeline() as pipe:
            for start in range(0, len(members), 1000):
                pipe.zadd(key, dict.fromkeys(members[start : start + 1000], now))
            pipe.zremrangebyscore(key, "-inf", now - KEPT_SECONDS)
            pipe.zremrangebyrank(key, 0, -MOST_KEPT - 1)
            pipe.expire(key, KEPT_SECONDS)
            pipe.execute()
        return True

    def recall_revoked(self: Any) -> tuple[list[str], dict[str, list[Any]]]:
        ids: list[str] = []
        stamps: dict[str, list[Any]] = {}
        for member in self.client.zrange(self._revoked_key, 0, -1):
            text = member.decode() if isinstance(member, bytes) else member
            if text.startswith("i"):
                ids.append(text[1:])
            else:
                header, value = json.loads(text[1:])
                stamps.setdefault(header, []).append(value)
        return ids, stamps
