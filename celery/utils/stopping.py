"""Whether this process is about to stop: who would wait for long, for a store that is away, asks here.

The worker says so for its own process; a child process is given a `sign` to look at, for nobody talks to it while it
runs a task.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

__all__ = ("SHORT_PAUSE", "Stopping", "stopping")

#: What is tried again while the process stops is tried for so many seconds, and once only after that.
PATIENCE_SECONDS = 0.3

#: The longest pause between two tries then.
SHORT_PAUSE = 0.1


class Stopping:
    """Since when this process is stopping; `stopping` is the instance."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._has_given_up = False
        #: Returns true as soon as this process is to stop.
        self.sign: Callable[[], bool] = lambda: False

    def begin(self) -> None:
        """Say that this process stops."""
        if self._since is None:
            self._since = monotonic()

    def forget(self) -> None:
        """A worker starts in this process."""
        self._since, self._has_given_up = None, False

    def __bool__(self) -> bool:
        if self._since is None and self.sign():
            self.begin()
        return self._since is not None

    def gives_up(self, began: float) -> bool:
        """Return whether something that was tried for the first time at ``began`` is not to be tried again."""
        if not self:
            return False
        if not self._has_given_up:
            self._has_given_up = monotonic() - max(began, self._since or 0.0) >= PATIENCE_SECONDS
        return self._has_given_up


stopping = Stopping()
