"""What earlier connections delivered and what became of it, so that a redelivery is not run a second time.

A delivery ends with its connection: the broker gives the message out again although its task still runs here, or has
ended while the acknowledgement was on its way.  Such a redelivery is *adopted*: it is acknowledged when (or because)
the first run ends, and not run.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from celery.utils.failpoints import is_active
from celery.utils.log import get_logger

__all__ = ("Adoption",)

logger = get_logger(__name__)

#: Seconds for which redeliveries are looked for after a connection was lost.
REMEMBERED_SECONDS = 600.0

#: Acknowledgements that may have been lost with a connection: those last sent, no more than were unconfirmed at once.
RECENT_ACKNOWLEDGEMENTS = 1000

#: Tasks that have ended of which redeliveries are looked for, at most: those of the last lost connections.
MOST_ENDED = 3 * RECENT_ACKNOWLEDGEMENTS

#: Whether a test of the tests has switched this protection off.
_RUNS_AGAIN = is_active("unprotect.adoption")

#: Which run of which task: a retry and a replacement keep the id.
Key = tuple[str, Any, Any]


def key_of(headers: Any) -> Key | None:
    """Return what tells the message's run from other runs; ``None`` for version 1, which hides it in the body."""
    task_id = headers.get("id")
    if not isinstance(task_id, str):
        return None
    return task_id, headers.get("retries") or 0, headers.get("replaced_task_nesting") or 0


class Adoption:
    """Remembers deliveries whose connection was lost; false while there are none."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._recent: deque[Any] = deque(maxlen=RECENT_ACKNOWLEDGEMENTS)
        self._running: dict[Key, Orphan] = {}
        self._ended: Counter[Key] = Counter()
        self._forget_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._running or self._ended)

    def note_acknowledged(self, headers: Any) -> None:
        """Note that the message was acknowledged on the present connection."""
        self._recent.append(headers)

    def on_connection_lost(self, requests: Iterable[Any]) -> None:
        """Take over the ``requests`` that go on without their delivery, and what was acknowledged last."""
        self._ended.update(filter(None, map(key_of, self._recent)))
        self._recent.clear()
        # Most were not lost and never come again: the oldest go, else each lost connection would leave them behind.
        for oldest in list(islice(self._ended, max(0, len(self._ended) - MOST_ENDED))):
            del self._ended[oldest]
        for request in requests:
            key = None if request.acknowledged else key_of(request.message.headers or {})
            if key is not None:
                self._running[key] = Orphan(self, key, request)
        self._forget_at = self._monotonic() + REMEMBERED_SECONDS

    def take(self, message: Any, acknowledge: Callable[[Any], None]) -> bool:
        """Return whether ``message`` repeats a delivery that was dealt with; it is then not to be run."""
        if self._monotonic() > self._forget_at or _RUNS_AGAIN:
            self._running.clear()
            self._ended.clear()
            return False
        key = key_of(message.headers)
        if key is None:
            return False
        if key in self._running:
            self._running.pop(key).message = message
            logger.info("Task %s still runs here: its redelivery will be acknowledged when it ends.", key[0])
            return True
        if key not in self._ended:
            return False
        self._ended -= Counter((key,))  # in place, and without keys of which none is left
        acknowledge(message)
        logger.info("Task %s has ended here: its redelivery is acknowledged.", key[0])
        return True

    def end(self, key: Key) -> None:
        """The orphan ended before its redelivery came."""
        if self._running.pop(key, None) is not None:
            self._ended[key] += 1

    def give_up(self, key: Key) -> None:
        """The orphan wants to be run again: let its redelivery do that."""
        self._running.pop(key, None)


class Orphan:
    """Answers the broker for a request whose delivery is gone: through the redelivery, once there is one."""

    __slots__ = ("adoption", "key", "message")

    def __init__(self, adoption: Adoption, key: Key, request: Any) -> None:
        self.adoption = adoption
        self.key = key
        self.message: Any = None
        request.on_ack = self.acknowledge
        request.on_reject = self.reject

    def acknowledge(self, logger: Any, errors: Any) -> None:
        if self.message is None:
            self.adoption.end(self.key)
        else:
            self.message.ack_log_error(logger, errors)
            self.adoption.note_acknowledged(self.message.headers)

    def reject(self, logger: Any, errors: Any, requeue: bool = False) -> None:
        if self.message is not None:
            self.message.reject_log_error(logger, errors, requeue)
        elif requeue:
            self.adoption.give_up(self.key)
        else:
            self.adoption.end(self.key)
