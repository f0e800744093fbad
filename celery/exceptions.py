"""Every error and warning, as one tree.

::

    CeleryError
        ImproperlyConfigured  SecurityError
        TaskPredicate         how a task body tells the worker what to do
            Ignore  Reject  Retry
        TaskError
            QueueNotFound  NotRegistered  AlreadyRegistered  IncompleteStream  TimeoutError
            MaxRetriesExceededError  TaskRevokedError  InvalidTaskError  ChordError
    BackendError
        BackendGetMetaError  BackendStoreError
    CeleryWarning
        AlwaysEagerIgnored  DuplicateNodenameWarning  DuplicateTaskNameWarning
        FixupWarning  NotConfigured  SecurityWarning
    SystemExit
        WorkerShutdown  WorkerTerminate

Errors that kombu, billiard and click define are handed on by this module, and imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError
    from kombu.exceptions import OperationalError

__all__ = (
    "reraise",
    # warnings
    "CeleryWarning",
    "AlwaysEagerIgnored",
    "DuplicateNodenameWarning",
    "DuplicateTaskNameWarning",
    "FixupWarning",
    "NotConfigured",
    "SecurityWarning",
    # core
    "CeleryError",
    "ImproperlyConfigured",
    "InvalidRate",
    "SecurityError",
    "OperationalError",
    # what a task body may raise
    "TaskPredicate",
    "Ignore",
    "Reject",
    "Retry",
    # tasks
    "TaskError",
    "QueueNotFound",
    "IncompleteStream",
    "NotRegistered",
    "AlreadyRegistered",
    "TimeoutError",
    "MaxRetriesExceededError",
    "TaskRevokedError",
    "InvalidTaskError",
    "ChordError",
    # results
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    # processes
    "SoftTimeLimitExceeded",
    "TimeLimitExceeded",
    "WorkerLostError",
    "Terminated",
    # deprecations
    "CPendingDeprecationWarning",
    "CDeprecationWarning",
    # the end of a worker
    "WorkerShutdown",
    "WorkerTerminate",
    "CeleryCommandException",  # noqa: F822  # made on first use
)

UNREGISTERED_FMT = "Task of kind {0} never registered, please make sure it's imported."

_ELSEWHERE = {
    "OperationalError": "kombu.exceptions",
    "SoftTimeLimitExceeded": "billiard.exceptions",
    "TimeLimitExceeded": "billiard.exceptions",
    "WorkerLostError": "billiard.exceptions",
    "Terminated": "billiard.exceptions",
}


def __getattr__(name: str) -> Any:
    if name == "CeleryCommandException":
        value: Any = _make_command_exception()
    elif name in _ELSEWHERE:
        value = getattr(import_module(_ELSEWHERE[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _make_command_exception() -> type[Exception]:
    from click.exceptions import ClickException

    class CeleryCommandException(ClickException):
        """Ends the command line program with ``message`` and ``exit_code``."""

        def __init__(self, message: str, exit_code: int) -> None:
            super().__init__(message)
            self.exit_code = exit_code  # type: ignore[misc]  # click has it on the class

    CeleryCommandException.__module__ = __name__
    CeleryCommandException.__qualname__ = "CeleryCommandException"
    return CeleryCommandException


def reraise(tp: type[BaseException], value: BaseException, tb: TracebackType | None = None) -> NoReturn:
    """Raise ``value`` with the traceback ``tb``; ``tp`` is not looked at."""
    if value.__traceback__ is not tb:
        raise value.with_traceback(tb)
    raise value


# -- warnings


class CeleryWarning(UserWarning):
    """Base of all our warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """The task is sent although ``task_always_eager`` is set."""


class DuplicateNodenameWarning(CeleryWarning):
    """Two workers answer to the same node name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Two different functions were registered as one task name."""


class FixupWarning(CeleryWarning):
    """A framework integration could not do its part."""


class NotConfigured(CeleryWarning):
    """No configuration was found; defaults are used."""


class SecurityWarning(CeleryWarning):
    """Something works but is not safe."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """This will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """This is deprecated."""


