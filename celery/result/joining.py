"""Waiting for a task inside a task can wait for ever, so a worker denies it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from celery._state import _set_task_join_will_block, _tls, task_join_will_block

__all__ = ("allow_join_result", "assert_will_not_block", "denied_join_result")


def assert_will_not_block() -> None:
    """Raise RuntimeError where waiting for a result is denied: inside a task."""
    if task_join_will_block():
        raise RuntimeError(
            "Never call result.get() within a task! It may hold the only slot that the awaited task could run in. "
            "Use a chain, a chord or link= instead; or, where you know better, get(disable_sync_subtasks=False)."
        )


@contextmanager
def _join_denied(denied: bool) -> Iterator[None]:
    before = _tls.join_will_block
    _set_task_join_will_block(denied)
    try:
        yield
    finally:
        _set_task_join_will_block(before)


def allow_join_result() -> AbstractContextManager[None]:
    """Return a context in which waiting for results is allowed, also inside a task."""
    return _join_denied(False)


def denied_join_result() -> AbstractContextManager[None]:
    """Return a context in which waiting for results raises RuntimeError."""
    return _join_denied(True)
