"""Every so many seconds; and what makes a schedule of a number."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from celery.schedules.base import BaseSchedule, schedstate
from celery.utils.time import humanize_seconds, maybe_timedelta, remaining

__all__ = ("maybe_schedule", "schedule")


class schedule(BaseSchedule):
    """Due when ``run_every`` (a timedelta or seconds) has passed since the last run.

    With ``relative`` the moment is rounded down to the day, hour or minute, whichever the interval is made of.
    """

    #: a timedelta
    run_every: Any
    relative: bool = False

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
    ) -> None:
        self.run_every = maybe_timedelta(run_every)
        self.relative = relative
        super().__init__(nowfun=nowfun, app=app)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        last_run_at, now = self.maybe_make_aware(last_run_at), self.maybe_make_aware(self.now())
        return remaining(last_run_at, self.run_every, now, self.relative)

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        seconds = self.remaining_estimate(last_run_at).total_seconds()
        if seconds > 0:
            return schedstate(False, seconds)
        return schedstate(True, max(self.remaining_estimate(self.now()).total_seconds(), 0))

    @property
    def seconds(self) -> float:
        """The interval; never negative."""
        return max(self.run_every.total_seconds(), 0)  # type: ignore[no-any-return]

    @property
    def human_seconds(self) -> str:
        return humanize_seconds(self.seconds)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, schedule):
            return bool(self.run_every == other.run_every)
        return bool(self.run_every == other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_every, self.relative, self.nowfun)


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """Return a schedule for a number of seconds or a timedelta; a schedule gets ``app``, and nothing stays nothing."""
    if s is None:
        return None
    if isinstance(s, (int, float, timedelta)):
        return schedule(s, relative, app=app)
    try:
        s.app = app
    except AttributeError:
        raise AttributeError(f"{s!r} is no schedule: expected seconds, a timedelta, or a schedule object") from None
    return s
