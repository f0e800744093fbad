"""Says where user code begins and ends, so that a soft time limit is raised there and nowhere else."""

from __future__ import annotations

from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

__all__ = ("UserCode", "user_code")


class UserCode:
    """Marks user code of the one job that runs in this process; `user_code` is the instance.

    The tracer writes ``with user_code:`` around what the user wrote, inside of the ``try`` that turns the user's
    exceptions into an outcome.  The pool calls `begin` before a job and `interrupt` when its time is over.  Marks may
    be nested.  Where no pool interrupts (threads, tests) they do nothing.
    """

    __slots__ = ("_depth", "_is_due")

    def __init__(self) -> None:
        self._depth = 0
        self._is_due = False

    def enter(self) -> None:
        """Begin user code; raises `SoftTimeLimitExceeded` at once if the time is over already."""
        self._depth += 1
        if self._is_due:
            self._is_due = False
            raise SoftTimeLimitExceeded()

    def leave(self) -> None:
        """End user code."""
        self._depth -= 1

    __enter__ = enter

    def __exit__(self, *_: Any) -> None:
        self._depth -= 1

    def begin(self) -> None:
        """Forget whatever the previous job left behind."""
        self._depth = 0
        self._is_due = False

    def interrupt(self) -> None:
        """Raise `SoftTimeLimitExceeded` if user code runs, else in the next `enter` of this job.

        To be called by a signal handler: it runs between two byte codes of the main thread, which is the one that
        runs the job.
        """
        if self._depth > 0:
            raise SoftTimeLimitExceeded()
        self._is_due = True


user_code = UserCode()
