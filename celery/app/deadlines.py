"""Publishing ends: after its deadline it fails, and says which broker it could not reach.

kombu tries again by counting attempts, and each attempt may take long.  It tells an ``errback`` of each failure; ours
ends the whole once the deadline of this thread is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

from kombu.exceptions import OperationalError

from celery.utils import deadlines

__all__ = ("PUBLISH_SECONDS", "deadline", "naming_the_broker", "with_deadline")

#: How long publishing may take in all, unless the call's ``timeout`` says otherwise.
PUBLISH_SECONDS = 10.0


class _Now(threading.local):
    """Who else wants to hear of failures of what this thread is doing."""

    errback: Callable[[Any, float], Any] | None = None


_now = _Now()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let what is published in the context fail, rather than try again, after ``seconds``."""
    try:
        with deadlines.deadline(seconds):
            yield
    finally:
        _now.errback = None


def with_deadline(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a retry policy that keeps the deadline of this thread, if there is one."""
    if deadlines.current.ends_at is None:
        return policy
    _now.errback = policy.get("errback")
    return {**policy, "errback": _on_failure}


def _on_failure(error: Any, interval: float) -> None:
    # kombu keeps this function in the options of the connection: it must do nothing once the deadline is gone.
    if _now.errback is not None:
        _now.errback(error, interval)
    ends_at = deadlines.current.ends_at
    if ends_at is not None and monotonic() >= ends_at:
        raise OperationalError(str(error) or repr(error)) from error


@contextmanager
def naming_the_broker(connection: Any) -> Iterator[None]:
    """Turn errors of the connection into ``OperationalError``, as kombu does, with the broker's URL (no password)."""
    try:
        with connection._reraise_as_library_errors():
            yield
    except OperationalError as error:
        if type(error) is not OperationalError or error.__cause__ is None:
            raise
        raise OperationalError(f"{error} (broker: {connection.as_uri()})") from error.__cause__
