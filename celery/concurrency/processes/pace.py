"""How long jobs of a name take, on average."""

from __future__ import annotations

from celery.utils.failpoints import is_active

__all__ = ("SHORT_SECONDS", "Pace", "new_pace")

#: A job is short when those of its name take less than this on average.
SHORT_SECONDS = 0.001

#: The weight of the latest run.  At 1/8, one long run makes a name long, and some ten short ones make it short again.
WEIGHT = 0.125

#: What is assumed of a name never seen: long, so that nothing is queued behind it.
UNKNOWN_SECONDS = 1.0


class Pace(dict[str, float]):
    """Mean seconds by name, recent runs weighing more."""

    def __missing__(self, name: str) -> float:
        return UNKNOWN_SECONDS

    def note(self, name: str, seconds: float) -> None:
        """Take a run of ``name`` into account."""
        mean = self.get(name)
        self[name] = seconds if mean is None else mean + (seconds - mean) * WEIGHT


class _AllShort(Pace):
    """Takes every job for a short one, so that in a test something is sure to wait behind a long one."""

    def __missing__(self, name: str) -> float:
        return 0.0

    def note(self, name: str, seconds: float) -> None:
        """Learn nothing."""


def new_pace() -> Pace:
    """Return a pace that knows nothing yet."""
    return _AllShort() if is_active("pool.all_are_short") else Pace()
