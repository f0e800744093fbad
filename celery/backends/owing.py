"""What a worker's slot owes to a store that is away: kept, in order, and stored when it is back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from time import monotonic
from typing import Any

from kombu.utils.functional import retry_over_time

from celery.exceptions import BackendStoreError
from celery.utils.failpoints import is_active
from celery.utils.log import get_logger
from celery.utils.stopping import SHORT_PAUSE, stopping

__all__ = ("OWED_BYTES_MAX", "OWED_MAX", "Absence", "Owed")

logger = get_logger(__name__)

#: While the store is away, so many records, or bytes, wait for it before tasks do.
OWED_MAX, OWED_BYTES_MAX = 10_000, 64 * 1024 * 1024
#: Seconds after a try in vain before the next one that nobody waits for: twice what it took, between these.
SHORTEST_REST, LONGEST_REST = 0.5, 30.0

#: Whether a test of the tests has switched this protection off.
_FORGETS = is_active("unprotect.store")


class Absence:
    """That a store is away: what it said when it was last tried, and when it is worth another try."""

    __slots__ = ("_try_at", "trouble")

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self._try_at = 0.0

    def note(self, trouble: Exception, began: float) -> None:
        """It was tried in vain, since ``began``: trying takes time if it hangs, for which tasks wait."""
        now = monotonic()
        self.trouble, self._try_at = trouble, now + min(max(2 * (now - began), SHORTEST_REST), LONGEST_REST)

    @property
    def rests(self) -> bool:
        """Whether it was tried in vain a moment ago."""
        return self.trouble is not None and monotonic() < self._try_at

    def raise_while_resting(self) -> None:
        if self.trouble is not None and self.rests:
            raise self.trouble.with_traceback(None)  # it would grow with each time


class Owed:
    """The records of one thread, or of all greenlets of a pool, that their store has not taken."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._records: deque[tuple[Callable[[], Any], int, datetime]] = deque()
        #: When that was to be stored which is stored just now, if it had to wait.
        self.as_of: datetime | None = None
        self._bytes = 0
        self._absence = Absence()
        self._settling = threading.RLock()

    def store(self, write: Callable[[], Any], size: Callable[[], int]) -> None:
        """Do ``write()``, or keep it for later: if the store is away, and behind what is kept already.

        ``size()`` is about how many bytes it takes.
        """
        if not self._records:
            began = monotonic()
            try:
                write()
                return
            except Exception as error:
                if _FORGETS or not self._backend.is_passing_trouble(error):
                    raise
                self._note(error, began)
        if len(self._records) >= OWED_MAX or self._bytes >= OWED_BYTES_MAX:
            self.flush()
        bytes_ = size()
        self._records.append((write, bytes_, self._backend.app.now()))
        self._bytes += bytes_

    def flush(self) -> None:
        """Store what is owed; wait for a store that is away, as its retry policy says.

        Raises:
            BackendStoreError: the store refused something; the rest is stored.
        """
        policy = self._backend.retry_policy
        self._settle(lambda: retry_over_time(self._write_all, (_Away,), (), {}, self._pauses(), **policy))

    def try_flush(self) -> None:
        """Do as `flush`, but do not wait for a store that is away."""
        if self._records:
            self._absence.raise_while_resting()
        self._settle(self._write_all)

    def _settle(self, write: Callable[[], list[Exception]]) -> None:
        if not self._records:
            return
        try:
            with self._settling:
                refused = write()
        except _Away as away:
            raise away.trouble from away.trouble.__cause__
        if refused:
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            raise BackendStoreError(f"The result store refused a record{more}: {refused[0]}") from refused[0]

    def _write_all(self) -> list[Exception]:
        """Write what is owed; return the errors of what was refused, which is given up."""
        refused: list[Exception] = []
        while self._records:
            write, size, self.as_of = self._records[0]
            began = monotonic()
            try:
                write()
            except Exception as error:
                if self._backend.is_passing_trouble(error):
                    self._note(error, began)
                    raise _Away(error) from error
                refused.append(error)
            finally:
                self.as_of = None
            self._records.popleft()
            self._bytes -= size
        if self._absence.trouble is not None:
            logger.warning("Result store: back again")
            self._absence.trouble = None
        return refused

    def _note(self, error: Exception, began: float) -> None:
        if self._absence.trouble is None:
            logger.error("Result store: away, what is to be stored waits for it: %s", error)
        self._absence.note(error, began)

    def _pauses(self) -> Callable[[Exception, Iterator[float], int], float]:
        """Return what is told of each failure and returns the pause after it; a process that stops soon gives up."""
        began = monotonic()

        def on_failure(error: Exception, intervals: Iterator[float], retries: int) -> float:
            if stopping.gives_up(began):
                raise error
            pause = next(intervals)
            return min(pause, SHORT_PAUSE) if stopping else pause

        return on_failure


class _Away(Exception):
    """The store is away; ``trouble`` is what it said."""

    def __init__(self, trouble: Exception) -> None:
        super().__init__(str(trouble))
        self.trouble = trouble
