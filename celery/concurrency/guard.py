"""Says where user code begins and ends, so that a time limit strikes there and nowhere else."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

from celery.utils.failpoints import is_active

__all__ = (
    "Abandoned",
    "SoftlyTerminated",
    "ThreadWatch",
    "UserCode",
    "Watch",
    "limited",
    "raise_in_thread",
    "take_back",
    "user_code",
)

#: Whether a test of the tests has switched this protection off.
_HAS_NO_LIMITS = is_active("unprotect.limits")


class SoftlyTerminated(SoftTimeLimitExceeded):
    """Raised in a task that is terminated by SIGUSR1: it may clean up as at a soft limit, and is revoked."""


class Abandoned(BaseException):
    """Raised in a task that nobody waits for any more: its hard limit is over, or it was terminated.

    Only pools that cannot kill a task raise it.  No ``except Exception`` stops it, and a task that does goes no
    further than to the end of its own code: what it returns is not stored.
    """


class Watch:
    """The time limits of one job in a pool whose tasks share a process; the pool hands it to `UserCode.begin`.

    ``soft`` and ``hard`` are seconds since the start, ``None`` or 0 for no limit.  ``throw(error)`` raises ``error`` in
    the task; it is called only while user code runs.  This class is for interrupts on the job's own thread: by a
    signal handler, or while its greenlet waits.
    """

    def __init__(self, soft: float | None, hard: float | None, throw: Callable[[type[BaseException]], Any]) -> None:
        self.soft, self.hard = (None, None) if _HAS_NO_LIMITS else (soft or None, hard or None)
        self.started_at = 0.0
        #: The soft limit was raised in user code.
        self.was_soft_raised = False
        #: Nobody waits for the job any more, by the hard limit or otherwise.
        self.is_abandoned = False
        #: User code runs.
        self.is_open = False
        self._throw = throw
        self._due: type[BaseException] | None = None

    def start(self, now: float) -> None:
        """Let the limits count from ``now``, on the monotonic clock."""
        self.started_at = now

    def interrupt(self, error: type[BaseException]) -> None:
        """Raise ``error`` if user code runs, else when it begins."""
        self.is_abandoned |= error is Abandoned
        if self.is_open:
            self._raise(error)
        else:
            self._due = error

    def open(self) -> None:
        """Begin user code; raises at once what is due."""
        self.is_open = True
        if self._due is not None:
            self._raise_due()

    def shut(self, has_returned: bool) -> None:
        """End user code.  A limit that is over by now counts, also where nothing could be raised before."""
        self.is_open = False
        self._judge(has_returned)

    @property
    def is_over(self) -> bool:
        """Whether the hard limit is over."""
        return bool(self.hard) and monotonic() >= self.started_at + self.hard  # type: ignore[operator]

    def _raise(self, error: type[BaseException]) -> None:
        self._due = None
        self.was_soft_raised |= issubclass(error, SoftTimeLimitExceeded)
        self._throw(error)

    def _raise_due(self) -> None:
        error, self._due = self._due, None
        if error is not None:
            self.was_soft_raised |= issubclass(error, SoftTimeLimitExceeded)
            raise error

    def _judge(self, has_returned: bool) -> None:
        if self.is_abandoned or self.is_over:
            raise Abandoned
        if has_returned and self.soft and not self.was_soft_raised and monotonic() >= self.started_at + self.soft:
            self.was_soft_raised = True
            raise SoftTimeLimitExceeded


class ThreadWatch(Watch):
    """A watch whose interrupts come from another thread than the job's.

    Who would raise and who would end the user code must first take the one token, so that nothing is thrown into
    code that is not the user's.  What was thrown arrives a little later; ending user code waits for it, or takes it
    back.
    """

    def __init__(self, soft: float | None, hard: float | None) -> None:
        super().__init__(soft, hard, self._throw_there)
        self._token: deque[None] = deque()
        self._thread_id = 0
        self._is_leaving = False
        self._was_thrown = False

    def start(self, now: float) -> None:
        self._thread_id = threading.get_ident()
        super().start(now)

    def interrupt(self, error: type[BaseException]) -> None:
        self.is_abandoned |= error is Abandoned
        self._due = error  # before the look at the token: user code that begins meanwhile finds it
        if self._take_token():
            try:
                if not self._is_leaving:
                    self._raise(error)
            finally:
                self._token.append(None)

    def open(self) -> None:
        self._is_leaving = False
        self.is_open = True
        self._token.append(None)
        if self._due is not None and self._take_token():  # else somebody is about to throw it
            if self._due is None:  # and has done so
                self._token.append(None)
            else:
                self.is_open = False
                self._raise_due()

    def shut(self, has_returned: bool) -> None:
        self._is_leaving = True
        while not self._take_token():
            sleep(0)
        self.is_open = False
        if self._was_thrown:
            take_back()
        self._judge(has_returned)

    def close(self) -> None:
        """Let nothing be thrown any more, for the thread turns to other things; what arrives just now is dropped.

        An error that arrives on the very way out of user code keeps `shut` from being called.
        """
        while True:
            try:
                self._is_leaving = True
                while self.is_open:
                    self.is_open = not self._take_token()
                if self._was_thrown:
                    take_back()
                return
            except (SoftTimeLimitExceeded, Abandoned):
                continue

    def _take_token(self) -> bool:
        try:
            self._token.pop()
        except IndexError:
            return False
        return True

    def _throw_there(self, error: type[BaseException]) -> None:
        self._was_thrown = True
        raise_in_thread(self._thread_id, error)


@contextmanager
def limited(watch: ThreadWatch) -> Iterator[None]:
    """Enforce the limits of ``watch`` in the block by timers, where no event loop does."""
    timers = [
        threading.Timer(seconds, watch.interrupt, (error,))
        for seconds, error in ((watch.soft, SoftTimeLimitExceeded), (watch.hard, Abandoned))
        if seconds
    ]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


class _TakenBack(BaseException):
    """Takes the place of what was thrown at a thread and has not arrived."""


def take_back() -> None:
    """Drop what was thrown at this thread and has not arrived, if anything.

    Python's own way, to throw ``NULL``, leaves a flag behind up to 3.12 (the interpreter goes on looking for an
    exception at every call: calls take half as long again, and under `sys.setprofile` 3.11 never gets on).  So another
    one is thrown in its place, and caught.
    """
    try:
        raise_in_thread(threading.get_ident(), _TakenBack)
        for _ in range(1000):  # it comes at the first turn, if it has not come before
            pass
    except _TakenBack:
        pass


def raise_in_thread(thread_id: int, error: type[BaseException]) -> None:
    """Have ``error`` raised in another thread before its next byte code.

    A thread that waits within a call into C goes on waiting; the error comes when the call returns.
    """
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(error))


class _Marks:
    """What is known of the present job, where there is one at a time."""

    __slots__ = ("announce", "depth", "error", "watch")

    def __init__(self) -> None:
        self.depth = 0
        self.announce: Callable[[], None] | None = None
        self.error: type[SoftTimeLimitExceeded] = SoftTimeLimitExceeded
        self.watch: Watch | None = None


class UserCode:
    """Marks user code of the one job that runs in this process, or thread, or greenlet; `user_code` is the instance.

    The tracer writes ``with user_code:`` around what the user wrote, inside of the ``try`` that turns the user's
    exceptions into an outcome.  The pool calls `begin` before a job, with a watch if it runs in the worker's own
    process; a child process is interrupted by a signal, whose handler calls `interrupt`.  Marks may be nested.
    """

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: Any = _Marks()

    def separate(self) -> None:
        """Keep marks for each thread from now on; for each greenlet if `threading` has been patched by now."""

        class Marks(threading.local):
            depth = 0
            announce: Callable[[], None] | None = None
            error: type[SoftTimeLimitExceeded] = SoftTimeLimitExceeded
            watch: Watch | None = None

        self._marks = Marks()

    def enter(self) -> None:
        """Begin user code; raises at once what is due."""
        marks = self._marks
        announce = marks.announce
        if announce is not None:
            marks.announce = None
            announce()
            raise marks.error()
        marks.depth += 1
        if marks.watch is not None and marks.depth == 1:
            marks.watch.open()

    __enter__ = enter

    def __exit__(self, error_type: Any, *_: Any) -> None:
        marks = self._marks
        marks.depth -= 1
        if marks.watch is not None and marks.depth == 0:
            marks.watch.shut(error_type is None)

    def begin(self, watch: Watch | None = None) -> None:
        """Forget whatever the previous job left behind; ``watch`` has the limits of the next one."""
        marks = self._marks
        marks.depth = 0
        marks.announce = None
        marks.watch = watch

    def interrupt(
        self, announce: Callable[[], None], error: type[SoftTimeLimitExceeded] = SoftTimeLimitExceeded
    ) -> None:
        """Raise ``error`` if user code runs, else in the next `enter` of this job.

        ``announce`` is called just before it is raised.  This is for signal handlers of a child process: they run
        between two byte codes of the main thread, which is the one that runs the job.
        """
        marks = self._marks
        if marks.depth > 0:
            announce()
            raise error()
        marks.announce, marks.error = announce, error


user_code = UserCode()
