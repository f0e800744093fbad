"""Says where user code begins and ends, so that a soft time limit is raised there and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

__all__ = ("UserCode", "user_code")


class UserCode:
    """Marks user code of the one job that runs in this process; `user_code` is the instance.

    The tracer writes ``with user_code:`` around what the user wrote, inside of the ``try`` that turns the user's
    exceptions into an outcome.  The pool calls `begin` before a job and `interrupt` when its time is over.  Marks may
    be nested.  Where no pool interrupts (threads, tests) they do nothing.
    """

    __slots__ = ("_announce", "_depth")

    def __init__(self) -> None:
        self._depth = 0
        self._announce: Callable[[], None] | None = None

    def enter(self) -> None:
        """Begin user code; raises `SoftTimeLimitExceeded` at once if the time is over already."""
        announce = self._announce
        if announce is not None:
            self._announce = None
            announce()
            raise SoftTimeLimitExceeded()
        self._depth += 1

    def leave(self) -> None:
        """End user code."""
        self._depth -= 1

    __enter__ = enter

    def __exit__(self, *_: Any) -> None:
        self._depth -= 1

    def begin(self) -> None:
        """Forget whatever the previous job left behind."""
        self._depth = 0
        self._announce = None

    def interrupt(self, announce: Callable[[], None]) -> None:
        """Raise `SoftTimeLimitExceeded` if user code runs, else in the next `enter` of this job.

        ``announce`` is called just before it is raised.  This is for signal handlers: they run between two byte codes
        of the main thread, which is the one that runs the job.
        """
        if self._depth > 0:
            announce()
            raise SoftTimeLimitExceeded()
        self._announce = announce


user_code = UserCode()
