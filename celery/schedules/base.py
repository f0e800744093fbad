"""What every schedule has: the time, and the zone that its clock is in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from functools import cached_property
from typing import Any, NamedTuple

from celery import _state
from celery.utils.time import maybe_make_aware, timezone

__all__ = ("BaseSchedule", "schedstate")


class schedstate(NamedTuple):
    """What a schedule answers: run now?, and the seconds until the next look."""

    is_due: bool
    next: float


class BaseSchedule:
    """What every schedule has: the time, and the zone that its clock is in."""

    #: what gives the time instead of the app
    nowfun: Callable[[], datetime] | None

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Any = None) -> None:
        self.nowfun = nowfun
        self._app = app

    def now(self) -> datetime:
        return (self.nowfun or self.app.now)()

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the next run; zero or less if it is due."""
        raise NotImplementedError(f"{type(self).__name__} must define remaining_estimate()")

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        """Return whether to run now, and the seconds until the next look."""
        raise NotImplementedError(f"{type(self).__name__} must define is_due()")

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        return maybe_make_aware(dt, self.tz, naive_as_utc=naive_as_utc)

    @property
    def app(self) -> Any:
        return self._app or _state.get_current_app()

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    # both can be assigned, as subclasses with a zone of their own do
    @cached_property
    def tz(self) -> tzinfo:
        return self.app.timezone  # type: ignore[no-any-return]

    @cached_property
    def utc_enabled(self) -> bool:
        return self.app.conf.enable_utc  # type: ignore[no-any-return]

    def to_local(self, dt: datetime) -> datetime:
        return dt if self.utc_enabled else timezone.to_local_fallback(dt)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseSchedule):
            return bool(other.nowfun == self.nowfun)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # Upstream: schedules are compared, never hashed
