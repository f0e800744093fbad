"""How far the clock on the wall was moved, told by a clock that nobody moves."""

from __future__ import annotations

import time

from celery.utils.failpoints import is_active

__all__ = ("ClockWatch", "elapsed_seconds")

#: Whether a test of the tests has switched this off.
_SEES_NOTHING = is_active("unprotect.beat_clock")

#: A smaller step than this many seconds is left alone: it is what time servers do all day.
SMALLEST_JUMP = 0.5

#: Goes on while the machine sleeps, so that waking up is no jump; Linux has it.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def elapsed_seconds() -> float:
    """Return the seconds since some moment in the past; nobody sets this clock."""
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)


class ClockWatch:
    """Compares the clock on the wall with one that nobody sets."""

    def __init__(self) -> None:
        self._ahead = self._difference()

    @staticmethod
    def _difference() -> float:
        return time.time() - elapsed_seconds()

    def has_jumped(self) -> bool:
        """Whether the clock was moved since the last `jump`."""
        return abs(self._difference() - self._ahead) >= SMALLEST_JUMP and not _SEES_NOTHING

    def jump(self) -> float:
        """Return by how many seconds the clock was moved since the last call; 0.0 if it was not."""
        ahead = self._difference()
        moved, self._ahead = ahead - self._ahead, ahead
        return moved if abs(moved) >= SMALLEST_JUMP and not _SEES_NOTHING else 0.0
