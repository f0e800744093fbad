"""Until when what this thread does must have ended; whoever waits for a peer asks how long it may."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

__all__ = ("current", "deadline", "seconds_left")

#: A wait is at least so long: to a socket, none at all would mean for ever.
SHORTEST_WAIT = 0.01


class _Current(threading.local):
    """The deadline of this thread: a moment of the monotonic clock, or ``None``."""

    ends_at: float | None = None


current = _Current()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let what is done in the context end after ``seconds``, as far as it asks `seconds_left`."""
    before, current.ends_at = current.ends_at, monotonic() + seconds
    try:
        yield
    finally:
        current.ends_at = before


def seconds_left(most: float) -> float:
    """Return how long this thread may wait for something that may take ``most`` seconds at other times."""
    ends_at = current.ends_at
    return most if ends_at is None else max(SHORTEST_WAIT, min(most, ends_at - monotonic()))
