"""Several beats, one sends: a lease that one of them holds, and a book of what was sent.

Every beat reads the ledger.  Who leads counts up a number there; who has seen no new number for most of the lease takes
over.  So no clocks are compared.  What is sent is claimed first, by ``(entry, its run before)``, and the ledger grants
that once, and to the leader of that moment only: a beat that was stopped or cut off, and still believes that it leads,
sends nothing.  See docs/design/beat.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timezone, tzinfo
from typing import Any
from uuid import uuid4

from celery.app import backends
from celery.beat.clock import elapsed_seconds
from celery.beat.ledgers.base import Ledger, LedgerError, Lost, State
from celery.beat.moments import key_of, microseconds, moment_at
from celery.exceptions import ImproperlyConfigured
from celery.utils.failpoints import failpoint
from celery.utils.log import get_logger
from celery.utils.nodenames import gethostname

__all__ = ("Leadership", "open_leadership")

logger = get_logger("celery.beat")

#: Parts of the lease: how often others look, how often the leader counts up, and when its silence is taken for death.
POLL, RENEW, SILENCE = 0.1, 0.2, 0.7


class Leadership:
    """One beat's part in the talk about who sends."""

    def __init__(self, ledger: Ledger, lease_seconds: float) -> None:
        self.ledger = ledger
        self.lease_seconds = lease_seconds
        self.poll_seconds = lease_seconds * POLL
        self.holder = f"{gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._mine: State | None = None
        self._seen: State | None = None
        self._seen_at = self._renewed_at = 0.0
        self._zone: tzinfo = timezone.utc
        self._told = ""

    def standby(self, scheduler: Any) -> float | None:
        """Return ``None`` if it is for us to send, else the seconds until it is worth asking again."""
        try:
            if self._mine is None:
                self._watch(scheduler)
            elif elapsed_seconds() - self._renewed_at >= self.lease_seconds * RENEW:
                self._renewed_at = elapsed_seconds()
                self._mine = self.ledger.renew(self._mine)
        except LedgerError as error:
            self._step_down(error)
        return None if self._mine is not None else self.poll_seconds

    def _watch(self, scheduler: Any) -> None:
        now, state = elapsed_seconds(), self.ledger.read()
        if state is not None and state.holder not in ("", self.holder):
            if state != self._seen:
                self._tell(logger.info, f"beat: Standing by, {state.holder} leads.")
                self._seen, self._seen_at = state, now
                return
            if now - self._seen_at < self.lease_seconds * SILENCE:
                return
        mine = self.ledger.take(state, self.holder)
        if mine is not None:
            self._mine, self._renewed_at = mine, now
            self._tell(logger.info, f"beat: Leading now, as number {mine.epoch}.")
            self._zone = scheduler.app.timezone
            runs = self.ledger.runs().items()
            known = {name: (moment_at(last, self._zone), count) for name, (last, count) in runs}
            scheduler._adopt(known, overrule=True)
            self.rewrite(scheduler)

    def claim(self, entry: Any) -> bool:
        """Whether this run of ``entry`` is ours to send; if another beat has sent it, the entry says so after."""
        this_run = getattr(entry, "_this_run", entry.default_now)()
        before = microseconds(entry.last_run_at) if entry.last_run_at is not None else 0
        run = max(microseconds(this_run), before + 1), entry.total_run_count + 1
        failpoint("beat.before_claim")
        try:
            if self._mine is None:
                raise Lost
            known = self.ledger.claim(self._mine, key_of(entry.name), before, run)
        except LedgerError as error:
            self._step_down(error)
            return False
        if known is not None:
            entry.last_run_at, entry.total_run_count = moment_at(known[0], self._zone), known[1]
            return False
        entry._claimed_run = moment_at(run[0], self._zone)  # the one that others know, however late it is by now
        return True

    def rewrite(self, scheduler: Any) -> None:
        """Have the ledger know what the scheduler knows."""
        if self._mine is None:
            return
        entries: Iterable[Any] = scheduler.schedule.values()
        runs = {
            key_of(entry.name): (microseconds(entry.last_run_at), entry.total_run_count)
            for entry in entries
            if entry.last_run_at is not None
        }
        try:
            self.ledger.write(self._mine, runs)
        except LedgerError as error:
            self._step_down(error)

    def resign(self) -> None:
        """Let another take over at once."""
        mine, self._mine = self._mine, None
        if mine is not None:
            try:
                self.ledger.release(mine)
            except LedgerError as error:
                logger.warning("beat: The lease was not given back (%s); it ends by itself.", error)

    def _step_down(self, error: LedgerError) -> None:
        self._mine = self._seen = None
        if isinstance(error, Lost):
            self._tell(logger.warning, "beat: Another beat leads by now; standing by.")
        else:
            self._tell(
                logger.error, f"beat: The store of the lease does not answer: {error}. Sending nothing meanwhile."
            )

    def _tell(self, log: Any, text: str) -> None:
        """Log what has changed; what was said last is not said again."""
        if text != self._told:
            log("%s", text)
        self._told = text


# -- which store

_REDIS = ("redis", "rediss", "redis+socket", "sentinel")


def open_leadership(app: Any) -> Leadership:
    """Return the leadership that the settings ask for.

    The ledger is where ``beat_leader_url`` says; else the broker if it is Redis, else the result store if it is Redis
    or a database.
    """
    conf = app.conf
    if conf.beat_leader_lease < 1:
        raise ImproperlyConfigured(f"`beat_leader_lease` must be at least 1 second, is {conf.beat_leader_lease}.")
    candidates = [conf.beat_leader_url] if conf.beat_leader_url else [_broker(app), conf.result_backend]
    for url in candidates:
        scheme = url.partition("://")[0] if isinstance(url, str) else ""
        name = app.main or "__main__"
        if scheme in _REDIS:
            from celery.beat.ledgers.redis import RedisLedger

            return Leadership(RedisLedger(_backend(app, url), name, conf.beat_leader_lease), conf.beat_leader_lease)
        if scheme.startswith(("db+", "sqla+")):
            from celery.beat.ledgers.sql import SQLLedger

            return Leadership(SQLLedger(_engine(app, url.partition("+")[2]), name), conf.beat_leader_lease)
    raise ImproperlyConfigured(
        "`beat_leader_lease` needs a store that all beats see. Set `beat_leader_url` to a Redis (redis://...) or "
        "a database (db+postgresql://...)."
    )


def _broker(app: Any) -> str | None:
    url = app.conf.broker_write_url or app.conf.broker_url
    return url.split(";")[0] if isinstance(url, str) else None


def _backend(app: Any, url: str) -> Any:
    cls, url_ = backends.by_url(url, app.loader)
    return cls(app=app, url=url_ or url)


def _engine(app: Any, url: str) -> Any:
    from celery.backends.database.session import SessionManager

    return SessionManager().get_engine(url, **(app.conf.database_engine_options or {}))
