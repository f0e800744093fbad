"""A last resort for tasks that share the worker's process: a look at it from outside of the interpreter.

A call into C that keeps the interpreter's lock, or a greenlet that never waits, holds up everything, the code that
enforces its time limit included.  The watchdog of `faulthandler` is a thread in C that needs no lock.
"""

from __future__ import annotations

import faulthandler
import math
import sys
from time import monotonic

from celery.utils.log import get_logger

__all__ = ("GRACE_SECONDS", "StallAlarm")

logger = get_logger("celery.pool")

#: So many seconds after a time limit that could not be enforced, the alarm goes off.
GRACE_SECONDS = 10.0


class StallAlarm:
    """Writes to stderr where the process hangs when a limit is overdue; then ends it, with status 1, if it ``ends``.

    There is one watchdog in a process: a task that uses `faulthandler.dump_traceback_later` takes it over.
    """

    def __init__(self, ends: bool = False) -> None:
        self._ends = ends
        self._expected_at = math.inf

    def expect(self, when: float) -> None:
        """Let the alarm go off if nobody calls `relax` until some seconds after ``when`` (monotonic)."""
        self._expected_at = when
        try:
            seconds = max(when - monotonic(), 0.0) + GRACE_SECONDS
            faulthandler.dump_traceback_later(seconds, exit=self._ends, file=sys.__stderr__ or sys.stderr)
        except (OSError, RuntimeError, ValueError, AttributeError) as error:  # a stderr without a descriptor
            logger.debug("No alarm for a hanging process: %r", error)

    def relax(self, now: float) -> None:
        """Call off the alarm; say so if it was, or nearly was, needed."""
        if self._expected_at == math.inf:
            return
        late, self._expected_at = now - self._expected_at, math.inf
        faulthandler.cancel_dump_traceback_later()
        if late > GRACE_SECONDS:
            logger.warning(
                "The worker was held up for %.0f s: a task kept all others from running, and no time limit could be "
                "enforced. Such tasks belong into the prefork pool.",
                late,
            )