# -- core


class CeleryError(Exception):
    """Base of all our errors but those of result backends."""


class ImproperlyConfigured(CeleryError):
    """A setting is wrong, or one that is needed is not there."""


class InvalidRate(ValueError, KeyError):
    """A rate has a unit that is none, or no number."""

    # Upstream: a `KeyError` for the unit, a `ValueError` for the number
    __str__ = ValueError.__str__  # that of a `KeyError` is quoted


class SecurityError(CeleryError):
    """A message or a setting breaks a rule of security."""


# -- what a task body may raise


class TaskPredicate(CeleryError):
    """Base of what a task raises to decide about its own message."""


class Ignore(TaskPredicate):
    """Forget the outcome: the worker stores no state and calls no one back."""


class Reject(TaskPredicate):
    """Give the message back to the broker (with ``requeue``) or refuse it."""

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class Retry(TaskPredicate):
    """The task will run again.

    ``exc`` is the error that made it, or text about it; ``when`` the delay in seconds, or a datetime;
    ``sig`` the signature of the run to come.
    """

    #: Replaces the text that is made of ``exc`` and ``when``.
    message: str | None = None
    exc: BaseException | None = None
    when: float | datetime | None = None

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,
    ) -> None:
        self.message = message
        self.excs: str | None
        if isinstance(exc, str):
            self.exc, self.excs = None, exc
        else:
            self.exc, self.excs = exc, _safe_repr(exc) if exc else None
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when, **kwargs)

    def humanize(self) -> str:
        """Return when, in words: ``in 3s`` or ``at 2026-11-20 10:00:00``."""
        if isinstance(self.when, (int, float)):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        if self.excs:
            return f"Retry {self.humanize()}: {self.excs}"
        return f"Retry {self.humanize()}"

    def __reduce__(self) -> tuple[type[Retry], tuple[Any, ...]]:
        return self.__class__, (self.message, self.exc if self.exc is not None else self.excs, self.when)


RetryTaskError = Retry


def _safe_repr(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception as failure:  # a user's __repr__ must not hide the error it was to show
        return f"<{type(error).__name__}: its repr() raised {type(failure).__name__}>"


# -- tasks


class TaskError(CeleryError):
    """Base of errors about tasks."""


class QueueNotFound(KeyError, TaskError):
    """The task is routed to a queue that ``task_queues`` does not know."""


class IncompleteStream(TaskError):
    """The stream of data ended too early."""


class NotRegistered(KeyError, TaskError):
    """No task has this name."""

    def __repr__(self) -> str:
        return UNREGISTERED_FMT.format(str(self))


class AlreadyRegistered(TaskError):
    """A task with this name is there already."""


class TimeoutError(TaskError):
    """The result did not come in time."""


class MaxRetriesExceededError(TaskError):
    """The task has no retry left."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args = kwargs.pop("task_args", [])
        self.task_kwargs = kwargs.pop("task_kwargs", {})
        super().__init__(*args, **kwargs)


class TaskRevokedError(TaskError):
    """The task was revoked, so there is no result."""


class InvalidTaskError(TaskError):
    """A message has broken or missing parts."""


class ChordError(TaskError):
    """A task of the chord's header failed, or its results are lost."""


# -- results


class BackendError(Exception):
    """The result store could not do its work."""


class BackendGetMetaError(BackendError):
    """The record of ``task_id`` could not be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id = kwargs.get("task_id", "")

    def __repr__(self) -> str:
        return f"{super().__repr__()} task_id:{self.task_id}"


class BackendStoreError(BackendError):
    """``state`` and result of ``task_id`` could not be stored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state = kwargs.get("state", "")
        self.task_id = kwargs.get("task_id", "")

    def __repr__(self) -> str:
        return f"{super().__repr__()} state:{self.state} task_id:{self.task_id}"


# -- the end of a worker


class WorkerTerminate(SystemExit):
    """The worker stops now; what it runs is cut."""


SystemTerminate = WorkerTerminate


class WorkerShutdown(SystemExit):
    """The worker stops when its tasks are done."""
