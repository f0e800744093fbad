"""Callables as jobs: what ``apply_async`` of the prefork pool sends to a child, and the handle that it returns."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, TimeoutError, WorkerLostError

from celery.concurrency.base import bare_exception, exception_info
from celery.concurrency.guard import user_code

__all__ = ("Call", "run_call")


def run_call(frame: bytes) -> bytes:
    """Run what a `Call` holds, in the child; return ``(has_succeeded, value or ExceptionInfo)`` pickled."""
    try:
        target, args, kwargs = pickle.loads(frame)
        with user_code:
            value = target(*args, **kwargs)
        return pickle.dumps((True, value))
    except Exception as error:
        return _pickled(exception_info(error))


def _pickled(info: ExceptionInfo) -> bytes:
    try:
        data = pickle.dumps((False, info))
        pickle.loads(data)  # some exceptions can be written but not read back
        return data
    except Exception:
        plain = exception_info(RuntimeError(repr(bare_exception(info))))
        plain.traceback = info.traceback
        return pickle.dumps((False, plain))


class Call:
    """A callable with its arguments and callbacks; a `celery.abc.Job`, and the handle on its own result."""

    def __init__(
        self,
        target: Callable[..., Any],
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        *,
        turn: Callable[[float], None],
        end: Callable[[Call, int], bool],
        callback: Callable[[Any], Any] | None = None,
        accept_callback: Callable[[int, float], Any] | None = None,
        timeout_callback: Callable[[bool, float], Any] | None = None,
        error_callback: Callable[[ExceptionInfo], Any] | None = None,
        hard_limit: float | None = None,
        soft_limit: float | None = None,
        correlation_id: str | None = None,
    ) -> None:
        self.id = correlation_id or ""
        self.name = getattr(target, "__qualname__", None) or repr(target)
        self.hard_limit, self.soft_limit = hard_limit, soft_limit
        self._call = target, tuple(args), dict(kwargs)
        self._turn, self._end = turn, end
        self._callback, self._accept_callback = callback, accept_callback
        self._timeout_callback, self._error_callback = timeout_callback, error_callback
        #: Once it ended: whether well, and the value or the `ExceptionInfo`.
        self._outcome: tuple[bool, Any] | None = None

    # -- the job

    def frame(self) -> bytes:
        return pickle.dumps(self._call)

    def on_started(self, pid: int, started_at: float) -> None:
        if self._accept_callback is not None:
            self._accept_callback(pid, started_at)

    def on_soft_limit(self, seconds: float) -> None:
        if self._timeout_callback is not None:
            self._timeout_callback(True, seconds)

    def on_hard_limit(self, seconds: float) -> None:
        self._outcome = False, exception_info(TimeLimitExceeded(seconds))
        if self._timeout_callback is not None:
            self._timeout_callback(False, seconds)
        elif self._error_callback is not None:
            self._error_callback(self._outcome[1])

    def on_finished(self, answer: bytes) -> None:
        has_succeeded, value = self._outcome = pickle.loads(answer)
        callback = self._callback if has_succeeded else self._error_callback
        if callback is not None:
            callback(value)

    def on_lost(self, error: Exception) -> None:
        self._outcome = False, exception_info(error)
        if self._error_callback is not None:
            self._error_callback(self._outcome[1])

    def on_dropped(self) -> None:
        self.on_lost(WorkerLostError(f"The pool closed before it ran {self.name}"))

    # -- the handle

    def ready(self) -> bool:
        return self._outcome is not None

    def successful(self) -> bool:
        """Return whether it returned; raises ValueError before it has ended."""
        if self._outcome is None:
            raise ValueError(f"{self.name} has not ended yet")
        return self._outcome[0]

    def wait(self, timeout: float | None = None) -> None:
        """Let the pool work until this has ended, or for ``timeout`` seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        while self._outcome is None and (deadline is None or monotonic() < deadline):
            self._turn(1.0 if deadline is None else max(deadline - monotonic(), 0))

    def get(self, timeout: float | None = None) -> Any:
        """Return the value, waiting for it.

        Raises:
            TimeoutError: (billiard's) it was not there in time.
            Exception: what the callable raised.
        """
        self.wait(timeout)
        if self._outcome is None:
            raise TimeoutError(f"{self.name} has not ended after {timeout} s")
        has_succeeded, value = self._outcome
        if has_succeeded:
            return value
        raise bare_exception(value)

    def terminate(self, signum: int) -> bool:
        """End it by a signal, if it runs; returns whether it did."""
        return self._end(self, signum)
